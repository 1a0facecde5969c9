"""How much live traffic the plane has seen in the last hour, from Envoy's counter, which begins at 0 again whenever Envoy does."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from interlock.model.plane import CaptureCounts, LiveTraffic
from interlock.ports import Clock

WINDOW_SECONDS = 3600.0
KEPT_EVERY_SECONDS = 5.0  # 720 readings an hour; a rate over the window is off by one reading at most


@dataclass(frozen=True, slots=True)
class _Reading:
    at_seconds: float
    total_count: int


class LiveHistory:
    """
    Readings of the last hour, at most from the first request on that this plane has served. What Envoy had counted before the first reading
    is not known to be of this hour, and is left out.

    A counter that fell was reset: all it shows came since. What Envoy had counted between the last reading and its end is lost, and the
    time in which it answered nobody counts as time: both make the traffic look smaller than it was, never larger.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: deque[_Reading] = deque()
        self._last_count = self._total_count = 0

    def complete(self, read: Callable[[], CaptureCounts]) -> CaptureCounts:
        """Read Envoy's counters, add them to the history, and say with them what was seen in the last hour. For any thread."""
        with self._lock:  # around both: counters that were read earlier and noted later would look like a reset
            counts = read()
            return replace(counts, last_hour=self._note(counts.live_requests_count, self._clock.monotonic()))

    def _note(self, count: int, now: float) -> LiveTraffic:
        self._total_count += count - self._last_count if count >= self._last_count else count
        self._last_count = count
        if not self._total_count:  # nobody has asked for anything yet: an hour begins with its first request
            self._kept.clear()
        if not self._kept or now - self._kept[-1].at_seconds >= KEPT_EVERY_SECONDS:
            self._kept.append(_Reading(now, self._total_count))
        while self._kept[0].at_seconds < now - WINDOW_SECONDS:
            self._kept.popleft()
        oldest = self._kept[0]
        return LiveTraffic(self._total_count - oldest.total_count, now - oldest.at_seconds)
