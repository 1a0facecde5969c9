"""The last two minutes of legs, second by second, for the live page. Memory is bounded whatever the traffic."""

from bisect import insort
from collections import deque
from dataclasses import dataclass, field

from interlock.model.journal import Leg

WINDOW_SECONDS = 120
# Latencies kept per second, arm and role: a p99 needs some hundred; more would only cost memory.
_KEPT_LATENCIES = 1_000


@dataclass(slots=True)
class _Second:
    at_seconds: int
    groups: dict[tuple[str, str], "_Group"] = field(default_factory=dict)


@dataclass(slots=True)
class _Group:
    count: int = 0
    failed_count: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Recent:
    """Counts and latencies per second, arm and role. Only for the eyes: the judge reads the journal."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_SECONDS)

    def add(self, leg: Leg) -> None:
        """Count one leg in the second in which it was received."""
        at_seconds = int(leg.received_at_seconds)
        if not self._seconds or self._seconds[-1].at_seconds < at_seconds:
            self._seconds.append(_Second(at_seconds))
        group = self._seconds[-1].groups.setdefault((leg.arm.value, leg.role.value), _Group())
        group.count += 1
        group.failed_count += leg.failed
        if leg.latency_ms is not None and len(group.latencies_ms) < _KEPT_LATENCIES:
            insort(group.latencies_ms, leg.latency_ms)

    def rollup(self, *, now_seconds: float) -> list[dict[str, object]]:
        """One entry per second, arm and role, oldest first; seconds without legs are left out."""
        return [
            {
                "at_seconds": second.at_seconds,
                "arm": arm,
                "role": role,
                "count": group.count,
                "failed_count": group.failed_count,
                "p50_ms": _quantile(group.latencies_ms, 0.50),
                "p99_ms": _quantile(group.latencies_ms, 0.99),
            }
            for second in self._seconds
            if second.at_seconds > now_seconds - WINDOW_SECONDS
            for (arm, role), group in sorted(second.groups.items())
        ]


def _quantile(ordered_ms: list[float], share: float) -> float | None:
    """Nearest rank; None when nothing was measured."""
    return ordered_ms[min(int(share * len(ordered_ms)), len(ordered_ms) - 1)] if ordered_ms else None
