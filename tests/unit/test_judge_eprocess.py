"""The e-process against independent reckonings: its definition, the recursion over restarts, and the unpaired form."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interlock.errors import PolicyError
from interlock.judge.bounds import mean_bounds, more_needed, quantile_ranks, rejects_share, share_bounds
from interlock.judge.eprocess import (
    SINCE_START_WEIGHT,
    Bets,
    e_value,
    fail_bets,
    log_mixture,
    log_mixture_restarting,
    pass_bets,
    planned_pass_bets,
    restart_weight_begun,
)
from interlock.judge.grids import LATENCY_CELLS, latency_cells
from interlock.judge.policy import LatencyTolerance
from interlock.judge.quantiles import QuantileTest, exceeding_bets, not_slower_test, quantile_ms, slower_test
from interlock.judge.unpaired import UnpairedPolicy, log_e_unpaired_errors

GENTLE = settings(max_examples=60, deadline=None, derandomize=True)


def by_definition(data: np.ndarray, windows: np.ndarray, bets: Bets, planned: int) -> float:
    """The weight since the start and the rest over restarts, written out as products, one restart after the other."""
    weights = np.exp(bets.log_weights)

    def process(kept: np.ndarray) -> float:
        return float(np.prod(1 + bets.sign * bets.stakes * (kept[:, None] - bets.mean), axis=0) @ weights)

    last = int(windows.max())
    begun = restart_weight_begun(np.arange(last + 1.0), planned)
    restarts = sum((begun[j] - begun[j - 1]) * process(data[windows >= j]) for j in range(1, last + 1))
    return float(SINCE_START_WEIGHT * process(data) + (1 - SINCE_START_WEIGHT) * (restarts + 1 - begun[-1]))


@GENTLE
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12)), min_size=1, max_size=30), st.integers(1, 8), st.floats(0.005, 0.5))
def test_the_restarting_mixture_equals_its_definition(data: list[tuple[float, int]], planned: int, mean: float) -> None:
    bets = fail_bets(mean)
    values, windows = np.array([d for d, _ in data]), np.array([w for _, w in data])
    held = np.unique(windows)
    growth = np.stack([bets.log_factors(values[windows == w]).sum(axis=0) for w in held])
    ours = log_mixture_restarting(growth, held.astype(np.float64), bets=bets, planned_window_count=planned)
    assert ours == pytest.approx(math.log(by_definition(values, windows, bets, planned)), abs=1e-9)


@pytest.mark.parametrize(
    "bets",
    [
        pytest.param(fail_bets(0.02), id="fail side"),
        pytest.param(fail_bets(0.005, low=-1.0), id="fail side of paired errors"),
        pytest.param(exceeding_bets(0.02), id="fail side of a quantile"),
        pytest.param(pass_bets(0.02), id="pass side"),
        pytest.param(planned_pass_bets(0.005, high=1.0, sample_count=10, beta=0.05), id="planned pass side, few data"),
        pytest.param(planned_pass_bets(0.005, high=1.0, sample_count=1e6, beta=0.05), id="planned pass side, many data"),
    ],
)
def test_bets_are_fair_at_the_null_and_never_ruined(bets: Bets) -> None:
    low = -1.0 if bets.mean == 0.005 else 0.0
    at_low, at_high = np.exp(bets.log_factors(np.array([low, 1.0])))
    share_high = (bets.mean - low) / (1 - low)  # the two-point law with the null's mean
    assert np.allclose(share_high * at_high + (1 - share_high) * at_low, 1.0)
    assert (at_low > 0).all()
    assert (at_high > 0).all()
    assert np.exp(bets.log_weights).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("mean", [0.01, 0.02, 0.05])
def test_fail_bets_spend_little_below_one_and_a_half_times_the_tolerance_but_not_nothing(mean: float) -> None:
    bets = fail_bets(mean)
    weights, best_for = np.exp(bets.log_weights), 1 + bets.stakes * (1 - mean)  # for labels, in multiples of the tolerance
    assert weights[best_for > 1.5] == pytest.approx(weights.max()), "no large fault is preferred to another"
    assert 0 < weights[best_for < 1.5].sum() < 0.25
    assert best_for.min() < 1.1


def test_no_data_is_an_e_value_of_one() -> None:
    bets = fail_bets(0.02)
    assert log_mixture_restarting(np.zeros((0, 16)), np.zeros(0), bets=bets, planned_window_count=3) == 0.0
    assert float(log_mixture(np.zeros(16), bets)) == pytest.approx(0.0)


@given(st.integers(1, 1000))
def test_restart_weights_grow_to_one_and_not_beyond(planned: int) -> None:
    begun = restart_weight_begun(np.array([0.0, 1.0, planned, planned + 1.0, 1e15]), planned)
    assert begun[0] == 0.0
    assert (np.diff(begun) >= 0).all()
    assert begun[-1] == pytest.approx(1.0)
    assert begun[-1] <= 1.0


def test_an_e_value_is_capped_and_nan_stays_nan() -> None:
    assert math.isfinite(e_value(1e9))
    assert math.isnan(e_value(math.nan))


def histogram(latencies_ms: list[float]) -> np.ndarray:
    return np.bincount(latency_cells(np.array(latencies_ms)), minlength=LATENCY_CELLS).astype(np.float64)


TOLERANCE = LatencyTolerance(0.25, 0.0)


def test_the_smallest_product_is_the_smallest_over_every_threshold() -> None:
    rng = np.random.default_rng(7)
    candidate, incumbent = rng.lognormal(3.2, 0.5, 80), rng.lognormal(3.0, 0.5, 120)
    test = slower_test(histogram(candidate.tolist()), histogram(incumbent.tolist()), quantile=0.5, tolerance=TOLERANCE)
    edges = 0.02 * 1.005 ** np.arange(3556)
    cells_c, cells_b = latency_cells(candidate), latency_cells(incumbent)
    down, up = edges[cells_c - 1], 1.25 * edges[cells_b]
    fail, good = exceeding_bets(0.5), pass_bets(0.5)

    def e(hits: int, n: int, bets: Bets) -> float:
        factors = np.exp(bets.log_factors(np.array([0.0, 1.0])))
        return float((factors[1] ** hits * factors[0] ** (n - hits)) @ np.exp(bets.log_weights))

    def m(above: float, below: float) -> float:
        return 0.05 + 0.30 * above + 0.25 * below + 0.40 * above * below

    every = np.concatenate([[0.0], down, up, down + 1e-9, up + 1e-9])
    slow = min(m(e(int((down > x).sum()), 80, fail), e(int((up >= x).sum()), 120, good)) for x in every)
    assert test.log_e() == pytest.approx(math.log(slow))


@pytest.mark.parametrize("quantile", [0.5, 0.9])
@pytest.mark.parametrize("test", [slower_test, not_slower_test])
def test_a_quantile_at_its_tolerance_is_worth_at_most_one_on_average(test: Callable[..., QuantileTest], quantile: float) -> None:
    """Exact, over every outcome of 7 and 9 requests: the candidate's quantile is a grid cell above or below the tolerated one."""
    n_candidate, n_incumbent, share = 7, 9, 1 - quantile
    slower_ms, faster_ms = (99.0, 101.5) if test is slower_test else (101.5, 99.0)
    total = 0.0
    for high_c, high_b in itertools.product(range(n_candidate + 1), range(n_incumbent + 1)):
        chance = stats.binom.pmf(high_c, n_candidate, share) * stats.binom.pmf(high_b, n_incumbent, share)
        candidate = histogram([10.0] * (n_candidate - high_c) + [slower_ms] * high_c)
        incumbent = histogram([8.0] * (n_incumbent - high_b) + [faster_ms / 1.25] * high_b)
        total += chance * math.exp(test(candidate, incumbent, quantile=quantile, tolerance=TOLERANCE).log_e())
    assert total <= 1.0


def test_a_far_slower_candidate_is_found_and_a_far_faster_one_is_proved() -> None:
    slow, fast = histogram([100.0] * 60), histogram([10.0] * 60)
    assert slower_test(slow, fast, quantile=0.5, tolerance=TOLERANCE).log_e() > 10
    assert slower_test(fast, slow, quantile=0.5, tolerance=TOLERANCE).log_e() < 0
    assert not_slower_test(fast, slow, quantile=0.5, tolerance=TOLERANCE).log_e() > 10
    assert not_slower_test(slow, fast, quantile=0.5, tolerance=TOLERANCE).log_e() < 0


def test_slack_tolerates_what_the_ratio_alone_would_not() -> None:
    slow, fast = histogram([1.4] * 200), histogram([1.0] * 200)
    assert slower_test(slow, fast, quantile=0.5, tolerance=TOLERANCE).log_e() > 10
    assert slower_test(slow, fast, quantile=0.5, tolerance=LatencyTolerance(0.25, 2.0)).log_e() < 0


def test_a_candidate_that_never_answers_is_slower_than_anything() -> None:
    silent = histogram([math.inf] * 60)
    assert slower_test(silent, histogram([10.0] * 60), quantile=0.5, tolerance=TOLERANCE).log_e() > 10
    assert quantile_ms(silent, 0.5) is None
    assert quantile_ms(np.zeros(LATENCY_CELLS), 0.5) is None


def test_quantile_is_read_within_two_percent() -> None:
    assert quantile_ms(histogram([float(x) for x in range(1, 101)]), 0.5) == pytest.approx(50, rel=0.03)


UNPAIRED = UnpairedPolicy(tolerance=0.005, incumbent_ratio=1.0, least_share=0.05, most_share=0.5, planned_window_count=10)


def test_the_unpaired_datum_is_worth_its_inverse_probability() -> None:
    windows, shares = np.array([0.0, 1.0]), np.array([0.05, 0.5])
    candidate_errors = np.array([[1.0, 0.0, 99.0], [0.0, 0.0, 100.0]])
    later = candidate_errors[::-1]
    assert log_e_unpaired_errors(windows, shares, candidate_errors, policy=UNPAIRED) > log_e_unpaired_errors(
        windows, shares, later, policy=UNPAIRED
    ), "an error at 5 % of the traffic weighs ten times one at 50 %"


def test_unpaired_errors_of_the_incumbent_speak_for_the_candidate() -> None:
    windows, shares = np.zeros(1), np.full(1, 0.1)
    counts = [np.array([[10.0, b, 990.0 - b]]) for b in (0.0, 90.0)]
    without, with_errors = (log_e_unpaired_errors(windows, shares, c, policy=UNPAIRED) for c in counts)
    assert without > math.log(100) > with_errors


def test_a_share_outside_the_plan_is_refused() -> None:
    with pytest.raises(PolicyError, match="outside"):
        log_e_unpaired_errors(np.zeros(1), np.full(1, 0.01), np.ones((1, 3)), policy=UNPAIRED)
    with pytest.raises(PolicyError, match="inside"):
        UnpairedPolicy(0.005, 1.0, 0.0, 0.5, 10)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(0, 149, 0.0, 0.01990), (5, 100, 0.01991, 0.10225), (10, 10, 0.74113, 1.0)])
def test_share_bounds_are_clopper_pearson(hits: int, n: int, low: float, high: float) -> None:
    bounds = share_bounds(hits, n, beta=0.05)
    assert bounds == pytest.approx((low, high), abs=2e-5)


def test_bounds_without_data_are_none() -> None:
    assert share_bounds(0, 0, beta=0.05) is None
    assert mean_bounds(0.0, 0, beta=0.05) is None


@GENTLE
@given(st.integers(0, 50), st.integers(1, 50))
def test_bounds_of_a_mean_hold_the_exact_bounds_of_a_share(hits: int, more: int) -> None:
    n = hits + more
    wide, exact = mean_bounds(hits / n, n, beta=0.05), share_bounds(hits, n, beta=0.05)
    assert wide is not None
    assert exact is not None
    assert wide[0] <= exact[0] + 1e-9
    assert wide[1] >= exact[1] - 1e-9


def test_quantile_ranks_say_when_data_are_too_few() -> None:
    assert quantile_ranks(298, 0.99, beta=0.05)[1] > 298
    assert quantile_ranks(299, 0.99, beta=0.05)[1] == 299
    assert quantile_ranks(4, 0.5, beta=0.05)[0] == 0
    assert quantile_ranks(5, 0.5, beta=0.05) == (1, 5)


def test_more_needed_is_none_where_more_of_the_same_leads_nowhere() -> None:
    assert more_needed(10, lambda growth: False) is None
    assert more_needed(10, lambda growth: True) == 0
    assert 40 <= (more_needed(10, lambda growth: growth >= 5) or 0) <= 46


def test_all_hits_reject_nothing() -> None:
    assert not rejects_share(5, 5, ceiling=0.99, beta=0.5)
    assert not rejects_share(0, 0, ceiling=0.5, beta=0.5)
