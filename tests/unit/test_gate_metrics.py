"""Metrics are scikit-learn's, resampled ones are the same on unit weights, and bounds hold as often as they say."""

import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from interlock.control.gates.metrics import DISTANCE, Numbers, Side, flaw, score
from interlock.control.gates.resampling import (
    RESAMPLES,
    Pair,
    discordant_bounds,
    resample,
    spread_of,
    statistic,
    value_bounds,
    worse_by_bounds,
)
from interlock.profile.gates import MetricName

NAMES: tuple[MetricName, ...] = get_args(MetricName)
NOTHING = np.full(0, np.nan)


def side(labels: Any, answers: Any, distances: Any = None) -> Side:
    labels, answers = np.asarray(labels), np.asarray(answers)
    return Side(labels, answers, np.full(len(labels), np.nan) if distances is None else np.asarray(distances, dtype=float))


def scored(seed: int, n: int = 300, *, digits: int = 8) -> Side:
    generator = np.random.default_rng(seed)
    answers = np.round(generator.beta(1, 2, n), digits)
    labels = (generator.random(n) < answers).astype(float)
    return Side(labels, answers, generator.random(n))


probabilities = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])), min_size=2, max_size=60
).filter(lambda rows: len({label for label, _ in rows}) == 2)


@settings(max_examples=60, deadline=None)
@given(rows=probabilities)
def test_every_resampled_metric_is_the_library_s_when_each_row_is_drawn_once(rows: list[tuple[bool, float]]) -> None:
    labels, answers = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    one = side(labels, answers, np.abs(labels - answers))
    for name in NAMES:
        assert flaw(name, one) is None
        ours = float(statistic(name, one)(np.ones((1, len(rows))))[0])
        assert ours == pytest.approx(score(name, one), rel=1e-9, abs=1e-12, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(rows=probabilities, data=st.data())
def test_drawing_a_row_twice_is_having_it_twice(rows: list[tuple[bool, float]], data: st.DataObject) -> None:
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    labels, answers = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    one = side(labels, answers, np.abs(labels - answers))
    again = one.at(np.repeat(np.arange(len(rows)), counts))
    for name in set(NAMES) - {"calibration_error"}:  # whose bins stay those of all rows
        weighted = float(statistic(name, one)(counts[None, :].astype(float))[0])
        if flaw(name, again) is None:
            assert weighted == pytest.approx(score(name, again), rel=1e-9, abs=1e-9, nan_ok=True), name


def test_calibration_error_is_the_library_s_curve_averaged_over_the_rows() -> None:
    one = scored(3, 1000)
    true, predicted = calibration_curve(one.labels, one.answers, n_bins=10, strategy="quantile")
    assert score("calibration_error", one) == pytest.approx(np.abs(true - predicted).mean(), rel=1e-6)  # bins of 100 rows each


def test_calibration_error_does_not_depend_on_the_order_of_rows_with_one_probability() -> None:
    labels = np.array([0.0] * 700 + [1.0] * 300)
    assert score("calibration_error", side(labels, np.full(1000, 0.3))) == pytest.approx(0.0, abs=1e-12)
    assert score("calibration_error", side(labels, np.full(1000, 0.5))) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "labels", "answers", "text"),
    [
        pytest.param("roc_auc", [0.0, 0.0], [0.1, 0.2], "found 1 different labels", id="one class"),
        pytest.param("recall", [0.0, 2.0], [0.1, 0.2], "needs labels 0 and 1", id="classes that are not 0 and 1"),
        pytest.param("f1", [0.0, 1.0], [0.1, 1.2], "outside 0 to 1", id="no probabilities"),
        pytest.param("brier", [0.0, 1.0], np.array(["a", "b"], dtype=object), "found text", id="text"),
        pytest.param("r2", [3.0, 3.0], [3.0, 2.0], "all labels are the same", id="nothing to explain"),
        pytest.param("accuracy", np.array(["a", "a"], dtype=object), np.array(["a", "b"], dtype=object), "the same", id="one word"),
        pytest.param(DISTANCE, [0.0, 1.0], [0.1, 0.2], "2 of 2 rows", id="no distance"),
        pytest.param("log_loss", [], [], "no rows", id="no rows"),
    ],
)
def test_what_a_metric_cannot_be_taken_of_is_named(name: MetricName, labels: Any, answers: Any, text: str) -> None:
    assert text in (flaw(name, side(labels, answers)) or "")


@pytest.mark.parametrize(("name", "value"), [("log_loss", -math.log(0.8)), ("brier", 0.04), ("calibration_error", 0.2), ("accuracy", 1.0)])
def test_a_part_of_one_class_has_the_metrics_that_are_defined_on_it(name: MetricName, value: float) -> None:
    for label in (0.0, 1.0):
        one = side(np.full(50, label), np.full(50, abs(label - 0.2)))
        assert flaw(name, one)
        assert flaw(name, one, is_part=True) is None
        assert score(name, one) == pytest.approx(value)
    assert flaw("roc_auc", side([0.0, 0.0], [0.1, 0.2]), is_part=True)


def test_precision_of_a_model_that_never_says_yes_is_no_number() -> None:
    one = side([0.0, 1.0, 0.0], [0.1, 0.2, 0.3])
    assert math.isnan(score("precision", one))
    assert math.isnan(value_bounds("precision", one, math.nan, NOTHING).low)


def test_labels_of_different_kinds_are_compared_without_an_error() -> None:
    labels, answers = np.array([1, "a", None, "b"], dtype=object), np.array([1, "a", "b", "b"], dtype=object)
    assert score("accuracy", side(labels, answers)) == 0.75


def test_the_draws_are_the_same_for_every_pair_and_follow_from_the_seed() -> None:
    one = scored(1)
    pairs = [Pair("log_loss", one, one, None), Pair("log_loss", one, one, np.arange(300))]
    (a, b), (c, d) = resample(pairs, row_count=300, seed=7)
    assert len(a) == RESAMPLES
    assert (a == b).all()
    np.testing.assert_allclose(a, c)
    np.testing.assert_allclose(a, d)
    assert (resample(pairs[:1], row_count=300, seed=8)[0][0] != a).any()


def test_bounds_hold_the_value_even_where_the_draws_do_not() -> None:
    bounds = spread_of(0.0, np.linspace(1.0, 2.0, 100))
    assert bounds.low < 0.0 < 1.9 < bounds.high


def test_a_draw_without_a_value_leaves_no_bound() -> None:
    assert math.isnan(spread_of(0.5, np.array([0.4, math.nan, 0.6])).high)


def _bounds_of_own(name: MetricName, one: Side, seed: int = 0) -> Any:
    draws, _ = resample([Pair(name, one, one, None)], row_count=len(one.labels), seed=seed)[0]
    return value_bounds(name, one, score(name, one), draws)


def _bounds_of_worse_by(name: MetricName, ours: Side, theirs: Side, seed: int = 0) -> Any:
    pair, sign = Pair(name, ours, theirs, None), -1 if name in {"recall", "precision", "f1"} else 1
    a, b = resample([pair], row_count=len(ours.labels), seed=seed)[0]
    return worse_by_bounds(pair, sign * (score(name, ours) - score(name, theirs)), sign * (a - b))


@pytest.mark.parametrize("name", ["distance_to_label", "brier", "calibration_error", "f1", "precision", "recall", "accuracy"])
def test_no_error_in_a_hundred_rows_is_no_certainty(name: MetricName) -> None:
    labels = np.r_[np.ones(30), np.zeros(70)]
    bounds = _bounds_of_own(name, side(labels, labels, np.zeros(100)))
    assert 0.02 < bounds.high - bounds.low < 0.12


@pytest.mark.parametrize("name", ["precision", "recall"])
def test_no_lost_positive_among_thirty_is_no_certainty(name: MetricName) -> None:
    labels = np.r_[np.ones(30), np.zeros(300)]
    one, other = side(labels, labels * 0.9), side(labels, labels * 0.8)
    assert _bounds_of_worse_by(name, one, other).high == pytest.approx(1 - 0.005 ** (1 / 30))


def test_bounds_of_a_precision_that_was_lost_hold_it_though_the_two_models_call_different_rows() -> None:
    labels = np.r_[np.ones(100), np.zeros(100)]
    bold = side(labels, np.r_[np.full(90, 0.9), np.full(10, 0.1), np.full(10, 0.9), np.full(90, 0.1)])
    shy = side(labels, np.r_[np.full(10, 0.9), np.full(190, 0.1)])
    bounds = _bounds_of_worse_by("precision", bold, shy)
    assert bounds.low <= 0.1 <= bounds.high


@pytest.mark.parametrize("name", ["f1", "mean_absolute_error", "distance_to_label"])
def test_draws_that_do_not_vary_are_believed_only_of_models_that_answer_alike(name: MetricName) -> None:
    labels = np.r_[np.ones(30), np.zeros(70)]
    errors = np.full(100, 0.25)
    one, other = side(labels, np.abs(labels - 0.25), errors), side(labels, np.abs(labels - 0.25) + np.r_[np.zeros(99), 1e-12], errors)
    same = _bounds_of_worse_by(name, one, side(labels, one.answers.copy(), errors))
    assert (same.low, same.high) == (0.0, 0.0)
    assert math.isnan(_bounds_of_worse_by(name, one, other).high) or name == "mean_absolute_error"


def test_the_same_ranks_are_the_same_area_under_the_curve() -> None:
    one = scored(1)
    recalibrated = side(one.labels, one.answers / 2)
    bounds = _bounds_of_worse_by("roc_auc", one, recalibrated)
    assert (bounds.low, bounds.high) == (0.0, 0.0)
    top = np.sort(one.answers)[-2:]
    swapped = np.where(one.answers == top[0], top[1], np.where(one.answers == top[1], top[0], one.answers))
    labels = np.where(one.answers >= top[0], 1.0, one.labels)
    assert math.isnan(_bounds_of_worse_by("roc_auc", side(labels, one.answers), side(labels, swapped)).high)


def _covers(make: Any, truth: float, count: int = 200) -> tuple[int, int]:
    """How often each of the two bounds holds the truth."""
    found = [make(seed) for seed in range(count)]
    return sum(b.low <= truth for b in found), sum(b.high >= truth for b in found)


def test_bootstrap_bounds_hold_about_95_times_in_a_hundred_on_each_side() -> None:
    def make(seed: int) -> Any:
        noise = np.random.default_rng(seed).normal(0.3, 1.0, 150)
        labels = np.zeros(150)
        ours, theirs = side(labels, np.maximum(noise, 0)), side(labels, np.maximum(-noise, 0))  # |ours| - |theirs| = noise
        a, b = resample([Pair("mean_absolute_error", ours, theirs, None)], row_count=150, seed=seed)[0]
        return spread_of(float(noise.mean()), a - b)

    low, high = _covers(make, 0.3)
    assert 180 <= low < 200
    assert 180 <= high < 200


def test_bounds_of_a_rare_distance_hold_at_least_95_times_in_a_hundred() -> None:
    def make(seed: int) -> Any:
        distances = (np.random.default_rng(seed).random(100) < 0.01).astype(float)
        return _bounds_of_own("distance_to_label", side(np.zeros(100), np.zeros(100), distances), seed)

    low, high = _covers(make, 0.01)
    assert low >= 190
    assert high >= 190


def test_mcnemar_bounds_hold_at_least_95_times_in_a_hundred_on_each_side() -> None:
    def make(seed: int) -> Any:
        drawn = np.random.default_rng(seed).choice(4, 400, p=[0.70, 0.15, 0.07, 0.08])  # both, only ours, only theirs, none
        return discordant_bounds(np.isin(drawn, [0, 1]).astype(float), np.isin(drawn, [0, 2]).astype(float))

    low, high = _covers(make, -0.08)
    assert low >= 190
    assert high >= 190


def test_no_discordant_row_is_no_certainty() -> None:
    same = np.ones(400)
    bounds = discordant_bounds(same, same)
    assert 0.0 < bounds.high == pytest.approx(1 - 0.005 ** (1 / 400))
    assert bounds.low == -bounds.high


def test_mcnemar_bounds_are_about_the_normal_ones_for_many_rows() -> None:
    drawn: NDArray[np.intp] = np.random.default_rng(0).choice(4, 20_000, p=[0.80, 0.06, 0.04, 0.10])
    ours, theirs = np.isin(drawn, [0, 1]).astype(float), np.isin(drawn, [0, 2]).astype(float)
    difference: Numbers = theirs - ours
    error = 1.645 * difference.std() / math.sqrt(len(difference))
    bounds = discordant_bounds(ours, theirs)
    assert difference.mean() + error < bounds.high < difference.mean() + 1.4 * error
