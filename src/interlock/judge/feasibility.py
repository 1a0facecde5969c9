"""
How much clean traffic a PASS takes at the very least: asked before the canary starts, to refuse a plan that cannot decide.

Clean means: no divergence, no error, a candidate plainly faster than tolerated. Real traffic needs more.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from interlock.judge.bounds import rejects_share
from interlock.judge.eprocess import log_mixture, pass_bets, planned_pass_bets
from interlock.judge.grids import DIVERGENCE_QUANTUM, LATENCY_CELLS
from interlock.judge.policy import JudgePolicy, LatencyTolerance
from interlock.judge.quantiles import not_slower_test

SLO_QUANTILE = 0.99


def pairs_needed(policy: JudgePolicy) -> int:
    """The smallest number of clean pairs at which `judge_final` can PASS: the largest need of any signal."""
    return max(count for _, count in needs(policy))


@lru_cache(maxsize=64)
def needs(policy: JudgePolicy) -> tuple[tuple[str, int], ...]:
    """
    Clean pairs each signal needs, by name.

    The latency needs count pairs whose candidate halves share one role and one step, the best case: at a weight of w the role with
    most of them gets only max(w, 1 - w) of the pairs.
    """
    return (
        ("divergence", _divergence(policy)),
        ("errors", _errors(policy)),
        ("p50", _latency(policy, 0.50, policy.p50_slower)),
        ("p99", _latency(policy, 0.99, policy.p99_slower)),
        ("slo_error_share", max(policy.slo_min_sample_count, _share(policy.slo_max_error_share, policy.beta))),
        ("slo_p99", max(policy.slo_min_sample_count, _share(1 - SLO_QUANTILE, policy.beta))),
    )


def _divergence(policy: JudgePolicy) -> int:
    if policy.divergence_is_binary:
        return _share(policy.divergence_tolerance, policy.beta)
    bets = pass_bets(policy.divergence_tolerance - DIVERGENCE_QUANTUM)
    step = bets.log_factors(np.array(0.0))
    return _smallest(lambda n: float(log_mixture(n * step, bets)) >= math.log(1 / policy.beta))


def _errors(policy: JudgePolicy) -> int:
    def proves(count: int) -> bool:
        bets = planned_pass_bets(policy.error_tolerance, high=1.0, sample_count=count, beta=policy.beta)
        return float(log_mixture(count * bets.log_factors(np.array(0.0)), bets)) >= math.log(1 / policy.beta)

    return _smallest(proves)


def _latency(policy: JudgePolicy, quantile: float, tolerance: LatencyTolerance) -> int:
    candidate, incumbent = np.zeros(LATENCY_CELLS), np.zeros(LATENCY_CELLS)

    def proves(count: int) -> bool:
        candidate[200], incumbent[400] = count, count  # 1 ms and 55 ms: any tolerance separates them
        log_e = not_slower_test(candidate, incumbent, quantile=quantile, tolerance=tolerance).log_e()
        return log_e - math.log(2) >= math.log(1 / policy.beta)  # the other role has no data: E = 1 halves the average at worst

    return _smallest(proves)


def _share(ceiling: float, beta: float) -> int:
    return _smallest(lambda n: rejects_share(0, n, ceiling=ceiling, beta=beta))


def _smallest(proves: Callable[[int], bool]) -> int:
    """Smallest count that is proof, where more of the same stays proof."""
    high = 1
    while not proves(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high
