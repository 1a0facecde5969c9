"""The machine's clocks."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Monotonic time for durations, wall time for the record, real sleep."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def utc_now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
