"""The real Evidently: the methods stay fixed, every column is measured, and the numbers are what scipy says."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from interlock.adapters.evidently_drift import DriftNumbers, measure_drift
from interlock.control.gates.drift import judge_drift
from interlock.errors import EvidenceError
from interlock.model.verdict import Outcome
from interlock.profile.schema import Drift

COLUMNS = ("hour", "distance", "tiny", "carrier", "weekend")


def frame(seed: int, n: int, shift: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "hour": generator.integers(0, 24, n),
            "distance": generator.normal(1000, 300, n) + 300 * shift,
            "tiny": (generator.normal(0, 1, n) + shift) * 1e-7,
            "carrier": generator.choice(["AA", "UA", "DL"], n),
            "weekend": generator.random(n) < 0.3,
        }
    )


@pytest.mark.parametrize("n", [pytest.param(200, id="few rows"), pytest.param(3000, id="many rows")])
def test_distances_are_scipys_whatever_the_row_count(n: int) -> None:
    reference, current = frame(1, n), frame(2, n, shift=1.0)
    numbers = measure_drift(reference, current, columns=COLUMNS)
    for name in ("hour", "distance", "tiny"):
        expected = wasserstein_distance(reference[name], current[name]) / np.std(reference[name].to_numpy())
        assert numbers.distances[name] == pytest.approx(expected), name
    before, now = (f["carrier"].value_counts(normalize=True).sort_index().to_numpy() for f in (reference, current))
    assert numbers.distances["carrier"] == pytest.approx(jensenshannon(before, now))
    assert numbers.methods == {c: "jensenshannon" if c in {"carrier", "weekend"} else "wasserstein" for c in COLUMNS}
    assert numbers.distances["tiny"] > 0.8, "a column of tiny numbers drifts like any other"
    assert numbers.html_report is None
    assert os.environ["DO_NOT_TRACK"]


def test_the_page_is_evidentlys() -> None:
    numbers = measure_drift(frame(1, 100), frame(2, 100), columns=["distance"], with_html_report=True)
    assert numbers.html_report is not None
    assert b"<html" in numbers.html_report[:2000].lower()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.drop(columns="hour"), id="an absent column"),
        pytest.param(lambda f: f.assign(hour=f["hour"].astype(str)), id="numbers against text"),
        pytest.param(lambda f: f.assign(hour=np.nan), id="nothing but nulls"),
        pytest.param(lambda f: f.assign(hour=np.inf), id="nothing but infinities"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    for reference, current in ((frame(1, 100), change(frame(2, 100))), (change(frame(1, 100)), frame(2, 100))):
        with pytest.raises(EvidenceError):
            measure_drift(reference, current, columns=COLUMNS)


@dataclass(frozen=True)
class Rows:
    frame: pd.DataFrame
    digest: str = "9" * 64


class Model:
    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        return frame["x0"].to_numpy()


def ten(seed: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(0, 1, (800, 10)), columns=[f"x{i}" for i in range(10)])


def spoiled(value: float) -> pd.DataFrame:
    rows = ten(2)
    rows.loc[rows.index % 10 < 6] = value
    return rows.assign(x0=ten(2)["x0"])  # the model's input stays, so that its predictions do


@pytest.mark.parametrize(
    ("current", "outcome"),
    [
        pytest.param(ten(2), Outcome.PASS, id="rows of the same kind pass"),
        pytest.param(ten(2) + np.repeat([0, 5], [6, 4]), Outcome.FAIL, id="4 of 10 columns shifted by 5 sigma fail"),
        pytest.param(spoiled(np.nan), Outcome.FAIL, id="60 percent nulls fail"),
        pytest.param(spoiled(np.inf), Outcome.FAIL, id="60 percent infinities fail"),
        pytest.param(ten(2).drop(columns="x9"), Outcome.INCONCLUSIVE, id="an absent column is not a pass"),
        pytest.param(ten(2).assign(x9=np.nan), Outcome.FAIL, id="a column of nulls fails"),
    ],
)
def test_the_gate_on_the_real_evidently(current: pd.DataFrame, outcome: Outcome) -> None:
    policy = Drift(
        reference="r.parquet",
        current="c.parquet",
        columns=tuple(f"x{i}" for i in range(10)),
        min_row_count=800,
        max_row_count=800,
        max_column_distance=0.5,
        max_drifted_share=0.3,
        max_single_column_distance=8.0,
        max_prediction_distance=0.5,
        max_null_percent=1.0,
    )
    measured: list[DriftNumbers] = []

    def measure(reference: pd.DataFrame, current: pd.DataFrame, *, columns: Sequence[str]) -> DriftNumbers:
        measured.append(measure_drift(reference, current, columns=columns))
        return measured[-1]

    verdict = judge_drift(policy, Rows(ten(1)), Rows(current), candidate=Model(), measure=measure)
    assert verdict.outcome is outcome, verdict.reason
    assert bool(measured) is (outcome is not Outcome.INCONCLUSIVE)
