"""
The signals that compare predictions and errors, each a reading from the count table. Latency quantiles are in `latency`.

Errors are paired: with two-way mirroring both arms score every input, so phi = Y_candidate - r Y_incumbent in [-r, 1] is seen whole
for each request. Given the past its mean is p_candidate - r p_incumbent for that very input, whatever the traffic mix and
whichever arm was live; so {phi} is a bounded process with running mean <= delta under the null, and the same e-process applies. No
assignment probability enters, hence a broken or ramping split cannot bias it. It is stronger than the inverse-probability form
(`unpaired`), whose datum reaches 1/c: at c = 10 % that has about ten times the variance, and shared outages cancel only on average.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from interlock.judge.bounds import mean_bounds, more_needed, rejects_share, share_bounds
from interlock.judge.counts import CountGrid
from interlock.judge.eprocess import fail_bets, log_mixture, log_sum, pass_bets, planned_pass_bets
from interlock.judge.evidence import Evidence, clean_need, read_evidence
from interlock.judge.grids import DIVERGENCE_NODES, DIVERGENCE_QUANTUM, UNITS_PER_PAIR, Floats
from interlock.judge.policy import OTHER_SEGMENT, SEGMENT_PREFIX, JudgePolicy, SignalPolicy
from interlock.judge.readings import SignalReading
from interlock.judge.restarts import log_e_over_windows, recent_mean
from interlock.judge.tally import COMPARED, DIFFERING, Tally


def read_divergence(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Mean divergence of the pairs against its tolerance, watched since the start and since every window."""
    if policy.divergence_is_binary:
        proof = _proof_of_share(tally.counters[DIFFERING], tally.counters[COMPARED], policy.divergence, policy)
    else:
        proof = _proof_of_mean(tally.divergence, policy.divergence, policy)
    return _read_differences(tally.divergence, policy.divergence, policy, proof, planned_window_count=policy.planned_window_count)


def read_segment(tally: Tally, policy: JudgePolicy, segment: SignalPolicy) -> SignalReading:
    """Mean divergence of one segment's pairs. Always proved by the e-process: a segment's count is not known beforehand."""
    grid = tally.segments.get(segment.name.removeprefix(SEGMENT_PREFIX)) or CountGrid(DIVERGENCE_NODES.size)
    planned_epoch_count = math.ceil(policy.planned_window_count / tally.epoch_windows)
    proof = _proof_of_mean(grid, segment, policy)
    return _read_differences(grid, segment, policy, proof, planned_window_count=planned_epoch_count)


def other_segment(policy: JudgePolicy) -> tuple[SignalPolicy, ...]:
    """The pairs of no named segment, to be shown next to the named ones; nothing when none is named."""
    return (SignalPolicy(SEGMENT_PREFIX + OTHER_SEGMENT, 0.0, policy.divergence_tolerance),) if policy.segments else ()


@dataclass(frozen=True, slots=True)
class _Proof:
    """Whether `growth` times the counts so far prove the signal within tolerance, and the bounds of its value."""

    proves: Callable[[float], bool]
    bounds: tuple[float, float] | None


def _proof_of_share(hits: int, count: int, signal: SignalPolicy, policy: JudgePolicy) -> _Proof:
    """By the exact binomial. Testing 1[D > 0] >= D keeps it valid even if a score slips in."""

    def proves(growth: float) -> bool:
        return rejects_share(math.ceil(hits * growth), math.floor(count * growth), ceiling=signal.tolerance, beta=policy.beta)

    return _Proof(proves, share_bounds(hits, count, beta=policy.beta))


def _proof_of_mean(grid: CountGrid, signal: SignalPolicy, policy: JudgePolicy) -> _Proof:
    """By the e-process."""
    weights = grid.totals() / UNITS_PER_PAIR
    count = round(float(weights.sum()))
    bets = pass_bets(signal.tolerance - DIVERGENCE_QUANTUM)  # the table holds D rounded down; this takes it back
    log_products = weights @ bets.log_factors(DIVERGENCE_NODES)

    def proves(growth: float) -> bool:
        return float(log_mixture(growth * log_products, bets)) >= math.log(1 / policy.beta)

    return _Proof(proves, mean_bounds(float(weights @ DIVERGENCE_NODES) / max(count, 1), count, beta=policy.beta))


def _read_differences(
    grid: CountGrid, signal: SignalPolicy, policy: JudgePolicy, proof: _Proof, *, planned_window_count: int
) -> SignalReading:
    weights = grid.totals() / UNITS_PER_PAIR
    count = round(float(weights.sum()))
    log_e = log_e_over_windows(
        grid,
        DIVERGENCE_NODES,
        fail_bets(signal.tolerance),
        planned_window_count=planned_window_count,
        scale=1 / UNITS_PER_PAIR,
    )
    return read_evidence(
        signal,
        policy,
        Evidence(
            mean=float(weights @ DIVERGENCE_NODES) / count if count else None,
            count=count,
            log_e=log_e,
            bounds=proof.bounds,
            more=more_needed(count, proof.proves) if count else clean_need(policy, signal.name),
            recent=recent_mean(grid, DIVERGENCE_NODES, units=UNITS_PER_PAIR),
        ),
    )


def read_bias(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """
    Absolute mean of the signed difference against its tolerance, tested both ways: half the capital on "larger", half on "smaller".

    A small shift in one direction is no divergence of any single answer, and moves every decision the answers feed.
    """
    signal = policy.bias
    assert signal is not None, "the reader is chosen for policies that bound the bias"
    edge = 0.5 + signal.tolerance / 2  # the grid holds (signed + 1) / 2
    weights = tally.bias.totals() / UNITS_PER_PAIR
    count = round(float(weights.sum()))
    sides = (DIVERGENCE_NODES, 1 - DIVERGENCE_NODES)
    # The table holds the value rounded down, which is rounded up on the other side: the quantum takes it back on both.
    fail, clear = fail_bets(edge + DIVERGENCE_QUANTUM), pass_bets(edge - DIVERGENCE_QUANTUM)
    log_e = [
        log_e_over_windows(tally.bias, points, fail, planned_window_count=policy.planned_window_count, scale=1 / UNITS_PER_PAIR)
        for points in sides
    ]
    log_products = [weights @ clear.log_factors(points) for points in sides]

    def proves(growth: float) -> bool:
        return all(float(log_mixture(growth * products, clear)) >= math.log(1 / policy.beta) for products in log_products)

    mean = 2 * float(weights @ DIVERGENCE_NODES) / count - 1 if count else None
    bounds = mean_bounds(mean or 0.0, count, beta=policy.beta / 2, low=-1.0)
    more = more_needed(count, proves) if count else clean_need(policy, signal.name)
    evidence = Evidence(mean, count, float(log_sum(np.array(log_e))) - math.log(2), bounds, more)
    return read_evidence(signal, policy, evidence)


def read_errors(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Excess error share of the candidate over `error_incumbent_ratio` times the incumbent's, on the same inputs."""
    signal, ratio = policy.errors, policy.error_incumbent_ratio
    excess = np.array([0.0, -ratio, 1.0, 1.0 - ratio])  # by candidate_failed * 2 + incumbent_failed
    counts = tally.errors.totals().astype(np.float64)
    count = int(counts.sum())
    log_e = log_e_over_windows(
        tally.errors, excess, fail_bets(signal.tolerance, low=-ratio), planned_window_count=policy.planned_window_count
    )
    mean = float(counts @ excess) / count if count else None

    def proves(growth: float) -> bool:
        bets = planned_pass_bets(signal.tolerance, high=1.0, sample_count=growth * count, beta=policy.beta)
        return float(log_mixture(growth * (counts @ bets.log_factors(excess)), bets)) >= math.log(1 / policy.beta)

    more = more_needed(count, proves) if count else clean_need(policy, signal.name)
    bounds = _excess_bounds(counts, ratio, beta=policy.beta)
    return read_evidence(signal, policy, Evidence(mean, count, log_e, bounds, more, recent_mean(tally.errors, excess)))


def _excess_bounds(counts: Floats, ratio: float, *, beta: float) -> tuple[float, float] | None:
    """Bounds of p_candidate - ratio p_incumbent from exact bounds of both, each at half of beta."""
    count = int(counts.sum())
    candidate = share_bounds(int(counts[2] + counts[3]), count, beta=beta / 2)
    incumbent = share_bounds(int(counts[1] + counts[3]), count, beta=beta / 2)
    if candidate is None or incumbent is None:
        return None
    return candidate[0] - ratio * incumbent[1], candidate[1] - ratio * incumbent[0]
