"""The benchmark of the judge measures what the product does: its fast recursions are the judge's own e-values, its rivals are true."""

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.judge import Cell, Goal, cell_of, goals_of, written
from benchmarks.judge_rivals import argo, crossing_probability, kayenta, obrien_fleming, pocock
from benchmarks.judge_runs import divergence_crossings, error_counts, error_crossings, histograms, latency_crossing, restart_plan
from benchmarks.judge_streams import (
    RESTARTS,
    SINCE_START,
    divergence_blocks,
    error_blocks,
    kl_bernoulli,
    latencies,
    scenarios,
    slower_share,
)
from interlock.judge.eprocess import fail_bets, log_mixture, log_mixture_restarting
from interlock.judge.unpaired import UnpairedPolicy, log_e_unpaired_errors

LINE = math.log(20)
SCENARIOS = {(each.table, each.key, each.quantile): each for each in scenarios()}


def test_the_restart_plan_spends_all_capital() -> None:
    begun, kept = restart_plan(60)
    assert begun.sum() + kept == pytest.approx(1)
    assert begun.min() > 0


def test_label_crossings_are_those_of_the_judges_own_mixtures() -> None:
    data = next(divergence_blocks(SCENARIOS["T1", 4, 0.0], 5))[0][:, :1000]
    bets = fail_bets(0.02)
    for row, since_start, restarting in zip(data, *divergence_crossings(data).values(), strict=True):
        growth = bets.log_factors(row)
        alone = log_mixture(growth.cumsum(axis=0), bets) >= LINE
        assert since_start == (alone.argmax() + 1 if alone.any() else 0)
        pairs = np.arange(1, 1001)
        values = [
            log_mixture_restarting(
                np.add.reduceat(growth[:n], np.arange(0, n, 100)), np.arange(float(math.ceil(n / 100))), bets=bets, planned_window_count=10
            )
            for n in pairs
        ]
        reached = np.array(values) >= LINE
        assert restarting == (reached.argmax() + 1 if reached.any() else 0)


def test_error_crossings_are_those_of_the_judges_own_unpaired_form() -> None:
    on_candidate, failed = next(error_blocks(SCENARIOS["T3", 7, 0.0], 100))
    counts = error_counts(on_candidate, failed)[:3]
    policy = UnpairedPolicy(tolerance=0.005, incumbent_ratio=1.0, least_share=0.1, most_share=0.1, planned_window_count=60)
    for row, halt in zip(counts, error_crossings(counts)[RESTARTS], strict=True):
        for step, reached in ((halt // 10, True), (halt // 10 - 1, False)):
            windows = np.arange(math.ceil(step / 60))
            by_window = np.add.reduceat(row[:step], 60 * windows)
            log_e = log_e_unpaired_errors(windows.astype(float), np.full(windows.size, 0.1), by_window, policy=policy)
            assert (log_e >= LINE) is reached


def test_a_candidate_twice_as_slow_is_found_at_the_first_minutes() -> None:
    scenario = SCENARIOS["T4", 6, 0.5]
    assert 600 <= latency_crossing(*histograms(*latencies(scenario, 0)), quantile=0.5) <= 1200


def test_group_sequential_constants_spend_alpha() -> None:
    steps = np.random.default_rng(5).standard_normal((40_000, 60)).cumsum(axis=1) / np.sqrt(np.arange(1, 61))
    for critical in (pocock(60, alpha=0.05), obrien_fleming(60, alpha=0.05)):
        assert crossing_probability(critical) == pytest.approx(0.05, abs=1e-4)
        assert np.mean((steps >= critical).any(axis=1)) == pytest.approx(0.05, abs=0.004)


def test_argo_halts_at_the_fourth_failed_window() -> None:
    measured = np.array([[0.1, 0.0, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.0, 0.0, 0.0]])
    assert argo(measured, threshold=0.05, requests_per_window=100).tolist() == [500, 0]


def test_kayenta_halts_on_a_clear_shift_at_its_first_judgement_and_never_on_equal_windows() -> None:
    incumbent = np.tile([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 2))
    candidate = incumbent + np.array([[20.0], [0.0]])
    assert kayenta(candidate, incumbent, requests_per_window=100).tolist() == [500, 0]


def test_walds_bound_is_the_textbooks() -> None:
    assert SCENARIOS["T1", 4, 0.0].bound == pytest.approx(math.log(20) / kl_bernoulli(0.04, 0.02))
    assert SCENARIOS["T1", 4, 0.0].bound == pytest.approx(377.7, abs=0.1)
    assert slower_share(40.0) == pytest.approx(0.5, abs=0.02)


def test_a_halt_before_the_onset_finds_nothing() -> None:
    late = SCENARIOS["T1", 9, 0.0]
    cell = cell_of(late, SINCE_START, np.array([100, 0, 3100, 3300]))
    assert (cell.halted, cell.repetitions, cell.delay_requests) == (2, 4, 200.0)


def test_a_method_that_never_halts_misses_its_goal_and_is_written_as_null() -> None:
    scenario = SCENARIOS["T2", 4, 0.0]
    cell = cell_of(scenario, SINCE_START, np.zeros(10, dtype=np.int64))
    goals = goals_of([(scenario, {SINCE_START: cell})])
    assert [goal.met for goal in goals] == [False]
    assert '"delay_requests": null' in written([(scenario, {SINCE_START: cell})], goals)


def test_a_goal_is_met_up_to_its_limit_and_a_share_has_limits() -> None:
    goal = Goal("delay", measured=115.0, most=115.0, compared=100.0)
    assert goal.met
    assert not dataclasses.replace(goal, measured=math.nan).met
    cell = Cell("T1", "at tolerance", SINCE_START, 100, 0, math.nan, math.nan)
    assert cell.limits[0] == 0 < cell.limits[1] < 0.03
