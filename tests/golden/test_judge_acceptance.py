"""
The acceptance tables of the judge's design, reduced: false halts below alpha, delays within 20 % of the table.

Seeds and laws are the table's own; rows that must not halt use enough repetitions for a one-sided 95 % bound below alpha = .05.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest

from interlock.judge.bounds import share_bounds
from interlock.judge.eprocess import SINCE_START_WEIGHT, fail_bets, log_mixture, restart_weight_begun
from interlock.judge.evaluate import judge_tick
from interlock.judge.feasibility import needs
from interlock.judge.grids import DIVERGENCE_NODES, LATENCY_CELLS, UNITS_PER_PAIR, latency_cells, share_units
from interlock.judge.pairs import Fate, PairResult
from interlock.judge.policy import LatencyTolerance
from interlock.judge.quantiles import slower_test
from interlock.judge.readings import JudgeOutcome
from interlock.judge.tally import Tally
from interlock.judge.unpaired import UnpairedPolicy, log_e_unpaired_errors
from interlock.model.journal import Arm
from tests import judging

ALPHA = 0.05
LINE = math.log(1 / ALPHA)
POLICY = dataclasses.replace(judging.POLICY, alpha=ALPHA, slo_max_p99_ms=1500.0)


def assert_rarely_halts(halted: np.ndarray) -> None:
    bounds = share_bounds(int(halted.sum()), halted.size, beta=0.05)
    assert bounds is not None
    assert bounds[1] <= ALPHA, f"{halted.mean():.1%} of {halted.size} halted, upper bound {bounds[1]:.1%}"


def first_crossings(data: np.ndarray, *, pairs_per_window: int, restarting: bool) -> np.ndarray:
    """
    The first pair at which the divergence e-process of each row (repetitions x pairs) reaches the line, 0 = never.

    The recursion over pairs; `test_the_restarting_mixture_equals_its_definition` ties the judge's own form to the same definition.
    """
    bets, planned = fail_bets(0.02), data.shape[1] // pairs_per_window
    weights, line = np.exp(bets.log_weights), 1 / ALPHA
    start, restarts, begun = np.ones((data.shape[0], weights.size)), np.zeros((data.shape[0], weights.size)), 0.0
    crossed = np.zeros(data.shape[0], dtype=int)
    for i in range(data.shape[1]):
        if restarting and i % pairs_per_window == 0:
            now = float(restart_weight_begun(np.array(i / pairs_per_window), planned))
            restarts, begun = restarts + (now - begun), now
        lower, above = share_units(data[:, i])
        high = above[:, None] / UNITS_PER_PAIR
        upper_nodes = DIVERGENCE_NODES[np.minimum(lower + 1, DIVERGENCE_NODES.size - 1)]
        factor = np.exp((1 - high) * bets.log_factors(DIVERGENCE_NODES[lower]) + high * bets.log_factors(upper_nodes))
        start, restarts = np.minimum(start * factor, 1e200), np.minimum(restarts * factor, 1e200)
        total = (
            SINCE_START_WEIGHT * (start @ weights) + (1 - SINCE_START_WEIGHT) * (restarts @ weights + 1 - begun)
            if restarting
            else start @ weights
        )
        crossed[(crossed == 0) & (total >= line)] = i + 1
        if crossed.all():
            break
    return crossed


@pytest.mark.parametrize(
    ("tolerance", "pairs"), [(0.05, 59), (0.02, 149), (0.01, 299), (0.005, 598)], ids=lambda x: f"{x:g}" if x < 1 else f"{x} pairs"
)
def test_clean_pairs_needed_for_a_divergence_pass(tolerance: float, pairs: int) -> None:
    assert dict(needs(dataclasses.replace(POLICY, divergence_tolerance=tolerance)))["divergence"] == pairs


def test_clean_needs_of_the_other_signals_are_as_published() -> None:
    assert dict(needs(POLICY)) == {"divergence": 149, "errors": 715, "p50": 21, "p99": 555, "slo_error_share": 59, "slo_p99": 299}


@pytest.mark.parametrize("restarting", [False, True], ids=["since start", "with restarts"])
def test_t1_labels_at_tolerance_rarely_halt(restarting: bool) -> None:
    data = np.random.default_rng([1, 1]).random((800, 6000)) < 0.02
    assert_rarely_halts(first_crossings(data.astype(float), pairs_per_window=100, restarting=restarting) > 0)


def test_t1_drift_below_tolerance_on_average_rarely_halts_since_start_and_is_seen_by_restarts() -> None:
    share = 0.02 * (1 - 0.8 * np.sin(2 * np.pi * np.arange(6000) / 6000))
    data = (np.random.default_rng([1, 2]).random((400, 6000)) < share).astype(float)
    assert_rarely_halts(first_crossings(data, pairs_per_window=100, restarting=False) > 0)
    assert np.mean(first_crossings(data, pairs_per_window=100, restarting=True) > 0) == pytest.approx(0.66, abs=0.08)


@pytest.mark.parametrize(
    ("k", "share", "delay", "with_restarts"),
    [
        pytest.param(3, 0.03, 1597, 1930, id="half again the tolerance"),
        pytest.param(4, 0.04, 490, 615, id="twice the tolerance"),
        pytest.param(5, 0.06, 147, 190, id="three times the tolerance"),
        pytest.param(6, 0.10, 42, 70, id="five times the tolerance"),
        pytest.param(7, 0.30, 7, 10, id="fifteen times the tolerance"),
    ],
)
def test_t1_label_delays_are_those_of_the_table(k: int, share: float, delay: int, with_restarts: int) -> None:
    data = (np.random.default_rng([1, k]).random((300, 6000)) < share).astype(float)
    for restarting, expected in ((False, delay), (True, with_restarts)):
        crossed = first_crossings(data, pairs_per_window=100, restarting=restarting)
        assert np.mean(crossed > 0) > 0.95
        assert np.median(crossed[crossed > 0]) <= 1.2 * expected


def test_t1_late_onset_is_found_by_restarts_long_before_the_process_since_start() -> None:
    share = np.where(np.arange(6000) < 3000, 0.005, 0.10)
    data = (np.random.default_rng([1, 9]).random((300, 6000)) < share).astype(float)
    since_start = np.median(first_crossings(data, pairs_per_window=100, restarting=False)) - 3000
    restarting = np.median(first_crossings(data, pairs_per_window=100, restarting=True)) - 3000
    assert since_start == pytest.approx(926, rel=0.2)
    assert 0 < restarting <= 1.2 * 120


def test_t1_delays_fall_as_the_effect_grows() -> None:
    rng = np.random.default_rng(32)
    shares = (0.03, 0.04, 0.06, 0.10, 0.20, 0.50, 1.0)
    crossed = [first_crossings((rng.random((150, 4000)) < p).astype(float), pairs_per_window=100, restarting=True) for p in shares]
    found = [float(np.mean(c > 0)) for c in crossed]
    delays = [float(np.median(c[c > 0])) for c in crossed]
    assert found == sorted(found)
    assert delays == sorted(delays, reverse=True)


def scores(k: int, mean: float, *, repetitions: int, pairs: int) -> np.ndarray:
    return np.random.default_rng([2, k]).beta(0.5, 0.5 / mean - 0.5, (repetitions, pairs))


def test_t2_scores_at_tolerance_rarely_halt() -> None:
    data = scores(2, 0.02, repetitions=400, pairs=3000)
    assert_rarely_halts(first_crossings(data, pairs_per_window=100, restarting=False) > 0)


@pytest.mark.parametrize(("k", "mean", "delay"), [(4, 0.025, 280), (5, 0.03, 92), (6, 0.05, 20)])
def test_t2_score_delays_are_those_of_the_table(k: int, mean: float, delay: int) -> None:
    crossed = first_crossings(scores(k, mean, repetitions=300, pairs=3000), pairs_per_window=100, restarting=False)
    assert crossed.all()
    assert np.median(crossed) == pytest.approx(delay, rel=0.2)


ARMS = UnpairedPolicy(tolerance=0.005, incumbent_ratio=1.0, least_share=0.1, most_share=0.1, planned_window_count=60)


def unpaired_crossings(k: int, candidate_share: float, *, repetitions: int, requests: int = 36_000) -> np.ndarray:
    """First multiple of 100 requests at which the unpaired errors since the start reach the line, 0 = never."""
    rng, bets = np.random.default_rng([3, k]), fail_bets(0.005, low=-1 / 0.9, high=10.0)
    crossed = np.zeros(repetitions, dtype=int)
    for repetition in range(repetitions):
        on_candidate = rng.random(requests, dtype=np.float32) < 0.10
        failed = rng.random(requests, dtype=np.float32) < np.where(on_candidate, candidate_share, 0.005)
        counts = np.stack([failed & on_candidate, failed & ~on_candidate, ~failed], axis=1).reshape(-1, 100, 3).sum(axis=1)
        factors = bets.log_factors(np.array([10.0, -1 / 0.9, 0.0]))
        reached = log_mixture(counts.cumsum(axis=0) @ factors, bets) >= LINE
        crossed[repetition] = 100 * (np.argmax(reached) + 1) if reached.any() else 0
    return crossed


def test_t3_unpaired_errors_at_tolerance_rarely_halt() -> None:
    assert_rarely_halts(unpaired_crossings(1, 0.010, repetitions=200) > 0)


@pytest.mark.parametrize(("k", "share", "delay"), [(4, 0.02, 8960), (5, 0.03, 3290), (6, 0.05, 950), (7, 0.20, 160)])
def test_t3_unpaired_error_delays_are_those_of_the_table(k: int, share: float, delay: int) -> None:
    crossed = unpaired_crossings(k, share, repetitions=150)
    assert np.mean(crossed > 0) > 0.95
    assert np.median(crossed[crossed > 0]) <= 1.2 * delay + 100, "the looks are 100 requests apart"


def test_t3_paired_errors_are_found_several_times_sooner_than_unpaired_ones() -> None:
    rng, bets = np.random.default_rng([3, 5]), fail_bets(0.005, low=-1.0)
    excess = (rng.random((150, 8000)) < 0.03).astype(float) - (rng.random((150, 8000)) < 0.005)
    counts = np.stack([(excess == value).reshape(150, -1, 20).sum(axis=2).cumsum(axis=1) for value in (1.0, -1.0, 0.0)], axis=2)
    reached = log_mixture(counts @ bets.log_factors(np.array([1.0, -1.0, 0.0])), bets) >= LINE
    assert reached[:, -1].mean() > 0.95
    assert 20 * (np.median(reached.argmax(axis=1)) + 1) < 3290 / 5


def test_t3_the_judges_unpaired_form_with_restarts_finds_a_late_outage_of_the_candidate() -> None:
    windows = np.arange(40.0)
    counts = np.tile([0.0, 3.0, 597.0], (40, 1))
    quiet = log_e_unpaired_errors(windows, np.full(40, 0.1), counts, policy=ARMS)
    counts[36:] = [12.0, 3.0, 585.0]
    assert quiet < 0 < LINE < log_e_unpaired_errors(windows, np.full(40, 0.1), counts, policy=ARMS)


def latencies(k: int, repetition: int, requests: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each request went to the candidate, and its latency in ms, by the table's law."""
    rng = np.random.default_rng([4, k, repetition])
    on_candidate = rng.random(requests) < 0.10
    latency = 40 * np.exp(0.5 * rng.standard_normal(requests))
    tail = rng.random(requests) < 0.03
    latency[tail] *= 1 + rng.pareto(1.5, int(tail.sum()))
    if k == 7:
        latency[on_candidate & (rng.random(requests) < 0.02)] += 500
    if k == 9:
        latency *= 1 + 0.8 * np.sin(2 * np.pi * np.arange(requests) / requests)
    return on_candidate, latency * np.where(on_candidate, {5: 1.5, 6: 2.0}.get(k, 1.0), 1.0)


def looks(on_candidate: np.ndarray, latency: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Histograms of candidate and incumbent after every 600 requests."""
    cells, arms = latency_cells(latency), (np.zeros(LATENCY_CELLS), np.zeros(LATENCY_CELLS))
    for first in range(0, latency.size, 600):
        chunk, mine = cells[first : first + 600], on_candidate[first : first + 600]
        for histogram, chosen in zip(arms, (mine, ~mine), strict=True):
            histogram += np.bincount(chunk[chosen], minlength=LATENCY_CELLS)
        yield first + 600, *arms


def latency_crossings(k: int, quantile: float, *, repetitions: int, requests: int) -> np.ndarray:
    tolerance = LatencyTolerance(0.10 if quantile == 0.5 else 0.25, 0.0)
    crossed = np.zeros(repetitions, dtype=int)
    for repetition in range(repetitions):
        for requests_seen, candidate, incumbent in looks(*latencies(k, repetition, requests)):
            if slower_test(candidate, incumbent, quantile=quantile, tolerance=tolerance).log_e() >= LINE:
                crossed[repetition] = requests_seen
                break
    return crossed


@pytest.mark.parametrize("k", [pytest.param(0, id="A/A"), pytest.param(9, id="load that drifts for both")])
@pytest.mark.parametrize("quantile", [0.5, 0.99])
def test_t4_equal_latencies_do_not_halt(k: int, quantile: float) -> None:
    assert_rarely_halts(latency_crossings(k, quantile, repetitions=60, requests=18_000) > 0)


@pytest.mark.parametrize(
    ("k", "quantile", "delay"),
    [
        pytest.param(5, 0.50, 1200, id="half again as slow"),
        pytest.param(6, 0.50, 600, id="twice as slow"),
        pytest.param(7, 0.99, 9000, id="2 % of requests half a second slower"),
    ],
)
def test_t4_latency_delays_are_those_of_the_table(k: int, quantile: float, delay: int) -> None:
    crossed = latency_crossings(k, quantile, repetitions=30, requests=30_000)
    assert crossed.all()
    assert np.median(crossed) <= 1.2 * delay


def canary(rng: np.random.Generator, pairs: int) -> list[PairResult]:
    """An A/A canary at 20 % weight with every signal inside its tolerance, two pairs a second."""
    latency = np.sort(40 * np.exp(0.5 * rng.standard_normal((pairs, 2))), axis=0)
    latency = rng.permuted(latency, axis=0)
    live, differs = rng.random(pairs) < 0.2, rng.random(pairs) < 0.02
    failed = rng.random((pairs, 2)) < [0.007, 0.002]
    return [
        PairResult(
            Fate.JUDGED,
            i / 2,
            float(differs[i]),
            bool(failed[i, 0]),
            bool(failed[i, 1]),
            Arm.CANDIDATE if live[i] else Arm.INCUMBENT,
            float(latency[i, 0]),
            float(latency[i, 1]),
        )
        for i in range(pairs)
    ]


def test_t33_the_whole_judge_rarely_halts_a_candidate_at_its_tolerances() -> None:
    rng, halted = np.random.default_rng(33), np.zeros(60, dtype=bool)
    for repetition in range(halted.size):
        tally, pairs = Tally(start_seconds=0.0, window_seconds=5.0), canary(rng, 1200)
        for look in range(6):
            tally.add(pairs[200 * look : 200 * look + 200], look // 3)
            halted[repetition] |= judge_tick(tally, POLICY).outcome is JudgeOutcome.HALT
    assert_rarely_halts(halted)
