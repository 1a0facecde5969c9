"""
The latency signals: is the candidate's p50 or p99 slower than tolerated, since the start or since any epoch?

Live answers are compared with live ones and mirrored with mirrored ones, since mirrors contend differently. Within a role the e-values
of the weight steps multiply; over the two roles they are averaged, because the same requests feed both.
Stalls that hit one arm only make slow answers cluster; the evidence is tempered by the design effect seen in the shadow phase.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from interlock.judge.bounds import more_needed, quantile_ranks
from interlock.judge.design_effect import design_effect
from interlock.judge.eprocess import e_value, log_restarting
from interlock.judge.evidence import describe
from interlock.judge.feasibility import needs
from interlock.judge.grids import LATENCY_CELLS, LATENCY_LOWER_MS, LATENCY_UPPER_MS, Floats, slower_ms
from interlock.judge.policy import JudgePolicy, LatencyTolerance, SignalPolicy
from interlock.judge.quantiles import QuantileTest, not_slower_test, quantile_ms, slower_test
from interlock.judge.readings import SignalReading
from interlock.judge.tally import Tally
from interlock.model.journal import Arm, Role

_Histograms = tuple[Floats, Floats]  # candidate, incumbent


def read_p50(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """The candidate's median latency against the incumbent's."""
    return _read_quantile(tally, policy, policy.p50, policy.p50_slower, quantile=0.50)


def read_p99(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """The candidate's 99th percentile against the incumbent's."""
    return _read_quantile(tally, policy, policy.p99, policy.p99_slower, quantile=0.99)


def _read_quantile(
    tally: Tally, policy: JudgePolicy, signal: SignalPolicy, tolerance: LatencyTolerance, *, quantile: float
) -> SignalReading:
    effect = design_effect(tally, quantile)
    tempered = 1 / (effect or 1.0)
    strata = {role: _Stratum(tally, role) for role in Role}
    starts = sorted({key.epoch for key in tally.latency})
    log_e = np.array([_log_e_since(start, list(strata.values()), quantile, tolerance, tempered) for start in starts])
    compared = [stratum.steps_from(_first_compared_epoch(tally)) for stratum in strata.values()]
    not_slower = [[not_slower_test(c, b, quantile=quantile, tolerance=tolerance) for c, b in steps] for steps in compared]

    def proves(growth: float) -> bool:
        return _log_e_over_roles(not_slower, growth * tempered) >= math.log(1 / policy.beta)

    candidate, incumbent = _shown(compared)
    count = sum(int(c.sum()) for steps in compared for c, _ in steps)
    more = more_needed(count, proves) if count else dict(needs(policy))[signal.name]
    low, high = _quantile_bounds_ms(candidate, quantile, beta=policy.beta)
    incumbent_ms = quantile_ms(incumbent, quantile)
    return SignalReading(
        name=signal.name,
        value=quantile_ms(candidate, quantile),
        limit=None if incumbent_ms is None else float(slower_ms(np.array(incumbent_ms), tolerance)),
        unit="ms",
        sample_count=count,
        e_value=e_value(_log_e_with_restarts(log_e, starts, tally, policy)),
        halting_e_value=1 / (policy.alpha * signal.sum_weight),
        low=low,
        high=high,
        is_usable=True,
        is_proved=count > 0 and more == 0,
        more_requests_needed=more,
        reason=describe(count, more) + _clustering(effect),
        design_effect=effect or 1.0,
    )


def _first_compared_epoch(tally: Tally) -> int:
    """
    The epoch in which users first met the candidate: the process that proves begins there, by plan, not by what was seen.

    In keyed analysis the shadow would else have spent every regular customer before a single latency was compared.
    """
    return min((key.epoch for key in tally.latency if key.arm is Arm.CANDIDATE and key.role is Role.LIVE), default=0)


def _log_e_since(start: int, strata: Sequence["_Stratum"], quantile: float, tolerance: LatencyTolerance, tempered: float) -> float:
    """
    The log e-value of the process that began with an epoch, never above the untempered one.

    The effect is estimated from data that go on coming in; raising an e-value below 1 to a power would enlarge it.
    """
    tests = [[_slower(c, b, quantile, tolerance) for c, b in stratum.steps_from(start)] for stratum in strata]
    return min(_log_e_over_roles(tests), _log_e_over_roles(tests, tempered))


def _log_e_with_restarts(log_e: Floats, starts: Sequence[int], tally: Tally, policy: JudgePolicy) -> float:
    if not starts:
        return 0.0
    planned_epoch_count = math.ceil(policy.planned_window_count / tally.epoch_windows)
    return log_restarting(log_e, np.array(starts, dtype=np.float64), planned_window_count=planned_epoch_count)


def _clustering(effect: float | None) -> str:
    if effect is None:
        return "; how slow answers cluster is not known"
    return f"; tempered by a design effect of {effect:.2g}" if effect > 1 else ""


class _Stratum:
    """The histograms of one role, by step, since any epoch."""

    def __init__(self, tally: Tally, role: Role) -> None:
        self._held = {key: counts for key, counts in tally.latency.items() if key.role is role}
        self._steps = sorted({key.step for key in self._held})

    def steps_from(self, epoch: int) -> list[_Histograms]:
        """
        Histograms of candidate and incumbent in each step where both answered, of what a process counts that began with the epoch.

        A step with one arm only (the shadow step has no mirrored incumbent) bets nothing, E = 1. That opens no way to halt: until
        the other arm answers, the product stays what it was when the step began, and then it had not halted.
        """
        pairs = [(self._sum(step, Arm.CANDIDATE, epoch), self._sum(step, Arm.INCUMBENT, epoch)) for step in self._steps]
        return [(candidate, incumbent) for candidate, incumbent in pairs if candidate.any() and incumbent.any()]

    def _sum(self, step: int, arm: Arm, epoch: int) -> Floats:
        found = (
            counts.astype(np.float64)
            for key, counts in self._held.items()
            if key.step == step and key.arm is arm and key.fresh_from <= epoch <= key.epoch
        )
        return sum(found, np.zeros(LATENCY_CELLS))


def _slower(candidate: Floats, incumbent: Floats, quantile: float, tolerance: LatencyTolerance) -> QuantileTest:
    return _kept_slower_test(candidate.tobytes(), incumbent.tobytes(), quantile, tolerance)


@lru_cache(maxsize=256)
def _kept_slower_test(candidate: bytes, incumbent: bytes, quantile: float, tolerance: LatencyTolerance) -> QuantileTest:
    """A step that is over keeps its histograms for every later look, and one step is part of many restarts."""
    return slower_test(np.frombuffer(candidate), np.frombuffer(incumbent), quantile=quantile, tolerance=tolerance)


def _log_e_over_roles(tests: Sequence[Sequence[QuantileTest]], growth: float = 1.0) -> float:
    """Log of the product over the steps, averaged over the roles. Both roles always count, half each: one without data is E = 1."""
    products = np.array([math.fsum(test.log_e(growth) for test in steps) for steps in tests])
    return float(np.logaddexp.reduce(products)) - math.log(len(tests))


def _shown(strata: list[list[_Histograms]]) -> _Histograms:
    """The role with more evidence, over all steps: the one whose quantiles a person should see."""
    zero = np.zeros(LATENCY_CELLS)
    pooled = [(sum((c for c, _ in steps), zero), sum((b for _, b in steps), zero)) for steps in strata]
    return max(pooled, key=lambda pair: min(pair[0].sum(), pair[1].sum()))


def _quantile_bounds_ms(counts: Floats, quantile: float, *, beta: float) -> tuple[float | None, float | None]:
    total = int(counts.sum())
    if total == 0:
        return None, None
    low_rank, high_rank = quantile_ranks(total, quantile, beta=beta)
    cells = np.searchsorted(counts.cumsum(), [max(1, low_rank), min(total, high_rank)], side="left")
    low, high = float(LATENCY_LOWER_MS[cells[0]]), float(LATENCY_UPPER_MS[cells[1]])
    return (low if low_rank >= 1 else None), (high if high_rank <= total and math.isfinite(high) else None)
