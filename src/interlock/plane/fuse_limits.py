"""
Whether a candidate breaks a hard limit, from counters that only grow. Pure, standard library only.

The judge is the fine instrument. What is decided here must never be wrong on a healthy candidate, so a limit is broken only when it is
broken over a whole window of 5 s, goes on being broken for 3 s, and new failures or slow answers keep coming: one stall of the machine,
which slows everything down once, is in the window for 5 s and breaks nothing. That also leaves the judge the first word.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

from interlock.model.plane import CandidateLimits

WINDOW_SECONDS = 5.0
BROKEN_FOR_SECONDS = 3.0

Bins = Mapping[float, int]  # lower bound in ms: answers from there up to the next bound, which is 10 % higher at most


@dataclass(frozen=True, slots=True)
class Counts:
    """
    What Envoy counted since it started. A count that went down, or another server, means that counting began anew.

    server: the candidate's address. live: requests that were the candidate's to answer; bad: 4xx and 5xx in the end, so the incumbent
    could not answer them either; own: those that the candidate answered well itself. copies: mirrored to the candidate, bad as well as
    late (no answer within the deadline, also counted as bad). users: all predictions, as users saw them in the end.
    live_times has what a rescued user waited, the failed try included.
    """

    server: str
    live_count: int
    live_bad_count: int
    live_own_count: int
    copies_count: int
    copies_bad_count: int
    copies_late_count: int
    users_count: int
    users_bad_count: int
    live_times: Bins
    copies_times: Bins


@dataclass(frozen=True, slots=True)
class Answers:
    """
    What the candidate did between two readings.

    answerable_count: requests that the incumbent answers well, or would, as far as can be said. A request that fails on both arms is a
        bad request, whatever its status: a live one was put to the incumbent afterwards; of the copies, the share that users saw fail is
        taken off. A stream of bad requests therefore leaves nothing to count, and does not hide the failures on good ones.
    failed_count: those of them that the candidate failed, or did not get because Envoy has ejected it.
    times: its answers in ms; late copies are at infinity.
    """

    answerable_count: float
    failed_count: float
    times: Bins

    @property
    def failed_percent(self) -> float:
        """NaN when there was nothing to answer."""
        return 100 * self.failed_count / self.answerable_count if self.answerable_count > 0 else math.nan

    @property
    def timed_count(self) -> int:
        """How many answers were timed."""
        return sum(self.times.values())

    def slower_count(self, limit_ms: float) -> int:
        """Answers that certainly took longer: those of bins that begin above."""
        return sum(count for lower_ms, count in self.times.items() if lower_ms > limit_ms)

    def p99_ms(self) -> float:
        """At least so many ms: where the bin of the 99th percentile begins. NaN without answers, infinity when it never came."""
        left = 0.99 * self.timed_count
        for lower_ms, count in sorted(self.times.items()):
            left -= count
            if left <= 0 and count:
                return lower_ms
        return math.nan


def between(earlier: Counts, later: Counts) -> Answers | None:
    """What was answered between the two; None when counting began anew in between."""
    numbers = [field.name for field in fields(Counts) if field.name.endswith("_count")]
    grown = {name: getattr(later, name) - getattr(earlier, name) for name in numbers}
    times = [_grown(earlier.live_times, later.live_times), _grown(earlier.copies_times, later.copies_times)]
    if earlier.server != later.server or min(*grown.values(), *(n for bins in times for n in bins.values()), 0) < 0:
        return None
    live_good = grown["live_count"] - grown["live_bad_count"]
    bad_share = min(1.0, grown["users_bad_count"] / grown["users_count"]) if grown["users_count"] else 0.0
    failed_live = max(0, live_good - grown["live_own_count"])
    failed_copies = max(0.0, grown["copies_bad_count"] - bad_share * grown["copies_count"])
    merged = {lower_ms: sum(bins.get(lower_ms, 0) for bins in times) for lower_ms in {*times[0], *times[1]}}
    return Answers(
        answerable_count=max(0, live_good) + (1 - bad_share) * grown["copies_count"],
        failed_count=failed_live + failed_copies,
        times=merged | {math.inf: grown["copies_late_count"]},
    )


def _grown(earlier: Bins, later: Bins) -> dict[float, int]:
    return {lower_ms: later.get(lower_ms, 0) - earlier.get(lower_ms, 0) for lower_ms in {*earlier, *later}}


class Window:
    """
    The readings of the last 5 s, and since when which limit has been broken.

    A reading in which nothing was answered changes nothing: Envoy brings its histograms up to date less often than they are read here.
    """

    def __init__(self, limits: CandidateLimits) -> None:
        self._limits = limits
        self._readings: deque[tuple[float, Counts]] = deque()
        self._since: dict[str, float] = {}

    def clear(self) -> None:
        """Begin anew."""
        self._readings.clear()
        self._since.clear()

    def add(self, at_seconds: float, counts: Counts) -> str | None:
        """Note a reading; which number has broken which limit for 3 s, None while none has."""
        newest = between(self._readings[-1][1], counts) if self._readings else None
        if newest is None:
            self.clear()
        self._readings.append((at_seconds, counts))
        while len(self._readings) > 1 and self._readings[1][0] <= at_seconds - WINDOW_SECONDS:
            self._readings.popleft()
        began_at, first = self._readings[0]
        whole = between(first, counts)
        if newest is None or whole is None or at_seconds - began_at < WINDOW_SECONDS:
            return None
        return self._errors(at_seconds, newest, whole) or self._latency(at_seconds, newest, whole)

    def _errors(self, at_seconds: float, newest: Answers, whole: Answers) -> str | None:
        limits, percent = self._limits, whole.failed_percent
        is_broken = whole.answerable_count >= limits.min_sample_count and percent > limits.error_percent
        if not newest.answerable_count or not self._lasts("errors", at_seconds, is_broken=is_broken and newest.failed_count > 0):
            return None
        return (
            f"the candidate failed {percent:.0f} % of {whole.answerable_count:.0f} requests that the incumbent can answer, "
            f"limit {limits.error_percent:g} %"
        )

    def _latency(self, at_seconds: float, newest: Answers, whole: Answers) -> str | None:
        limits, p99_ms = self._limits, whole.p99_ms()
        is_broken = whole.timed_count >= limits.min_sample_count and p99_ms > limits.p99_ms
        is_fresh = newest.slower_count(limits.p99_ms) > 0
        if not newest.timed_count or not self._lasts("p99", at_seconds, is_broken=is_broken and is_fresh):
            return None
        took = "did not come" if math.isinf(p99_ms) else f"took {p99_ms:g} ms or more"
        return f"the slowest 1 % of {whole.timed_count} answers of the candidate {took}, limit {limits.p99_ms:g} ms"

    def _lasts(self, name: str, at_seconds: float, *, is_broken: bool) -> bool:
        if not is_broken:
            self._since.pop(name, None)
            return False
        return at_seconds - self._since.setdefault(name, at_seconds) >= BROKEN_FOR_SECONDS
