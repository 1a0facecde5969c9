"""
The latency signals: is the candidate's p50 or p99 slower than tolerated?

Live answers are compared with live ones and mirrored with mirrored ones, since mirrors contend differently. Within a role the e-values
of the weight steps multiply; over the two roles they are averaged, because the same requests feed both.
Limit of the method: stalls that hit one arm only make exceedances cluster and break the p99 bound (11 % false halts at 5 %).
"""

import math

import numpy as np

from interlock.judge.bounds import more_needed, quantile_ranks
from interlock.judge.eprocess import e_value
from interlock.judge.feasibility import needs
from interlock.judge.grids import LATENCY_CELLS, LATENCY_LOWER_MS, LATENCY_UPPER_MS, Floats, slower_ms
from interlock.judge.policy import JudgePolicy, LatencyTolerance, SignalPolicy
from interlock.judge.quantiles import QuantileTest, not_slower_test, quantile_ms, slower_test
from interlock.judge.readings import SignalReading
from interlock.judge.signals import describe
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
    strata = {role: _by_step(tally, role) for role in Role}
    slower = [[slower_test(c, b, quantile=quantile, tolerance=tolerance) for c, b in steps] for steps in strata.values()]
    not_slower = [[not_slower_test(c, b, quantile=quantile, tolerance=tolerance) for c, b in steps] for steps in strata.values()]

    def proves(growth: float) -> bool:
        return _log_e_over_roles(not_slower, growth) >= math.log(1 / policy.beta)

    candidate, incumbent = _shown(list(strata.values()))
    count = sum(int(c.sum()) for steps in strata.values() for c, _ in steps)
    more = more_needed(count, proves) if count else dict(needs(policy))[signal.name]
    low, high = _quantile_bounds_ms(candidate, quantile, beta=policy.beta)
    incumbent_ms = quantile_ms(incumbent, quantile)
    return SignalReading(
        name=signal.name,
        value=quantile_ms(candidate, quantile),
        limit=None if incumbent_ms is None else float(slower_ms(np.array(incumbent_ms), tolerance)),
        unit="ms",
        sample_count=count,
        e_value=e_value(_log_e_over_roles(slower)),
        halting_e_value=1 / (policy.alpha * signal.sum_weight),
        low=low,
        high=high,
        is_usable=True,
        is_proved=count > 0 and more == 0,
        more_requests_needed=more,
        reason=describe(count, more),
    )


def _by_step(tally: Tally, role: Role) -> list[_Histograms]:
    """
    Histograms of both arms in each step where both answered in this role.

    A step with one arm only (the shadow step has no mirrored incumbent) bets nothing, E = 1. That opens no way to halt: until
    the other arm answers, the product stays what it was when the step began, and then it had not halted.
    """
    steps = sorted({step for step, _, held_role in tally.latency if held_role is role})
    empty = np.zeros(LATENCY_CELLS, dtype=np.int64)
    pairs = [
        (
            tally.latency.get((step, Arm.CANDIDATE, role), empty).astype(np.float64),
            tally.latency.get((step, Arm.INCUMBENT, role), empty).astype(np.float64),
        )
        for step in steps
    ]
    return [(candidate, incumbent) for candidate, incumbent in pairs if candidate.any() and incumbent.any()]


def _log_e_over_roles(tests: list[list[QuantileTest]], growth: float = 1.0) -> float:
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
