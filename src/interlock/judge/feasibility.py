"""
How much clean traffic a PASS takes at the very least: asked before the canary starts, to refuse a plan that cannot decide.

Clean means: no divergence, no error, a candidate plainly faster than tolerated. Real traffic needs more.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from interlock.errors import PolicyError
from interlock.judge.bounds import rejects_share
from interlock.judge.eprocess import Bets, log_mixture, pass_bets, planned_pass_bets
from interlock.judge.grids import DIVERGENCE_QUANTUM, LATENCY_CELLS
from interlock.judge.policy import OTHER_SEGMENT, SEGMENT_PREFIX, JudgePolicy, LatencyTolerance
from interlock.judge.quantiles import not_slower_test

SLO_QUANTILE = 0.99
_LONGEST_STRETCH = 1000.0  # a canary of a day that would take three years is not a matter of patience

# Without a share of its own, a plan is asked at the kindest of these: 1 % to 50 % of live requests on the candidate.
_SHARES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)


def pairs_needed(policy: JudgePolicy, candidate_share: float | None = None) -> int:
    """The smallest number of clean pairs at which `judge_final` can PASS: the largest need of any signal. Arguments as for `needs`."""
    return max(count for name, count in needs(policy, candidate_share) if name not in _shown_only(policy))


@lru_cache(maxsize=64)
def needs(policy: JudgePolicy, candidate_share: float | None = None) -> tuple[tuple[str, int], ...]:
    """
    Clean pairs each signal needs, by name, in one weight step. Several steps need more: each has histograms of its own.

    A segment's need is in pairs of the segment.

    Args:
        candidate_share: share c of live requests on the candidate, 0 < c < 1. It splits the latencies: live ones are c n of the
            candidate against (1-c) n of the incumbent, mirrored ones the reverse. None: the kindest share of 1 % to 50 %.
    Raises:
        PolicyError: the share lies outside 0 to 1.
    """
    if candidate_share is not None and not 0 < candidate_share < 1:
        raise PolicyError(f"candidate share is {candidate_share:g}, needs to lie inside 0 to 1 for a comparison within each role")
    shares = _SHARES if candidate_share is None else (candidate_share,)
    latency = [(name, min(_latency(policy, quantile, slower, share) for share in shares)) for name, quantile, slower in _quantiles(policy)]
    return (*_needs_of_means(policy), *latency, *_needs_of_ceilings(policy))


@dataclass(frozen=True, slots=True)
class SignalNeed:
    """What one signal gets and needs: clean pairs until the declared look. `needed_count` None: no length of the plan brings a proof."""

    name: str
    expected_count: int
    needed_count: int | None

    @property
    def is_enough(self) -> bool:
        """The plan brings as many as it takes."""
        return self.needed_count is not None and self.expected_count >= self.needed_count


@dataclass(frozen=True, slots=True)
class Feasibility:
    """
    Whether a plan can decide, signal by signal. planned_seconds: from the start of the shadow to the declared look.

    needed_seconds: how long that must last at this traffic, every step as much longer as the others; None: no length helps.
    """

    signals: tuple[SignalNeed, ...]
    requests_per_second: float
    planned_seconds: float
    needed_seconds: float | None


def judge_plan(policy: JudgePolicy, *, requests_per_second: float) -> Feasibility:
    """
    Whether this traffic can decide in the planned window: each signal's need of clean pairs against what the plan brings.

    The last step of the policy is the bake, which follows the declared look. How the traffic divides into segments is not known
    beforehand, so segments are asked of all traffic: a plan that fails here fails for certain, one that holds may still come short.
    """
    steps = [(step.share, step.seconds) for step in policy.steps[:-1]]
    planned_seconds = math.fsum(seconds for _, seconds in steps)

    def bring(stretch: float) -> list[tuple[float, int]]:
        return [(share, math.floor(stretch * requests_per_second * seconds)) for share, seconds in steps]

    total = sum(count for _, count in bring(1.0))
    counted = (*_needs_of_means(policy), *_needs_of_ceilings(policy))
    means = [SignalNeed(name, total, needed) for name, needed in counted if name not in _shown_only(policy)]
    signals = (*means, *(_need_of_latency(policy, *quantile, bring) for quantile in _quantiles(policy)))
    stretches = [need.needed_count / max(need.expected_count, 1e-9) for need in signals if need.needed_count is not None]
    is_possible = total > 0 and len(stretches) == len(signals)
    return Feasibility(signals, requests_per_second, planned_seconds, planned_seconds * max(1.0, *stretches) if is_possible else None)


def _need_of_latency(
    policy: JudgePolicy, name: str, quantile: float, tolerance: LatencyTolerance, bring: Callable[[float], Sequence[tuple[float, int]]]
) -> SignalNeed:
    """Only steps in which both arms answer users and copies alike compare latencies, each with histograms of its own."""

    def compared(stretch: float) -> list[tuple[float, int]]:
        return [(share, count) for share, count in bring(stretch) if 0 < share < 1]

    expected = sum(count for _, count in compared(1.0))
    stretch = _smallest_stretch(lambda factor: _proves_latency(policy, quantile, tolerance, compared(factor)))
    if stretch is None:
        return SignalNeed(name, expected, None)
    return SignalNeed(name, expected, sum(count for _, count in compared(stretch)))


def _shown_only(policy: JudgePolicy) -> set[str]:
    return {SEGMENT_PREFIX + OTHER_SEGMENT, *(segment.name for segment in policy.segments if segment.weight == 0)}


def _needs_of_means(policy: JudgePolicy) -> tuple[tuple[str, int], ...]:
    bias = (("bias", _bias(policy.bias_tolerance, policy.beta)),) if policy.bias_tolerance is not None else ()
    scores = tuple((segment.name, _score(segment.tolerance, policy.beta)) for segment in policy.segments)
    other = ((SEGMENT_PREFIX + OTHER_SEGMENT, _score(policy.divergence_tolerance, policy.beta)),) if policy.segments else ()
    return (("divergence", _divergence(policy)), *bias, *scores, *other, ("errors", _errors(policy)))


def _needs_of_ceilings(policy: JudgePolicy) -> tuple[tuple[str, int], ...]:
    return (
        ("slo_error_share", max(policy.slo_min_sample_count, _share(policy.slo_max_error_share, policy.beta))),
        ("slo_p99", max(policy.slo_min_sample_count, _share(1 - SLO_QUANTILE, policy.beta))),
    )


def _quantiles(policy: JudgePolicy) -> tuple[tuple[str, float, LatencyTolerance], ...]:
    return (("p50", 0.50, policy.p50_slower), ("p99", 0.99, policy.p99_slower))


def _divergence(policy: JudgePolicy) -> int:
    exact = policy.divergence_is_binary
    return _share(policy.divergence_tolerance, policy.beta) if exact else _score(policy.divergence_tolerance, policy.beta)


def _score(tolerance: float, beta: float) -> int:
    bets = pass_bets(tolerance - DIVERGENCE_QUANTUM)
    return _smallest_of_mixture(bets, 0.0, beta)


def _bias(tolerance: float, beta: float) -> int:
    """Answers that never differ lie in the middle of the scale, on both sides alike."""
    return _smallest_of_mixture(pass_bets(0.5 + tolerance / 2 - DIVERGENCE_QUANTUM), 0.5, beta)


def _smallest_of_mixture(bets: Bets, datum: float, beta: float) -> int:
    step = bets.log_factors(np.array(datum))
    return _smallest(lambda n: float(log_mixture(n * step, bets)) >= math.log(1 / beta))


def _errors(policy: JudgePolicy) -> int:
    def proves(count: int) -> bool:
        bets = planned_pass_bets(policy.error_tolerance, high=1.0, sample_count=count, beta=policy.beta)
        return float(log_mixture(count * bets.log_factors(np.array(0.0)), bets)) >= math.log(1 / policy.beta)

    return _smallest(proves)


def _latency(policy: JudgePolicy, quantile: float, tolerance: LatencyTolerance, share: float) -> int:
    return _smallest(lambda count: _proves_latency(policy, quantile, tolerance, [(share, count)]))


def _proves_latency(policy: JudgePolicy, quantile: float, tolerance: LatencyTolerance, steps: Sequence[tuple[float, int]]) -> bool:
    """Whether a candidate as much faster as the grid allows is proved so by steps of (share, pairs): the product over the steps."""
    by_role = np.zeros(2)
    for share, count in steps:
        live = round(share * count)
        by_role += [_log_e_apart(live, count - live, quantile, tolerance), _log_e_apart(count - live, live, quantile, tolerance)]
    return float(np.logaddexp.reduce(by_role)) - math.log(2) >= math.log(1 / policy.beta)


@lru_cache(maxsize=4096)
def _log_e_apart(candidate_count: int, incumbent_count: int, quantile: float, tolerance: LatencyTolerance) -> float:
    if not candidate_count or not incumbent_count:
        return 0.0
    candidate, incumbent = np.zeros(LATENCY_CELLS), np.zeros(LATENCY_CELLS)
    candidate[0], incumbent[-1] = candidate_count, incumbent_count  # as far apart as the grid: any tolerance separates them
    return not_slower_test(candidate, incumbent, quantile=quantile, tolerance=tolerance).log_e()


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


def _smallest_stretch(is_enough: Callable[[float], bool]) -> float | None:
    """Smallest factor at which the plan is enough, to within 5 %, from a thousandth to a thousand times the plan; None beyond."""
    if is_enough(1.0):
        low, high = 1 / _LONGEST_STRETCH, 1.0
    elif is_enough(_LONGEST_STRETCH):
        low, high = 1.0, _LONGEST_STRETCH
    else:
        return None
    while high / low > 1.05:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
