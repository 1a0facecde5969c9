"""Bounds of drift distances: they cover, chance is no drift, and nothing depends on the order or the unit of the numbers."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.judge.drift import CATEGORY_METHODS, Distance, category_distance, number_distance

NUMBER_METHODS = ("wasserstein", *CATEGORY_METHODS)
BEFORE, NOW = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.3, 0.3, 0.3, 0.1])
RUNS = 300


def drawn(method: str, generator: np.random.Generator, *, shift: float, n: int, m: int) -> Distance:
    found = number_distance(method, np.sort(generator.normal(0, 1, n)), np.sort(generator.normal(shift, 1, m)))
    assert found is not None
    return found


def counted(method: str, generator: np.random.Generator, now: np.ndarray) -> Distance:
    before, after = generator.multinomial(1000, BEFORE), generator.multinomial(1500, now)
    found = category_distance(method, before.astype(float), after.astype(float))
    assert found is not None
    return found


def missed(truth: float, found: list[Distance]) -> tuple[float, float]:
    """The share of lower bounds above the truth, and of upper bounds below it."""
    bounds = [distance.bounds(0.95) for distance in found]
    return sum(b.low > truth for b in bounds) / len(found), sum(b.high < truth for b in bounds) / len(found)


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_bounds_of_wasserstein_distances_cover(shift: float) -> None:
    generator = np.random.default_rng(4)
    found = [drawn("wasserstein", generator, shift=shift, n=1000, m=700) for _ in range(RUNS)]
    assert max(missed(shift, found)) <= 0.09  # .05 and three standard errors of 300 runs


@pytest.mark.parametrize("method", CATEGORY_METHODS)
def test_bounds_of_shares_cover(method: str) -> None:
    truth, generator = category_distance(method, BEFORE * 1e9, NOW * 1e9), np.random.default_rng(5)
    assert truth is not None
    assert max(missed(truth.value, [counted(method, generator, NOW) for _ in range(RUNS)])) <= 0.09


@pytest.mark.parametrize("method", NUMBER_METHODS)
def test_what_one_population_shows_twice_is_chance(method: str) -> None:
    generator = np.random.default_rng(6)
    if method == "wasserstein":
        found = [drawn(method, generator, shift=0.0, n=1000, m=700) for _ in range(RUNS)]
    else:
        found = [counted(method, generator, BEFORE) for _ in range(RUNS)]
    assert np.mean([d.value for d in found]) == pytest.approx(np.mean([d.by_chance for d in found]), rel=0.15)
    assert np.mean([d.bounds(0.95).low for d in found]) < found[0].by_chance / 4


@pytest.mark.parametrize("method", NUMBER_METHODS)
def test_more_rows_narrow_the_bounds(method: str) -> None:
    generator = np.random.default_rng(7)
    widths = []
    for n in (500, 5000, 50_000):
        bounds = drawn(method, generator, shift=0.7, n=n, m=n).bounds(0.95)
        widths.append(bounds.high - bounds.low)
    assert all(wide > 2 * narrow for wide, narrow in pairwise(widths))


@pytest.mark.parametrize("method", NUMBER_METHODS)
@pytest.mark.parametrize(
    ("reference", "current"),
    [
        pytest.param([], [1.0], id="no reference"),
        pytest.param([1.0, 2.0], [], id="no current rows"),
        pytest.param([1.0, 1.0], [2.0, 2.0], id="another constant"),
        pytest.param([1.0, 1.0], [1.0, 2.0], id="a constant that now varies"),
    ],
)
def test_what_cannot_be_measured_has_no_distance(method: str, reference: list[float], current: list[float]) -> None:
    assert number_distance(method, np.array(reference), np.array(current)) is None


@pytest.mark.parametrize("method", NUMBER_METHODS)
def test_overflow_is_no_distance(method: str) -> None:
    huge = np.array([-1.7e308, 0.0, 1.7e308])
    with np.errstate(all="ignore"):
        try:
            found = number_distance(method, huge, huge)
        except ValueError:  # numpy's bins; the edge of the gate makes INCONCLUSIVE of it
            found = None
    assert found is None or math.isfinite(found.value)


@pytest.mark.parametrize("method", NUMBER_METHODS)
@pytest.mark.parametrize("side", [0, 1], ids=["reference", "current"])
def test_one_row_far_out_leaves_the_distance_of_the_others(method: str, side: int) -> None:
    generator = np.random.default_rng(8)
    drawn_sides = [generator.normal(0, 1, 5000), generator.normal(0.5, 1, 5000)]
    clean = number_distance(method, *map(np.sort, drawn_sides))
    drawn_sides[side][0] = 1e3
    found = number_distance(method, *map(np.sort, drawn_sides))
    assert clean is not None
    assert found is not None
    assert found.value == pytest.approx(clean.value, rel=0.03, abs=1000 / 5000 / 0.95 if method == "wasserstein" else 0.01)


@pytest.mark.parametrize("method", CATEGORY_METHODS)
def test_a_common_number_does_not_hide_how_the_others_moved(method: str) -> None:
    generator = np.random.default_rng(9)
    dry = np.zeros(9000)
    rain, more, dust = generator.exponential(1, 1000), generator.exponential(5, 1000), generator.normal(0, 1e-3, 9000)
    before = np.sort(np.concatenate([dry, rain]))
    moved = number_distance(method, before, np.sort(np.concatenate([dry, more])))
    noisy = number_distance(method, before, np.sort(np.concatenate([dust, rain])))
    assert moved is not None
    assert noisy is not None
    assert moved.bounds(0.95).low > 0.02
    assert noisy.value > 0.5


@pytest.mark.parametrize("method", CATEGORY_METHODS)
def test_two_samples_of_numbers_from_one_population_are_no_proved_distance(method: str) -> None:
    generator = np.random.default_rng(10)
    found = [drawn(method, generator, shift=0.0, n=2000, m=1500) for _ in range(RUNS)]
    assert np.mean([d.value for d in found]) == pytest.approx(np.mean([d.by_chance for d in found]), rel=0.15)
    assert np.mean([d.bounds(0.95).low for d in found]) < found[0].by_chance / 4


def test_bounds_cover_where_the_norm_is_of_quartiles() -> None:
    generator = np.random.default_rng(11)

    def skewed(n: int, shift: float) -> np.ndarray:
        return np.sort(generator.exponential(1, n) + shift)

    truth = number_distance("wasserstein", skewed(2_000_000, 0.0), skewed(2_000_000, 3.0))
    found = [number_distance("wasserstein", skewed(2000, 0.0), skewed(1500, 3.0)) for _ in range(RUNS)]
    assert truth is not None
    assert max(missed(truth.value, [distance for distance in found if distance])) <= 0.09


samples = st.lists(st.integers(-50, 50), min_size=2, max_size=60)


@given(reference=samples, current=samples, method=st.sampled_from(NUMBER_METHODS))
def test_a_distance_is_finite_not_negative_and_within_its_bounds(reference: list[int], current: list[int], method: str) -> None:
    found = number_distance(method, np.sort(np.array(reference, dtype=float)), np.sort(np.array(current, dtype=float)))
    if found is None:
        return
    bounds = found.bounds(0.95)
    assert 0 <= bounds.low <= found.value <= bounds.high < math.inf


@given(numbers=st.lists(st.integers(-50, 50), min_size=1, max_size=60), method=st.sampled_from(NUMBER_METHODS))
def test_a_sample_is_no_distance_from_itself(numbers: list[int], method: str) -> None:
    ordered = np.sort(np.array(numbers, dtype=float))
    found = number_distance(method, ordered, ordered)
    assert found is not None
    assert found.value == pytest.approx(0.0, abs=1e-6)


@given(reference=samples, current=samples, scale=st.sampled_from([1e-9, 0.5, 1e6]))
def test_the_unit_of_the_numbers_is_irrelevant(reference: list[int], current: list[int], scale: float) -> None:
    one, two = (np.sort(np.array(side, dtype=float)) for side in (reference, current))
    mine, scaled = number_distance("wasserstein", one, two), number_distance("wasserstein", one * scale, two * scale)
    assert (mine is None) == (scaled is None)
    if mine and scaled:
        assert scaled.value == pytest.approx(mine.value)
        assert scaled.standard_error == pytest.approx(mine.standard_error, abs=1e-9)
