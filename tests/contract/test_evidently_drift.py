"""The real Evidently: our distances are its distances, on data of every kind; its page is drawn from whatever the gate could measure."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interlock.adapters.evidently_drift import draw_page
from interlock.judge.drift import CATEGORY_METHODS, category_distance, number_distance
from interlock.profile.gates import CategoryColumn, NumberColumn

NUMBER_METHODS = ("wasserstein", *CATEGORY_METHODS)
Draw = Callable[[np.random.Generator, int], Any]


def evidentlys(method: str, kind: str, reference: "pd.Series[Any]", current: "pd.Series[Any]") -> float:
    """What Evidently's own registered function says."""
    os.environ["DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations import stattests
        from evidently.legacy.core import ColumnType

        test = getattr(stattests, f"{method}_stat_test")
        column_type = ColumnType.Numerical if kind == "number" else ColumnType.Categorical
        return float(test(reference.copy(), current.copy(), column_type, 0.1).drift_score)


@pytest.mark.parametrize(("reference_count", "current_count"), [(1000, 1000), (3000, 700)], ids=["as many", "fewer"])
@pytest.mark.parametrize(
    ("draw", "moved"),
    [
        pytest.param(lambda g, n: g.normal(5, 2, n), lambda g, n: g.normal(5, 2, n), id="the same"),
        pytest.param(lambda g, n: g.normal(5, 2, n), lambda g, n: g.normal(7, 3, n), id="shifted and wider"),
        pytest.param(lambda g, n: g.exponential(3, n), lambda g, n: g.exponential(30, n), id="a long tail"),
        pytest.param(lambda g, n: g.normal(0, 1, n), lambda g, n: g.normal(90, 1, n), id="nothing in common"),
        pytest.param(lambda g, n: g.integers(0, 24, n) * 1.0, lambda g, n: g.integers(0, 20, n) * 1.0, id="whole hours, on bin edges"),
        pytest.param(lambda g, n: (g.random(n) < 0.9) * g.normal(0, 1, n), lambda g, n: g.normal(0, 1, n), id="mostly zero"),
        pytest.param(lambda g, n: g.normal(1e12, 1e9, n), lambda g, n: g.normal(1.001e12, 1e9, n), id="huge numbers"),
    ],
)
def test_wasserstein_distances_are_evidentlys_but_for_the_norm(reference_count: int, current_count: int, draw: Draw, moved: Draw) -> None:
    generator = np.random.default_rng(1)
    reference, current = pd.Series(draw(generator, reference_count)), pd.Series(moved(generator, current_count))
    found = number_distance("wasserstein", np.sort(reference.to_numpy()), np.sort(current.to_numpy()))
    low, high = np.quantile(reference, [0.25, 0.75], method="lower")
    deviation = float(np.std(reference))
    norm = min(deviation, (high - low) / 1.35) if high > low else deviation
    assert found is not None
    assert found.value * norm == pytest.approx(evidentlys("wasserstein", "number", reference, current) * deviation, rel=1e-9)


FEW_VALUES = [
    pytest.param(lambda g, n: g.integers(0, 6, n) * 1.0, lambda g, n: g.integers(1, 9, n) * 1.0, id="few values"),
    pytest.param(lambda g, n: g.integers(0, 20, n) * 1.0, lambda g, n: g.integers(0, 90, n) * 1.0, id="few before, many now"),
    pytest.param(lambda g, n: (g.random(n) < 0.3) * 1.0, lambda g, n: (g.random(n) < 0.4) * 1.0, id="flags"),
]


@pytest.mark.parametrize("method", CATEGORY_METHODS)
@pytest.mark.parametrize(("draw", "moved"), FEW_VALUES)
def test_distances_of_few_numbers_are_evidentlys(method: str, draw: Draw, moved: Draw) -> None:
    """Of hellinger as of categories: for numbers Evidently puts even six values into bins."""
    generator = np.random.default_rng(1)
    reference, current = pd.Series(draw(generator, 3000)), pd.Series(moved(generator, 700))
    found = number_distance(method, np.sort(reference.to_numpy()), np.sort(current.to_numpy()))
    kind = "category" if method == "hellinger" else "number"
    assert found is not None
    assert found.value == pytest.approx(evidentlys(method, kind, reference, current), rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("method", CATEGORY_METHODS)
@pytest.mark.parametrize("far_out", [3.0, 1e6], ids=["no row far out", "one row far out"])
def test_distances_of_many_numbers_are_evidentlys_of_our_bins(method: str, far_out: float) -> None:
    """Evidently's own bins span both samples: with one row far out it finds next to nothing. Ours are equally filled by the reference."""
    generator = np.random.default_rng(1)
    reference, current = np.sort(generator.normal(0, 1, 3000)), np.sort(np.append(generator.normal(2, 1, 699), far_out))
    shares = np.arange(1, 13) / 13  # 1 + log2 of all rows, rounded up
    edges = np.quantile(reference, shares, method="lower")
    binned = [pd.Series(np.searchsorted(edges, side, "right")).astype(str) for side in (reference, current)]
    found = number_distance(method, reference, current)
    assert found is not None
    assert found.value == pytest.approx(evidentlys(method, "category", *binned), rel=1e-9, abs=1e-7)
    if far_out > 1000:
        assert evidentlys(method, "number", pd.Series(reference), pd.Series(current)) < found.value / 5


def test_only_the_norm_of_tiny_numbers_differs_on_purpose() -> None:
    generator = np.random.default_rng(1)
    reference, current = pd.Series(generator.normal(0, 1e-6, 1000)), pd.Series(generator.normal(1e-5, 1e-6, 1000))
    found = number_distance("wasserstein", np.sort(reference.to_numpy()), np.sort(current.to_numpy()))
    assert evidentlys("wasserstein", "number", reference, current) == pytest.approx(0.01, rel=0.1)
    assert found is not None
    assert found.value == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("method", CATEGORY_METHODS)
@pytest.mark.parametrize(
    ("draw", "moved"),
    [
        pytest.param(lambda g, n: g.choice(["AA", "UA", "DL"], n), lambda g, n: g.choice(["AA", "UA", "DL"], n), id="the same"),
        pytest.param(lambda g, n: g.choice(["AA", "UA"], n), lambda g, n: g.choice(["AA", "DL", "B6"], n), id="gone and unseen"),
        pytest.param(lambda g, n: g.choice(["AA", "UA"], n), lambda g, n: g.choice(["DL", "B6"], n), id="nothing in common"),
        pytest.param(lambda g, n: g.integers(0, 300, n), lambda g, n: g.integers(0, 400, n), id="many, as numbers"),
        pytest.param(lambda g, n: g.random(n) < 0.3, lambda g, n: g.random(n) < 0.5, id="flags"),
        pytest.param(lambda _, n: np.full(n, "AA"), lambda _, n: np.full(n, "AA"), id="one category"),
    ],
)
def test_distances_of_categories_are_evidentlys(method: str, draw: Draw, moved: Draw) -> None:
    generator = np.random.default_rng(1)
    reference, current = pd.Series(draw(generator, 3000)), pd.Series(moved(generator, 700))
    before, now = reference.value_counts(), current.value_counts()
    both = before.index.union(now.index)
    counts = [np.asarray(side.reindex(both).fillna(0), dtype=np.float64) for side in (before, now)]
    found = category_distance(method, counts[0], counts[1])
    assert found is not None
    assert found.value == pytest.approx(evidentlys(method, "category", reference, current), rel=1e-9, abs=1e-7)


LIMITS: dict[str, Any] = {"drift_distance": 0.1, "max_distance": 1.0, "max_null_percent": 5.0, "max_outside_percent": 5.0}
COLUMNS = (
    NumberColumn(name="hour", kind="number", method="wasserstein", minimum=0.0, maximum=24.0, **LIMITS),
    NumberColumn(name="count", kind="number", method="psi", minimum=0.0, maximum=9.0, **LIMITS),
    CategoryColumn(name="carrier", kind="category", method="jensenshannon", categories=None, **LIMITS),
    CategoryColumn(name="weekend", kind="category", method="hellinger", categories=None, **LIMITS),
)


def test_the_page_is_evidentlys_and_takes_nulls_nullable_integers_and_flags() -> None:
    def frame(seed: int) -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        hours = pd.Series(generator.random(200) * 24).where(generator.random(200) > 0.02)
        return pd.DataFrame(
            {
                "hour": hours,
                "count": pd.array([None, *generator.integers(0, 9, 199)], dtype="Int64"),
                "carrier": [None, *generator.choice(["AA", "UA", "</script><script>alert(1)</script>"], 199)],
                "weekend": generator.random(200) < 0.3,
            }
        )

    page = draw_page(frame(1), frame(2), COLUMNS)
    assert "<html" in page[:2000].lower()
    assert os.environ["DO_NOT_TRACK"]
    for column in COLUMNS:
        assert f"Drift in column '{column.name}'" in page, column.name
