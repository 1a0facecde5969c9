"""The candidates made for the gates are refused whatever the data, the metric and the incumbent: a healthy release is not held by them."""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from interlock.control.comparison import comparison
from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.distances import Divergence
from interlock.control.gates.drift import judge_drift
from interlock.control.gates.evaluation import judge_evaluation
from interlock.control.gates.known_bad import RARE_ROW_COUNT, SomeRows, moved, short_drift, some_labelled
from interlock.control.gates.wrong_answers import Contradicting, wrong_answers
from interlock.control.pairing import PairedOutputs
from interlock.errors import EvidenceError
from interlock.model.signature import ModelOutput
from interlock.model.verdict import Outcome, Verdict
from interlock.profile.gates import HIGHER_IS_BETTER, Column, Drift, Evaluation, Metric, PredictionDrift
from interlock.profile.output import AnyOutput, Output
from tests.worlds import FakeModel, Rows

COUNT = 4000
GENERATOR = np.random.default_rng(0)
COIN = GENERATOR.random(COUNT)
ALTERNATING = np.arange(COUNT) % 2
LABEL: dict[str, Any] = {"type": "label", "comparator": "differs"}
COSTS: dict[str, Any] = {
    "type": "label",
    "comparator": "cost_matrix",
    "labels": ["a", "b", "c"],
    "costs": [[0, 1, 9], [1, 0, 9], [9, 1, 0]],
}
PROBABILITY: dict[str, Any] = {"type": "probability", "comparator": "total_variation"}
ABSOLUTE: dict[str, Any] = {"type": "regression", "comparator": "absolute", "scale_units": 100.0}
EXCEEDS: dict[str, Any] = {"type": "regression", "comparator": "exceeds", "tolerance_units": 5.0, "scale_units": 1.0}
RANKING: dict[str, Any] = {"type": "ranking", "comparator": "rank_biased_overlap", "persistence": 0.9, "depth": 5}
OVERLAP: dict[str, Any] = {"type": "ranking", "comparator": "overlap", "depth": 3}
COSINE: dict[str, Any] = {"type": "embedding", "comparator": "cosine"}
NEIGHBOURS: dict[str, Any] = {"type": "embedding", "comparator": "neighbours"}
TEXT: dict[str, Any] = {"type": "text", "comparator": "token_f1"}
JSON: dict[str, Any] = {"type": "json", "comparator": "fields", "required_fields": [{"name": "n", "holds": "integer"}]}
DOUBLE, TEXTS, LONG = ModelOutput("", "double"), ModelOutput("", "string"), ModelOutput("", "long")
DOUBLES, LONGS, OBJECT = ModelOutput("", "array", items="double"), ModelOutput("", "array", items="long"), ModelOutput("", "object")
LOOSE = {  # limits that hardly any model breaks
    **dict.fromkeys(("roc_auc", "accuracy"), (0.5, 0.2)),
    **dict.fromkeys(("average_precision", "precision", "recall", "f1"), (0.3, 0.2)),
    **dict.fromkeys(("calibration_error", "brier", "distance_to_label"), (0.5, 0.5)),
    **dict.fromkeys(("mean_absolute_error", "root_mean_squared_error"), (50.0, 50.0)),
    "log_loss": (2.0, 1.0),
    "r2": (-5.0, 5.0),
}
OF_PROBABILITIES = ("roc_auc", "average_precision", "log_loss", "brier", "calibration_error", "accuracy", "precision", "recall", "f1")
OF_QUANTITIES = ("mean_absolute_error", "root_mean_squared_error", "r2")


@dataclass(frozen=True)
class Incumbent:
    """It answers row x with its x-th answer."""

    given: list[Any]

    def answers(self, frame: pd.DataFrame) -> list[Any]:
        return [self.given[x] for x in frame["x"]]


def read_output(output: dict[str, Any]) -> AnyOutput:
    parsed: AnyOutput = TypeAdapter(Output).validate_json(json.dumps(output))  # as from a profile
    return parsed


def divergence(output: AnyOutput, layout: ModelOutput) -> Divergence:
    compare = comparison(output, PairedOutputs((layout,), (layout,)).layout(row_count=1))
    return Divergence(compare, 0.05, labels_are_classes=output.type == "probability")


def refused(output: dict[str, Any], layout: ModelOutput, metric: str, labels: Any, given: list[Any]) -> tuple[Verdict, Verdict]:
    """What the gate says about the incumbent itself, and about the model that contradicts the labels."""
    parsed = read_output(output)
    limit, worse = LOOSE[metric]
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    asked = Metric.model_validate({"name": metric, "better": better, "limit": limit, "max_worse_than_incumbent": worse})
    policy = Evaluation(data="x", data_sha256="0" * 64, label_column="y", min_row_count=200, metrics=(asked,), slices=())
    frame = pd.DataFrame({"x": np.arange(len(given)), "y": pd.Series(list(labels), dtype=object if isinstance(labels, list) else None)})
    few, incumbent, alike = some_labelled(Rows(frame), policy), Incumbent(given), divergence(parsed, layout)
    bad = Contradicting(incumbent, few.frame["y"].tolist(), parsed, alike)
    return (
        judge_evaluation(policy, few, candidate=incumbent, incumbent=incumbent, divergence=alike),
        judge_evaluation(policy, few, candidate=bad, incumbent=incumbent, divergence=alike),
    )


def swapped(labels: list[Any], one: Any, other: Any) -> list[Any]:
    """An honest model: right in 97 %."""
    return [(other if label == one else one) if coin < 0.03 else label for label, coin in zip(labels, COIN, strict=True)]


WORDS = ["a" if each else "b" for each in ALTERNATING]
RARE = ["fraud" if coin < 0.02 else "ok" for coin in COIN]
ZERO_ONE = (COIN < 0.3).astype(int)
SIGNAL = [float(value) for value in np.clip(0.3 + 0.3 * ZERO_ONE + GENERATOR.normal(0, 0.1, COUNT), 0, 1)]
CLASS_SHARES = [[0.6 if index == label else 0.2 for index in range(3)] for label in ALTERNATING + ZERO_ONE]
AMOUNT = GENERATOR.normal(20, 3, COUNT)
NEAR = [float(value) for value in AMOUNT + GENERATOR.normal(0, 1, COUNT)]
IDS = [[index, index + 1, index + 2] for index in range(COUNT)]
VECTORS = [[1.0, float(coin)] for coin in COIN]
DOCUMENTS = [{"n": index, "t": "x", "e": [], "o": {"b": True, "z": None}} for index in range(COUNT)]

CASES = [
    *(pytest.param(PROBABILITY, DOUBLE, metric, ZERO_ONE, SIGNAL, id=f"probabilities, {metric}") for metric in OF_PROBABILITIES),
    *(
        pytest.param(ABSOLUTE, DOUBLE, metric, ZERO_ONE, SIGNAL, id=f"probabilities named a quantity, {metric}")
        for metric in OF_PROBABILITIES
    ),
    *(pytest.param(ABSOLUTE, DOUBLE, metric, AMOUNT, NEAR, id=f"quantities, {metric}") for metric in OF_QUANTITIES),
    *(
        pytest.param(LABEL, LONG, metric, ALTERNATING, ALTERNATING.tolist(), id=f"labels 0 and 1, {metric}")
        for metric in ("roc_auc", "accuracy", "f1")
    ),
    pytest.param(ABSOLUTE, DOUBLE, "roc_auc", ZERO_ONE, [9 * value for value in SIGNAL], id="scores"),
    pytest.param(PROBABILITY, DOUBLE, "log_loss", ZERO_ONE, [0.3] * COUNT, id="a constant incumbent"),
    pytest.param(PROBABILITY, DOUBLES, "roc_auc", ZERO_ONE, [[1 - value, value] for value in SIGNAL], id="probabilities of two classes"),
    pytest.param(PROBABILITY, DOUBLE, "brier", ZERO_ONE, [{"p": value} for value in SIGNAL], id="records of one probability"),
    pytest.param(PROBABILITY, DOUBLES, "distance_to_label", ALTERNATING + ZERO_ONE, CLASS_SHARES, id="three classes"),
    pytest.param(LABEL, TEXTS, "accuracy", WORDS, swapped(WORDS, "a", "b"), id="alternating classes"),
    pytest.param(LABEL, TEXTS, "accuracy", RARE, ["ok"] * COUNT, id="a rare class, which the incumbent never says"),
    pytest.param(LABEL, TEXTS, "distance_to_label", RARE, swapped(RARE, "ok", "fraud"), id="a rare class"),
    pytest.param(COSTS, TEXTS, "distance_to_label", WORDS, swapped(WORDS, "a", "b"), id="costs"),
    pytest.param(ABSOLUTE, DOUBLE, "distance_to_label", AMOUNT, NEAR, id="absolute"),
    pytest.param(EXCEEDS, DOUBLE, "distance_to_label", AMOUNT, [[value] for value in NEAR], id="exceeds"),
    *(pytest.param(each, LONGS, "distance_to_label", IDS, IDS, id=each["comparator"]) for each in (RANKING, OVERLAP, NEIGHBOURS)),
    pytest.param(COSINE, DOUBLES, "distance_to_label", VECTORS, VECTORS, id="cosine"),
    pytest.param(TEXT, TEXTS, "distance_to_label", [f"word {x}" for x in range(COUNT)], ["word"] * COUNT, id="texts"),
    pytest.param(JSON, OBJECT, "distance_to_label", DOCUMENTS, DOCUMENTS, id="documents"),
]


@pytest.mark.parametrize(("output", "layout", "metric", "labels", "given"), CASES)
def test_what_contradicts_every_label_is_refused_where_an_honest_model_passes(
    output: dict[str, Any], layout: ModelOutput, metric: str, labels: Any, given: list[Any]
) -> None:
    honest, bad = refused(output, layout, metric, labels, given)
    assert honest.outcome is Outcome.PASS, honest.reason
    assert bad.outcome is Outcome.FAIL, bad.reason
    own = next(m for m in bad.measurements if m.name == metric)
    assert own.bounds is not None
    assert own.bounds.low > own.limit if own.better == "lower" else own.bounds.high < own.limit


@pytest.mark.parametrize(
    ("output", "layout", "label", "answer", "wrong"),
    [
        pytest.param(PROBABILITY, DOUBLE, 1, {"p": 0.7}, {"p": 0.01}, id="a record"),
        pytest.param(PROBABILITY, DOUBLE, Decimal(0), [0.7], [0.99], id="a list, the label a decimal"),
        pytest.param(PROBABILITY, DOUBLES, 2, [0.2, 0.2, 0.6], [0.99, 0.005, 0.005], id="class probabilities"),
        pytest.param(LABEL, TEXTS, "a", {"label": "a"}, {"label": "aqxzqxz"}, id="the only class"),
        pytest.param(LABEL, LONG, True, True, False, id="the only boolean"),
        pytest.param(NEIGHBOURS, LONGS, ["u", "v"], {"ids": ["u"]}, {"ids": ["qxzqxz0", "qxzqxz1"]}, id="ids in a record"),
        pytest.param(JSON, TEXTS, '{"n": 1}', '{"n": 1}', '{"n": 2}', id="a document as text"),
    ],
)
def test_a_wrong_answer_has_the_form_of_the_incumbents(
    output: dict[str, Any], layout: ModelOutput, label: Any, answer: Any, wrong: Any
) -> None:
    parsed = read_output(output)
    found = wrong_answers([label], [answer], output=parsed, divergence=divergence(parsed, layout))
    assert found == [pytest.approx(wrong) if output is PROBABILITY else wrong]


def test_other_rows_than_the_labelled_ones_are_refused() -> None:
    parsed = read_output(PROBABILITY)
    bad = Contradicting(FakeModel(), [0, 1], parsed, divergence(parsed, DOUBLE))
    with pytest.raises(EvidenceError, match="3 rows were asked about, there are 2 labels"):
        bad.answers(pd.DataFrame({"x": [0.1, 0.2, 0.3]}))


def test_no_label_is_lost_among_the_few_rows() -> None:
    labels = np.where(np.arange(50_000) % 1000 == 7, 1, 0)
    asked = Metric(name="accuracy", better="higher", limit=0.5, max_worse_than_incumbent=0.2)
    policy = Evaluation(data="x", data_sha256="0" * 64, label_column="y", min_row_count=200, metrics=(asked,), slices=())
    few = some_labelled(Rows(pd.DataFrame({"y": labels})), policy)
    assert few.frame["y"].sum() == RARE_ROW_COUNT
    assert few.frame.index.max() > 40_000
    assert (few.frame.index % 2).to_numpy().mean() == pytest.approx(0.5, abs=0.1)
    assert 2000 <= len(few.frame) <= 2000 + RARE_ROW_COUNT


def drift_policy(kind: str = "number", *names: str) -> Drift:
    column: dict[str, Any] = {
        "kind": kind,
        "drift_distance": 0.1,
        "max_distance": 0.5,
        "max_null_percent": 30.0,
        "max_outside_percent": 1.0,
    }
    ranged = {"method": "wasserstein", "minimum": 0.0, "maximum": 1e6} if kind == "number" else {"method": "psi", "categories": None}
    return Drift(
        reference="a",
        current="b",
        min_row_count=500,
        sample_row_count=None,
        max_drifted_share=0.3,
        prediction=PredictionDrift(method="wasserstein", max_distance=0.3),
        columns=TypeAdapter(tuple[Column, ...]).validate_python(tuple({**column, **ranged, "name": name} for name in names or ("c",))),
    )


def drift_of(policy: Drift, frame: pd.DataFrame) -> Verdict:
    short = short_drift(policy, frame)
    now = moved(frame, short.columns[0])
    answers = PlainAnswers(read_output(PROBABILITY), FakeModel())
    return judge_drift(short, SomeRows(frame, "5" * 64), SomeRows(now, "5" * 64), answers=answers, confidence=0.95)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        pytest.param("number", pd.Series([Decimal(1), Decimal(2)] * 200), id="decimals"),
        pytest.param("number", pd.Series([1, 2, pd.NA, 4] * 100, dtype=object), id="objects and NA"),
        pytest.param("number", pd.Series([1.0, 2.0] * 200, dtype="category"), id="a category of numbers"),
        pytest.param("number", pd.Series([1, 2, None, 4] * 100, dtype="Int64"), id="nullable whole numbers"),
        pytest.param("number", pd.Series([True, False] * 200), id="booleans"),
        pytest.param("number", pd.Series([1.0, np.inf] * 200), id="infinities"),
        pytest.param("number", pd.Series([None] * 400, dtype=object), id="nothing but nulls"),
        pytest.param("category", pd.Series(["a", "b"] * 200, dtype="category"), id="a category"),
    ],
)
def test_a_moved_column_is_refused_however_pandas_holds_it(kind: str, values: "pd.Series[Any]") -> None:
    found = drift_of(drift_policy(kind), pd.DataFrame({"c": values, "x": COIN[:400]}))
    assert found.outcome is Outcome.FAIL, found.reason


def test_the_first_column_that_the_rows_have_is_moved_and_without_one_its_absence_is_refused() -> None:
    frame = pd.DataFrame({"c": COIN[:400], "x": COIN[:400]})
    found = drift_of(drift_policy("number", "absent", "c"), frame)
    assert "distance of c" in found.reason
    assert found.outcome is Outcome.FAIL
    found = drift_of(drift_policy("number", "absent"), frame)
    assert "absent is absent from the reference rows" in found.reason
    assert found.outcome is Outcome.FAIL
