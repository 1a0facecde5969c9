"""
The paired signals and the absolute ceilings, each a reading from the count table. Latency quantiles are in `latency`.

Errors are paired: with two-way mirroring both arms score every input, so phi = Y_candidate - r Y_incumbent in [-r, 1] is seen whole
for each request. Given the past its mean is p_candidate - r p_incumbent for that very input, whatever the traffic mix and
whichever arm was live; so {phi} is a bounded process with running mean <= delta under the null, and the same e-process applies. No
assignment probability enters, hence a broken or ramping split cannot bias it. It is stronger than the inverse-probability form
(`unpaired`), whose datum reaches 1/c: at c = 10 % that has about ten times the variance, and shared outages cancel only on average.
"""

import math
from dataclasses import dataclass

import numpy as np

from interlock.judge.bounds import mean_bounds, more_needed, rejects_share, share_bounds
from interlock.judge.counts import CountGrid
from interlock.judge.eprocess import (
    Bets,
    e_value,
    fail_bets,
    log_mixture,
    log_mixture_restarting,
    log_products_of_counts,
    pass_bets,
    planned_pass_bets,
)
from interlock.judge.feasibility import SLO_QUANTILE, needs
from interlock.judge.grids import DIVERGENCE_NODES, DIVERGENCE_QUANTUM, LATENCY_LOWER_MS, LATENCY_UPPER_MS, UNITS_PER_PAIR, Floats
from interlock.judge.policy import SLO_WEIGHT, JudgePolicy, SignalPolicy
from interlock.judge.readings import SignalReading
from interlock.judge.tally import COMPARED, DIFFERING, Tally
from interlock.model.journal import Arm

SLO_SIGNALS = ("slo_error_share", "slo_p99")
RECENT_WINDOW_COUNT = 3
RECENT_MIN_COUNT = 20  # fewer pairs make a mean that jumps about
SLO_SIGNAL_WEIGHT = SLO_WEIGHT / len(SLO_SIGNALS)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one signal's counts say: mean and bounds of the datum, log e-value of a halt, and how much the proof still needs."""

    mean: float | None
    count: int
    log_e: float
    bounds: tuple[float, float] | None
    more: int | None
    recent: float | None = None


def read_divergence(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Mean divergence of the pairs against its tolerance, watched since the start and since every window."""
    signal, count = policy.divergence, tally.counters[COMPARED]
    weights = tally.divergence.totals() / UNITS_PER_PAIR
    log_e = _log_e_over_windows(tally.divergence, DIVERGENCE_NODES, fail_bets(signal.tolerance), policy, scale=1 / UNITS_PER_PAIR)
    mean = float(weights @ DIVERGENCE_NODES) / count if count else None
    if policy.divergence_is_binary:
        # Testing 1[D > 0] >= D keeps the binomial valid even if a score slips in.
        differing = tally.counters[DIFFERING]
        bounds = share_bounds(differing, count, beta=policy.beta)

        def proves(growth: float) -> bool:
            hits, total = math.ceil(differing * growth), math.floor(count * growth)
            return rejects_share(hits, total, ceiling=signal.tolerance, beta=policy.beta)

    else:
        bounds = mean_bounds(mean or 0.0, count, beta=policy.beta)
        bets = pass_bets(signal.tolerance - DIVERGENCE_QUANTUM)  # the table holds D rounded down; this takes it back
        log_products = weights @ bets.log_factors(DIVERGENCE_NODES)

        def proves(growth: float) -> bool:
            return float(log_mixture(growth * log_products, bets)) >= math.log(1 / policy.beta)

    more = more_needed(count, proves) if count else _clean_need(policy, signal.name)
    return _reading(
        signal, policy, _Evidence(mean, count, log_e, bounds, more, _recent_mean(tally.divergence, DIVERGENCE_NODES, units=UNITS_PER_PAIR))
    )


def read_errors(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Excess error share of the candidate over `error_incumbent_ratio` times the incumbent's, on the same inputs."""
    signal, ratio = policy.errors, policy.error_incumbent_ratio
    excess = np.array([0.0, -ratio, 1.0, 1.0 - ratio])  # by candidate_failed * 2 + incumbent_failed
    counts = tally.errors.totals().astype(np.float64)
    count = int(counts.sum())
    log_e = _log_e_over_windows(tally.errors, excess, fail_bets(signal.tolerance, low=-ratio), policy)
    mean = float(counts @ excess) / count if count else None

    def proves(growth: float) -> bool:
        bets = planned_pass_bets(signal.tolerance, high=1.0, sample_count=growth * count, beta=policy.beta)
        return float(log_mixture(growth * (counts @ bets.log_factors(excess)), bets)) >= math.log(1 / policy.beta)

    more = more_needed(count, proves) if count else _clean_need(policy, signal.name)
    bounds = _excess_bounds(counts, ratio, beta=policy.beta)
    return _reading(signal, policy, _Evidence(mean, count, log_e, bounds, more, _recent_mean(tally.errors, excess)))


def read_slo_error_share(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Error share of the candidate alone against its hard ceiling."""
    counts = tally.errors.totals()
    hits, count = int(counts[2] + counts[3]), int(counts.sum())
    log_e = _log_e_since_start(hits, count, policy.slo_max_error_share)
    return _read_ceiling(SLO_SIGNALS[0], policy, hits=(hits, hits), count=count, ceiling=policy.slo_max_error_share, log_e=log_e)


def read_slo_p99(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Share of the candidate's answers that are slower than the hard p99 ceiling, against 1 %. No answer is slower than any ceiling."""
    counts = sum((cells for (_, arm, _), cells in tally.latency.items() if arm is Arm.CANDIDATE), np.zeros(LATENCY_LOWER_MS.size))
    surely = int(counts[policy.slo_max_p99_ms < LATENCY_LOWER_MS].sum())
    perhaps = int(counts[policy.slo_max_p99_ms < LATENCY_UPPER_MS].sum())
    count = int(counts.sum())
    log_e = _log_e_since_start(surely, count, 1 - SLO_QUANTILE)
    return _read_ceiling(SLO_SIGNALS[1], policy, hits=(surely, perhaps), count=count, ceiling=1 - SLO_QUANTILE, log_e=log_e)


def _read_ceiling(name: str, policy: JudgePolicy, *, hits: tuple[int, int], count: int, ceiling: float, log_e: float) -> SignalReading:
    """
    A share under a hard ceiling: `hits` as surely and as perhaps counted (they differ by one latency bin).

    Halting takes the e-process, not the point value nor a binomial bound: the ceiling is looked at once a second, and an exact bound
    read 600 times fires far more often than alpha. Below `slo_min_sample_count` it may not contribute at all.
    """
    low_hits, high_hits = hits
    enough = count >= policy.slo_min_sample_count

    def proves(growth: float) -> bool:
        total = math.floor(count * growth)
        return total >= policy.slo_min_sample_count and rejects_share(
            math.ceil(high_hits * growth), total, ceiling=ceiling, beta=policy.beta
        )

    signal = SignalPolicy(name, SLO_SIGNAL_WEIGHT / (1 - SLO_WEIGHT), ceiling)
    low, high = share_bounds(low_hits, count, beta=policy.beta), share_bounds(high_hits, count, beta=policy.beta)
    evidence = _Evidence(
        mean=high_hits / count if count else None,
        count=count,
        log_e=log_e if enough else -math.inf,
        bounds=(low[0], high[1]) if low and high else None,
        more=more_needed(count, proves) if count else _clean_need(policy, name),
    )
    return _reading(signal, policy, evidence)


def _log_e_since_start(hits: int, count: int, ceiling: float) -> float:
    """No restarts: a ceiling is for the whole canary, and a short outage that both arms share is no reason to roll back."""
    bets = fail_bets(ceiling)
    return float(log_mixture(log_products_of_counts(np.array(float(hits)), count, bets), bets))


def _log_e_over_windows(grid: CountGrid, points: Floats, bets: Bets, policy: JudgePolicy, scale: float = 1.0) -> float:
    cells = np.flatnonzero(grid.totals()).astype(np.int64)
    windows, counts = grid.by_window(cells)
    growth = scale * (counts @ bets.log_factors(points[cells]))
    return log_mixture_restarting(growth, windows, bets=bets, planned_window_count=policy.planned_window_count)


def _recent_mean(grid: CountGrid, points: Floats, *, units: int = 1) -> float | None:
    """The largest mean of the datum over the last one, two or three windows: what a person should see when a fault began late."""
    cells = np.flatnonzero(grid.totals()).astype(np.int64)
    windows, counts = grid.by_window(cells)
    if not windows.size:
        return None
    latest = [counts[windows > windows.max() - width].sum(axis=0) for width in range(1, RECENT_WINDOW_COUNT + 1)]
    enough = [recent for recent in latest if recent.sum() >= RECENT_MIN_COUNT * units]
    return max((float(recent @ points[cells] / recent.sum()) for recent in enough), default=None)


def _excess_bounds(counts: Floats, ratio: float, *, beta: float) -> tuple[float, float] | None:
    """Bounds of p_candidate - ratio p_incumbent from exact bounds of both, each at half of beta."""
    count = int(counts.sum())
    candidate = share_bounds(int(counts[2] + counts[3]), count, beta=beta / 2)
    incumbent = share_bounds(int(counts[1] + counts[3]), count, beta=beta / 2)
    if candidate is None or incumbent is None:
        return None
    return candidate[0] - ratio * incumbent[1], candidate[1] - ratio * incumbent[0]


def _clean_need(policy: JudgePolicy, name: str) -> int:
    return dict(needs(policy))[name]


def _reading(signal: SignalPolicy, policy: JudgePolicy, evidence: _Evidence) -> SignalReading:
    return SignalReading(
        name=signal.name,
        value=evidence.mean,
        limit=signal.tolerance,
        unit="share",
        sample_count=evidence.count,
        e_value=e_value(evidence.log_e),
        halting_e_value=1 / (policy.alpha * signal.sum_weight),
        low=evidence.bounds[0] if evidence.bounds else None,
        high=evidence.bounds[1] if evidence.bounds else None,
        is_usable=True,
        is_proved=evidence.count > 0 and evidence.more == 0,
        more_requests_needed=evidence.more,
        reason=describe(evidence.count, evidence.more),
        recent_value=evidence.recent,
    )


def describe(count: int, more: int | None) -> str:
    """The proof so far, in words: what stands, or how much is missing."""
    if count == 0:
        return f"INSUFFICIENT_EVIDENCE n=0 of {more} needed"
    if more == 0:
        return f"within tolerance, proved by n={count}"
    if more is None:
        return f"INSUFFICIENT_EVIDENCE n={count}, and more of the same would not prove it within tolerance"
    return f"INSUFFICIENT_EVIDENCE n={count} of about {count + more} needed"
