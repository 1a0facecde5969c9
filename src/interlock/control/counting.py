"""Turns the growing journal into the judge's count table: pairs by request id, each counted in the phase it was received in."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from interlock.control.comparison import comparison
from interlock.control.policy import judge_policy
from interlock.control.session import ReleaseSession
from interlock.judge.keys import KeyMemory
from interlock.judge.pairs import Fate, PairJoiner, PairResult
from interlock.judge.tally import Tally
from interlock.model.journal import Leg
from interlock.plan.phases import Phase

AHEAD_SECONDS = 5.0  # nothing is received in the future: the collector's clock was put forward
BEHIND_SECONDS = 130.0  # nothing is read later than the longest lease lasts: the collector's clock was put back


class PairCounter:
    """
    The evidence of one release as counts.

    The collector's time moves on by our monotonic clock while no leg arrives, so that a lone half expires also when traffic stops. A wall
    clock that jumps in the collector is noticed by the same clock: what comes behind the jump is counted as of now, and nothing expires.
    """

    def __init__(self, session: ReleaseSession) -> None:
        judge, started_at = session.profile.judge, session.services.clock.utc_now().timestamp()
        self._services = session.services
        self._journal = session.services.open_journal()
        self._joiner = PairJoiner(
            deadline_seconds=judge.pair_deadline_seconds,
            judging_since_seconds=started_at,
            compare=comparison(session.profile.output, session.outputs.layout()),
        )
        policy = judge_policy(session.profile)
        self.tally = Tally.for_policy(policy, start_seconds=started_at)
        self._keys = KeyMemory() if policy.is_keyed else None
        self._settling_seconds = judge.pair_deadline_seconds
        self._collector_seconds, self._heard_at = started_at, session.services.clock.monotonic()
        self._steady_offset_seconds, self._jumped_seconds = started_at - self._heard_at, 0.0
        self._paired_at = self._heard_at
        self._counts = session.services.traffic.capture_counts()
        self._begun: list[tuple[float, int]] = []
        self._held: list[PairResult] = []

    @property
    def silent_seconds(self) -> float:
        """How long no pair could be judged."""
        return self._services.clock.monotonic() - self._paired_at

    def begin(self, phase: Phase) -> None:
        """From now on, what is received belongs to this phase."""
        self._begun.append((self._now_seconds(), phase.index))

    def count(self) -> None:
        """Read what is new in the journal and add the pairs that are settled."""
        legs = [self._steady(leg) for leg in self._journal.read_new()]
        if newest := max((leg.received_at_seconds for leg in legs), default=0.0):
            self._collector_seconds, self._heard_at = max(newest, self._collector_seconds), self._services.clock.monotonic()
        self._joiner.offer(legs)
        pairs = self._joiner.collect(self._now_seconds(), self._newly_dropped())
        if any(pair.fate is Fate.JUDGED for pair in pairs):
            self._paired_at = self._services.clock.monotonic()
        ordered = sorted(pairs, key=self._step_of) if self._keys is None else self._in_order_of_asking(pairs)
        for (step, is_settling), received in groupby(ordered, key=self._step_of):
            self.tally.add(received, step, keys=self._keys, is_settling=is_settling)

    def _steady(self, leg: Leg) -> Leg:
        """
        The leg by a collector's clock that does not jump.

        Not held against `_now_seconds`, which lags behind by as long as the last segment was late: a fresh leg would be ahead of it.
        """
        monotonic_seconds, at_seconds = self._services.clock.monotonic(), leg.received_at_seconds + self._jumped_seconds
        ahead_seconds = at_seconds - (monotonic_seconds + self._steady_offset_seconds)
        if math.isfinite(at_seconds) and not -BEHIND_SECONDS <= ahead_seconds <= AHEAD_SECONDS:
            self._jumped_seconds -= ahead_seconds
        elif ahead_seconds > 0:  # clocks that are slewed drift apart by seconds a day
            self._steady_offset_seconds += ahead_seconds
        return replace(leg, received_at_seconds=leg.received_at_seconds + self._jumped_seconds) if self._jumped_seconds else leg

    def _in_order_of_asking(self, pairs: Sequence[PairResult]) -> list[PairResult]:
        """
        The pairs that no slower one can overtake any more, by the time of their first half.

        A key counts by its first request. A time-out settles seconds after the answers to later requests; counted as they settle, the
        failures of a customer who asks again would all be discarded.
        """
        self._held += [pair._replace(at_seconds=pair.first_at_seconds) if pair.key else pair for pair in pairs]
        until = self._now_seconds() - self._settling_seconds
        ready = sorted((pair for pair in self._held if pair.at_seconds <= until), key=lambda pair: pair.at_seconds)
        self._held = [pair for pair in self._held if pair.at_seconds > until]
        return ready

    def _now_seconds(self) -> float:
        return self._collector_seconds + self._services.clock.monotonic() - self._heard_at

    def _step_of(self, pair: PairResult) -> tuple[int, bool]:
        return step_at(self._begun, pair.at_seconds, settling_seconds=self._settling_seconds)

    def _newly_dropped(self) -> int:
        before, self._counts = self._counts, self._services.traffic.capture_counts()
        mirrors = self._counts.mirrors_dropped_count - before.mirrors_dropped_count
        captures = self._counts.captures_dropped_count - before.captures_dropped_count
        return max(0, mirrors) + max(0, captures)  # Envoy's counters start again from 0 when Envoy does


def step_at(begun: Sequence[tuple[float, int]], at_seconds: float, *, settling_seconds: float) -> tuple[int, bool]:
    """
    The phase in which a moment lies, and whether requests routed before the phase may still arrive then.

    What came before the first phase counts for the first.
    """
    for start, index in reversed(begun):
        if at_seconds >= start:
            return index, at_seconds < start + settling_seconds
    return (begun[0][1] if begun else 0), True
