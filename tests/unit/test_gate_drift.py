"""The drift gate sees what Evidently's stock preset calls a success: nulls, infinities, absent columns, shifted columns (F23)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from interlock.control.gates.drift import REQUIRED, judge_drift
from interlock.model.verdict import Measurement, Outcome, Verdict, judge_measurements
from interlock.profile.schema import Drift

N = 500
COLUMNS = tuple(f"x{i}" for i in range(10))
POLICY = Drift(
    reference="r.parquet",
    current="c.parquet",
    columns=COLUMNS,
    min_row_count=400,
    max_row_count=1000,
    max_column_distance=0.5,
    max_drifted_share=0.3,
    max_single_column_distance=8.0,
    max_prediction_distance=0.5,
    max_null_percent=1.0,
)


@dataclass(frozen=True)
class Rows:
    frame: pd.DataFrame
    digest: str = "7" * 64


@dataclass(frozen=True)
class Reading:
    distances: Mapping[str, float]


def measured(reference: pd.DataFrame, current: pd.DataFrame, *, columns: Sequence[str]) -> Reading:
    """What Evidently's normed Wasserstein distance is."""
    return Reading({c: _distance(reference[c].to_numpy(), current[c].to_numpy()) for c in columns})


def _distance(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    reference, current = reference[np.isfinite(reference)], current[np.isfinite(current)]
    return float(wasserstein_distance(reference, current)) / max(float(np.std(reference)), 0.001)


class Model:
    def __init__(self, answer: Callable[[pd.DataFrame], Any] = lambda frame: frame["x9"].to_numpy()) -> None:
        self._answer = answer

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        return np.asarray(self._answer(frame))


def rows(seed: int, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame, n: int = N) -> Rows:
    generator = np.random.default_rng(seed)
    return Rows(change(pd.DataFrame({name: generator.normal(10, 2, n) for name in COLUMNS})))


def shifted(count: int, sigmas: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**{name: frame[name] + 2 * sigmas for name in COLUMNS[:count]})


def spoiled(value: float, percent: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(x3=frame["x3"].where(frame.index % 100 >= percent, value))


def judge(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame, **given: Any) -> Verdict:
    arguments: dict[str, Any] = {
        "reference": rows(1),
        "current": rows(2, change),
        "policy": POLICY,
        "candidate": Model(),
        "measure": measured,
    }
    arguments |= given
    policy, reference, current = (arguments.pop(name) for name in ("policy", "reference", "current"))
    return judge_drift(policy, reference, current, **arguments)


def read(verdict: Verdict) -> dict[str, Measurement]:
    return {m.name: m for m in verdict.measurements}


def test_rows_of_the_same_kind_pass_and_show_every_column() -> None:
    verdict = judge()
    assert verdict.outcome is Outcome.PASS, verdict.reason
    shown = read(verdict)
    assert set(REQUIRED) | {f"distance of {name}" for name in COLUMNS} == set(shown)
    assert (shown["distance of x4"].limit, shown["distance of x4"].sample_count) == (0.5, N)
    assert shown["columns_measured"].value == 10


@pytest.mark.parametrize(
    ("change", "outcome", "reason"),
    [
        pytest.param(spoiled(math.nan, 60), Outcome.FAIL, "x3 is null in 60 % of current rows", id="60 percent nulls fail"),
        pytest.param(spoiled(math.inf, 60), Outcome.FAIL, "x3 is infinite in 300 current rows", id="60 percent infinities fail"),
        pytest.param(spoiled(-math.inf, 1), Outcome.FAIL, "x3 is infinite in 5 current rows", id="1 percent negative infinities fail"),
        pytest.param(spoiled(math.nan, 100), Outcome.FAIL, "columns_measured 9 < 10", id="a column of nulls fails"),
        pytest.param(shifted(4, 5.0), Outcome.FAIL, "drifted_share 0.4 > 0.3", id="4 of 10 columns shifted by 5 sigma fail"),
        pytest.param(shifted(1, 5.0), Outcome.PASS, "drifted_share 0.1", id="one drifted column alone passes"),
        pytest.param(shifted(1, 9.0), Outcome.FAIL, "largest_column_distance", id="one column in another unit fails"),
        pytest.param(lambda f: f.assign(x3=10.0), Outcome.FAIL, "x3 is stuck on one value", id="a feed stuck on its mean fails"),
        pytest.param(lambda f: f.drop(columns="x3"), Outcome.INCONCLUSIVE, "exactly one column x3", id="an absent column is not a pass"),
        pytest.param(
            lambda f: f.assign(x3=f["x3"].astype(str)), Outcome.INCONCLUSIVE, "no numbers in column x3", id="numbers as text are not a pass"
        ),
        pytest.param(lambda f: f.head(399), Outcome.INCONCLUSIVE, "399 samples, needs 400", id="one row too few is not a pass"),
        pytest.param(lambda f: f.head(0), Outcome.INCONCLUSIVE, "no rows", id="no rows are not a pass"),
    ],
)
def test_current_rows_are_judged(change: Callable[[pd.DataFrame], pd.DataFrame], outcome: Outcome, reason: str) -> None:
    verdict = judge(change)
    assert verdict.outcome is outcome, verdict.reason
    assert reason in verdict.reason


def test_a_spoiled_reference_does_not_pass_either() -> None:
    assert judge(reference=rows(1, spoiled(math.nan, 60))).outcome is Outcome.FAIL
    assert judge(reference=rows(1, lambda f: f.drop(columns="x3"))).outcome is Outcome.INCONCLUSIVE


def test_nulls_within_the_limit_pass() -> None:
    assert judge(spoiled(math.nan, 1)).outcome is Outcome.PASS


def test_nullable_integers_are_numbers() -> None:
    def whole(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(x3=frame["x3"].round().astype("Int64"))

    assert judge(whole, reference=rows(1, whole)).outcome is Outcome.PASS


def test_a_constant_that_changed_counts_as_drifted_however_little() -> None:
    def constant(value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return lambda frame: frame.assign(**dict.fromkeys(COLUMNS[:4], value))

    assert judge(constant(0.0), reference=rows(1, constant(0.0))).outcome is Outcome.PASS
    assert "drifted_share 0.4" in judge(constant(1e-5), reference=rows(1, constant(0.0))).reason


@pytest.mark.parametrize(
    ("candidate", "outcome"),
    [
        pytest.param(
            Model(lambda f: f["x0"] * 0 + np.random.default_rng(len(f)).random(len(f))), Outcome.PASS, id="steady predictions pass"
        ),
        pytest.param(Model(lambda f: f["x0"].to_numpy() ** 3), Outcome.FAIL, id="predictions that moved fail though columns did not"),
        pytest.param(Model(lambda f: f["x0"].where(f.index > 0).to_numpy()), Outcome.INCONCLUSIVE, id="one nan prediction is not a pass"),
        pytest.param(Model(lambda f: f["x0"].to_numpy() * math.inf), Outcome.INCONCLUSIVE, id="infinite predictions are not a pass"),
        pytest.param(Model(lambda f: f["x0"].to_numpy()[1:]), Outcome.INCONCLUSIVE, id="one prediction too few is not a pass"),
        pytest.param(Model(lambda f: f["absent"].to_numpy()), Outcome.INCONCLUSIVE, id="a candidate that raises is not a pass"),
    ],
)
def test_predictions_are_judged(candidate: Model, outcome: Outcome) -> None:
    verdict = judge(shifted(1, 2.0), candidate=candidate)
    assert verdict.outcome is outcome, verdict.reason


def without(name: str) -> Any:
    def measure(reference: pd.DataFrame, current: pd.DataFrame, *, columns: Sequence[str]) -> Reading:
        full = measured(reference, current, columns=columns)
        return Reading({key: value for key, value in full.distances.items() if key != name})

    return measure


def with_value(name: str, value: float) -> Any:
    def measure(reference: pd.DataFrame, current: pd.DataFrame, *, columns: Sequence[str]) -> Reading:
        return Reading({**measured(reference, current, columns=columns).distances, name: value})

    return measure


@pytest.mark.parametrize(
    ("measure", "outcome"),
    [
        pytest.param(without("x3"), Outcome.FAIL, id="a column that was quietly skipped is noticed"),
        pytest.param(with_value("x3", math.nan), Outcome.FAIL, id="a distance of nan is no measurement"),
        pytest.param(without("prediction"), Outcome.INCONCLUSIVE, id="predictions that were not measured are not a pass"),
        pytest.param(lambda *_, **__: Reading({}), Outcome.FAIL, id="a measure that measures nothing is noticed"),
        pytest.param(lambda *_, **__: 1 / 0, Outcome.INCONCLUSIVE, id="a measure that raises is not a pass"),
    ],
)
def test_every_column_must_really_have_been_measured(measure: Any, outcome: Outcome) -> None:
    assert judge(measure=measure).outcome is outcome


def test_large_data_is_sampled_the_same_way_every_time_and_says_so() -> None:
    large = rows(2, n=3000)
    first, second = judge(current=large), judge(current=large)
    assert first == second
    assert first.outcome is Outcome.PASS
    assert "distances on 1000 of 3000 current rows" in first.reason


def test_nulls_are_counted_on_all_rows_not_on_the_sample() -> None:
    large = rows(2, lambda f: f.assign(x3=f["x3"].where(f.index >= 60)), n=3000)
    assert read(judge(current=large))["null_percent"].value == pytest.approx(2.0)


def test_the_verdict_can_be_recomputed_from_its_measurements() -> None:
    verdict = judge(shifted(4, 5.0))
    again = judge_measurements("drift", [m for m in verdict.measurements if m.name in REQUIRED], required=REQUIRED)
    assert (again.outcome, again.reason) == (verdict.outcome, verdict.reason)


def test_a_column_called_prediction_is_not_mistaken_for_the_predictions() -> None:
    def named(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.rename(columns={"x0": "prediction"})

    policy = POLICY.model_copy(update={"columns": ("prediction", *COLUMNS[1:])})
    moved = rows(2, lambda f: named(f.assign(x0=f["x0"] + 4)))
    shown = read(judge(policy=policy, reference=rows(1, named), current=moved))
    assert (shown["distance of prediction"].value or 0) > 1.5
    assert (shown["prediction_distance"].value or 1) < 0.5
