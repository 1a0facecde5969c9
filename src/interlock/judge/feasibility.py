"""
How much clean traffic a PASS takes at the very least: asked before the canary starts, to refuse a plan that cannot decide.

Clean means: no divergence, no error, a candidate plainly faster than tolerated. Real traffic needs more.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from interlock.errors import PolicyError
from interlock.judge.bounds import rejects_share
from interlock.judge.eprocess import log_mixture, pass_bets, planned_pass_bets
from interlock.judge.grids import DIVERGENCE_QUANTUM, LATENCY_CELLS
from interlock.judge.policy import JudgePolicy, LatencyTolerance
from interlock.judge.quantiles import not_slower_test

SLO_QUANTILE = 0.99


# Without a share of its own, a plan is asked at the kindest of these: 1 % to 50 % of live requests on the candidate.
_SHARES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)


def pairs_needed(policy: JudgePolicy, candidate_share: float | None = None) -> int:
    """The smallest number of clean pairs at which `judge_final` can PASS: the largest need of any signal. Arguments as for `needs`."""
    return max(count for _, count in needs(policy, candidate_share))


@lru_cache(maxsize=64)
def needs(policy: JudgePolicy, candidate_share: float | None = None) -> tuple[tuple[str, int], ...]:
    """
    Clean pairs each signal needs, by name, in one weight step. Several steps need more: each has histograms of its own.

    Args:
        candidate_share: share c of live requests on the candidate, 0 < c < 1. It splits the latencies: live ones are c n of the
            candidate against (1-c) n of the incumbent, mirrored ones the reverse. None: the kindest share of 1 % to 50 %.
    Raises:
        PolicyError: the share lies outside 0 to 1.
    """
    if candidate_share is not None and not 0 < candidate_share < 1:
        raise PolicyError(f"candidate share is {candidate_share:g}, needs to lie inside 0 to 1 for a comparison within each role")
    shares = _SHARES if candidate_share is None else (candidate_share,)
    return (
        ("divergence", _divergence(policy)),
        ("errors", _errors(policy)),
        ("p50", min(_latency(policy, 0.50, policy.p50_slower, share) for share in shares)),
        ("p99", min(_latency(policy, 0.99, policy.p99_slower, share) for share in shares)),
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


def _latency(policy: JudgePolicy, quantile: float, tolerance: LatencyTolerance, share: float) -> int:
    def log_e(candidate_count: int, incumbent_count: int) -> float:
        if not candidate_count or not incumbent_count:
            return 0.0
        candidate, incumbent = np.zeros(LATENCY_CELLS), np.zeros(LATENCY_CELLS)
        candidate[0], incumbent[-1] = candidate_count, incumbent_count  # as far apart as the grid: any tolerance separates them
        return not_slower_test(candidate, incumbent, quantile=quantile, tolerance=tolerance).log_e()

    def proves(count: int) -> bool:
        live = round(share * count)
        logs = np.array([log_e(live, count - live), log_e(count - live, live)])
        return float(np.logaddexp.reduce(logs)) - math.log(2) >= math.log(1 / policy.beta)

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
