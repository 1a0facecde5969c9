"""The evaluation gate passes only on present, finite, sufficient evidence that the candidate is good and not worse."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from interlock.control.gates.distances import Divergence
from interlock.control.gates.evaluation import judge_evaluation, judge_first, required_of_evaluation
from interlock.control.gates.metrics import Side, score
from interlock.control.gates.run import run_evaluation
from interlock.control.gates.slices import read_parts
from interlock.control.gates.stage import read_payloads, read_reference_rows
from interlock.errors import EvidenceError
from interlock.judge.comparators import (
    Layout,
    cosine_comparator,
    document_comparator,
    label_comparator,
    overlap_comparator,
    probability_comparator,
    text_comparator,
)
from interlock.model.verdict import Measurement, Outcome, Verdict, judge_measurements
from interlock.profile.gates import Evaluation, Floor, Metric, Slice
from tests.worlds import Rows as WorldRows
from tests.worlds import World

N = 400
AUC = Metric(name="roc_auc", better="higher", limit=0.7, max_worse_than_incumbent=0.02)
LOSS = Metric(name="log_loss", better="lower", limit=0.65, max_worse_than_incumbent=0.02)
ACCURACY = Metric(name="accuracy", better="higher", limit=0.6, max_worse_than_incumbent=0.05)
DISTANCE = Metric(name="distance_to_label", better="lower", limit=0.32, max_worse_than_incumbent=0.1)
POLICY = Evaluation(data="x.parquet", data_sha256="5" * 64, label_column="late", min_row_count=N, metrics=(AUC, LOSS), slices=())
AIRPORTS = Slice(
    column="airport",
    values=(0, 1.0),
    min_row_count=100,
    metric=Metric(name="log_loss", better="lower", limit=0.68, max_worse_than_incumbent=0.05),
)
SLICED = POLICY.model_copy(update={"slices": (AIRPORTS,)})
PROBABILITIES = Divergence(probability_comparator(layout=Layout(row_count=1)), tolerance=0.1, labels_are_classes=True)


@dataclass(frozen=True)
class Rows:
    frame: pd.DataFrame
    digest: str = "5" * 64


class Model:
    """Answers with the column it was made for, after `change`."""

    def __init__(self, change: Callable[[NDArray[Any]], Any] = lambda answers: answers) -> None:
        self._change = change

    def answers(self, frame: pd.DataFrame) -> list[Any]:
        assert "late" not in frame.columns, "a model must not see the answer"
        answers: list[Any] = np.asarray(self._change(frame["truth"].to_numpy(dtype=float).copy())).tolist()
        return answers


@dataclass(frozen=True)
class Answers:
    """Gives these, whatever it is asked."""

    given: Sequence[Any]

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        return self.given


def rows(n: int = N, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    truth = generator.beta(1, 1, n)
    late = (generator.random(n) < truth).astype(int)
    return Rows(pd.DataFrame({"truth": truth, "late": late, "airport": np.arange(n) % 3}))


def read(verdict: Verdict) -> dict[str, Measurement]:
    return {m.name: m for m in verdict.measurements}


def judge(
    data: Rows | None = None,
    *,
    candidate: Model | Answers | None = None,
    incumbent: Model | Answers | None = None,
    policy: Evaluation = POLICY,
    divergence: Divergence = PROBABILITIES,
) -> Verdict:
    return judge_evaluation(policy, data or rows(), candidate=candidate or Model(), incumbent=incumbent or Model(), divergence=divergence)


def only(*metrics: Metric) -> Evaluation:
    return POLICY.model_copy(update={"metrics": metrics})


def spoiled(value: float, count: int = 1) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(answers: NDArray[Any]) -> NDArray[Any]:
        answers[:count] = value
        return answers

    return change


def noisy(scale: float, where: int | None = None) -> Model:
    """A model whose answers are blurred, of one airport only where one is named."""

    def change(answers: NDArray[Any]) -> NDArray[Any]:
        blurred = np.clip(answers + np.random.default_rng(3).normal(0, scale, len(answers)), 0.001, 0.999)
        return blurred if where is None else np.where(np.arange(len(answers)) % 3 == where, blurred, answers)

    return Model(change)


def with_labels(change: Callable[["pd.Series[Any]"], Any]) -> Rows:
    data = rows()
    return Rows(data.frame.assign(late=change(data.frame["late"])))


def test_the_same_model_passes_and_shows_every_number() -> None:
    verdict = judge()
    assert verdict.outcome is Outcome.PASS, verdict.reason
    shown = read(verdict)
    assert list(shown) == [
        *("roc_auc", "roc_auc_worse_by", "log_loss", "log_loss_worse_by"),
        *("rows_compared", "mean_disagreement", "largest_segment_disagreement"),
    ]
    assert shown["roc_auc_worse_by"].value == 0.0
    assert shown["mean_disagreement"].value == 0.0
    assert all(m.sample_count == N for m in verdict.measurements)
    assert all(m.bounds is not None and m.bounds.confidence_percent == 95 for m in verdict.measurements if m.name != "rows_compared")


def test_t09_every_name_that_decides_is_measured_once_and_has_a_limit() -> None:
    verdict = judge(policy=SLICED)
    for name in required_of_evaluation(SLICED):
        (found,) = (m for m in verdict.measurements if m.name == name)
        assert math.isfinite(found.limit)


def test_the_verdict_can_be_recomputed_from_its_measurements() -> None:
    verdict = judge(candidate=Model(lambda p: 1 - p), policy=SLICED)
    required = required_of_evaluation(SLICED)
    again = judge_measurements("evaluation", [m for m in verdict.measurements if m.name in required], required=required)
    assert again.outcome is verdict.outcome
    assert verdict.reason.startswith(again.reason)


@pytest.mark.parametrize(
    ("candidate", "beyond"),
    [
        pytest.param(
            Model(lambda p: 1 - p), {"roc_auc", "roc_auc_worse_by", "log_loss", "log_loss_worse_by"}, id="a reversed model fails everything"
        ),
        pytest.param(
            Model(lambda p: np.random.default_rng(1).permutation(p)),
            {"roc_auc", "roc_auc_worse_by", "log_loss", "log_loss_worse_by"},
            id="a permuted model fails though its answers are distributed alike",
        ),
        pytest.param(
            Model(lambda p: np.clip(p, 0.35, 0.65)), {"log_loss_worse_by"}, id="good enough alone, worse than the incumbent, fails"
        ),
    ],
)
def test_a_worse_candidate_fails(candidate: Model, beyond: set[str]) -> None:
    verdict = judge(candidate=candidate)
    assert verdict.outcome is Outcome.FAIL
    failed = {
        m.name for m in verdict.measurements if m.bounds and (m.bounds.low > m.limit if m.better == "lower" else m.bounds.high < m.limit)
    }
    assert beyond <= failed


def test_the_bounds_decide_not_the_point() -> None:
    data, candidate = rows(), noisy(0.12)
    labels, truth = data.frame["late"].to_numpy(dtype=float), data.frame["truth"].to_numpy()
    none = np.full(N, np.nan)
    point = score("roc_auc", Side(labels, truth, none)) - score(
        "roc_auc", Side(labels, np.array(candidate.answers(data.frame[["truth"]])), none)
    )

    def outcome(max_worse: float) -> Outcome:
        return judge(data, candidate=candidate, policy=only(AUC.model_copy(update={"max_worse_than_incumbent": max_worse}))).outcome

    assert outcome(point + 0.001) is Outcome.INCONCLUSIVE
    assert outcome(point - 0.001) is Outcome.INCONCLUSIVE
    assert outcome(point + 0.03) is Outcome.PASS
    assert outcome(0.0) is Outcome.FAIL


def test_an_absolute_floor_is_judged_by_the_candidate_s_own_bounds() -> None:
    own = read(judge())["roc_auc"]
    assert own.value is not None
    assert own.bounds is not None
    for limit, outcome in (
        (own.bounds.low - 0.001, Outcome.PASS),
        (own.value - 0.001, Outcome.INCONCLUSIVE),
        (own.bounds.high + 0.001, Outcome.FAIL),
    ):
        assert judge(policy=only(AUC.model_copy(update={"limit": limit}))).outcome is outcome


def test_a_better_candidate_is_worse_by_less_than_nothing() -> None:
    verdict = judge(incumbent=Model(lambda p: 1 - p))
    assert verdict.outcome is Outcome.PASS
    assert (read(verdict)["roc_auc_worse_by"].value or 0) < 0


UNUSABLE = [
    pytest.param(None, Model(spoiled(math.nan)), None, "1 of 400 predictions of the candidate", id="one NaN prediction"),
    pytest.param(None, None, Model(spoiled(math.nan)), "1 of 400 predictions of the incumbent", id="one NaN prediction of the incumbent"),
    pytest.param(None, Answers([None] * N), None, "400 of 400 predictions of the candidate", id="nothing but nulls"),
    pytest.param(None, Model(spoiled(math.inf, N)), None, "400 of 400", id="nothing but infinities"),
    pytest.param(None, Model(spoiled(1.5)), None, "outside 0 to 1", id="a probability above one"),
    pytest.param(None, Model(lambda p: p[:-1]), None, "399 predictions for 400 rows", id="one prediction too few"),
    pytest.param(None, Answers([]), None, "0 predictions for 400 rows", id="no prediction"),
    pytest.param(None, Answers(["<html>"] * N), None, "found text", id="t06 an error page instead of numbers"),
    pytest.param(
        with_labels(lambda s: s.astype(float).where(s.index > 0)), None, None, "1 of 400 rows have no usable late", id="one missing label"
    ),
    pytest.param(
        with_labels(lambda s: s.astype("Int64").where(s.index > 0)), None, None, "1 of 400 rows", id="one missing label of a nullable type"
    ),
    pytest.param(with_labels(lambda s: s * 0), None, None, "found 1 different labels", id="labels of one class"),
    pytest.param(with_labels(lambda s: s.index % 3), None, None, "found 3 different labels", id="three classes for a binary metric"),
    pytest.param(with_labels(lambda s: s.map({0: "no", 1: "yes"})), None, None, "found text", id="labels in words"),
    pytest.param(rows(N - 1), None, None, "399 samples, needs 400", id="one row too few"),
    pytest.param(rows(0), None, None, "no rows", id="no rows"),
    pytest.param(Rows(rows().frame.rename(columns={"late": "tardy"})), None, None, "no column late", id="no label column"),
    pytest.param(Rows(rows().frame.drop(columns="truth")), None, None, "KeyError", id="t05 a model that raises"),
]


@pytest.mark.parametrize(("data", "candidate", "incumbent", "reason"), UNUSABLE)
def test_what_cannot_be_judged_is_inconclusive(data: Rows | None, candidate: Any, incumbent: Any, reason: str) -> None:
    verdict = judge(data, candidate=candidate, incumbent=incumbent)
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.reason
    assert reason in verdict.reason
    if verdict.measurements and "samples" not in reason:
        assert all(m.value is None for m in verdict.measurements if m.name in {"log_loss", "log_loss_worse_by"})


@pytest.mark.parametrize("who", ["candidate", "incumbent", "both"])
def test_f22_a_nan_metric_of_either_model_never_passes(who: str) -> None:
    """A model that never says yes has no precision. Comparing with NaN is False, which others take for "not worse"."""
    precision = Metric(name="precision", better="higher", limit=0.0, max_worse_than_incumbent=1.0)
    shy = Model(lambda p: p * 0.4)
    models = {"candidate": (shy, Model()), "incumbent": (Model(), shy), "both": (shy, shy)}[who]
    verdict = judge(candidate=models[0], incumbent=models[1], policy=only(precision))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert read(verdict)["precision_worse_by"].value is None


def test_a_single_positive_is_too_few_for_a_bound() -> None:
    verdict = judge(with_labels(lambda s: (s.index == 0).astype(int)), policy=only(AUC))
    assert verdict.outcome is not Outcome.PASS
    bounds = read(verdict)["roc_auc"].bounds
    assert bounds is not None
    assert math.isnan(bounds.low)


def test_one_unusable_metric_does_not_hide_that_another_one_failed() -> None:
    verdict = judge(candidate=Model(lambda p: (1 - p) * 1.5))
    assert verdict.outcome is Outcome.FAIL
    assert read(verdict)["log_loss"].value is None
    assert "log_loss needs probabilities" in verdict.reason


def test_an_answer_that_the_canary_could_not_compare_does_not_pass() -> None:
    verdict = judge(candidate=Model(lambda p: p * 2), incumbent=Model(lambda p: p * 2), policy=only(AUC))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert read(verdict)["rows_compared"].value is None
    assert read(verdict)["mean_disagreement"].value is None
    assert read(verdict)["roc_auc"].value is not None


def test_labels_in_words_are_judged_by_accuracy() -> None:
    data, divergence = with_labels(lambda s: s.map({0: "no", 1: "yes"})), Divergence(label_comparator(), 0.1)
    words = Model(lambda p: np.where(p >= 0.5, "yes", "no"))
    lazy = Answers(["no"] * N)
    assert judge(data, candidate=words, incumbent=words, policy=only(ACCURACY), divergence=divergence).outcome is Outcome.PASS
    beaten = judge(data, candidate=lazy, incumbent=words, policy=only(ACCURACY), divergence=divergence)
    assert beaten.outcome is Outcome.FAIL
    assert 0.3 < (read(beaten)["mean_disagreement"].value or 0) < 0.7


def test_the_same_data_gives_the_same_numbers_and_other_data_gives_others() -> None:
    first, second = judge(candidate=noisy(0.1)), judge(candidate=noisy(0.1))
    other = judge(Rows(rows().frame, digest="6" * 64), candidate=noisy(0.1))
    assert first == second
    assert read(first)["roc_auc_worse_by"].bounds != read(other)["roc_auc_worse_by"].bounds


def test_each_named_slice_and_the_worst_of_all_are_judged() -> None:
    verdict = judge(policy=SLICED)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    names = [m.name for m in verdict.measurements]
    assert names[4:12] == [
        *("log_loss of airport=0", "log_loss_worse_by of airport=0", "log_loss of airport=1", "log_loss_worse_by of airport=1"),
        *("log_loss of airport=2", "log_loss_worse_by of airport=2"),
        *("worst log_loss of airport", "worst log_loss_worse_by of airport"),
    ]
    assert {"disagreement of airport=0", "disagreement of airport=2"} <= set(names)
    assert "log_loss of airport=2" not in required_of_evaluation(SLICED)


def test_a_candidate_that_is_bad_in_one_named_slice_only_fails_there() -> None:
    verdict = judge(
        candidate=noisy(0.8, where=1),
        policy=SLICED.model_copy(update={"metrics": (LOSS.model_copy(update={"limit": 2.0, "max_worse_than_incumbent": 2.0}),)}),
    )
    assert verdict.outcome is Outcome.FAIL
    assert "log_loss of airport=1" in verdict.reason
    assert "log_loss of airport=0 " not in verdict.reason


def test_a_candidate_that_is_bad_in_a_slice_that_nobody_named_fails_by_the_worst() -> None:
    candidate, lax = noisy(0.8, where=2), LOSS.model_copy(update={"limit": 2.0, "max_worse_than_incumbent": 2.0})
    verdict = judge(candidate=candidate, policy=SLICED.model_copy(update={"metrics": (lax,)}))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith("evaluation: worst log_loss of airport")
    assert read(verdict)["worst log_loss of airport"].sample_count == 133


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"airport": 2}, "log_loss of airport=0 has no usable value", id="no row with the named value"),
        pytest.param({"airport": np.where(np.arange(N) < 99, 0, 1)}, "log_loss of airport=0 has 99 samples, needs 100", id="too few rows"),
        pytest.param({"airport": None}, "log_loss of airport=0 has no usable value", id="nothing but nulls"),
        pytest.param({"airport": "0"}, "log_loss of airport=1 has no usable value", id="another value only"),
    ],
)
def test_an_empty_or_too_small_named_slice_is_inconclusive(change: dict[str, Any], reason: str) -> None:
    verdict = judge(Rows(rows().frame.assign(**change)), policy=SLICED)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert reason in verdict.reason


def test_data_without_the_column_of_a_slice_is_inconclusive() -> None:
    verdict = judge(Rows(rows().frame.drop(columns="airport")), policy=SLICED)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "worst log_loss of airport has no usable value" in verdict.reason


def test_a_slice_with_labels_of_one_class_is_inconclusive() -> None:
    data = rows().frame
    ranked = AIRPORTS.model_copy(update={"metric": AUC})
    one_class = Rows(data.assign(late=data["late"].where(data["airport"] != 2, 0)))
    verdict = judge(one_class, policy=POLICY.model_copy(update={"slices": (ranked,)}))
    assert verdict.outcome is not Outcome.PASS
    assert "found 1 different labels of airport=2" in verdict.reason


def test_a_slice_of_one_class_is_measured_by_what_is_defined_on_it() -> None:
    frame = rows().frame
    calm = frame["airport"] == 2
    data = Rows(frame.assign(late=frame["late"].where(~calm, 0), truth=frame["truth"].where(~calm, 0.01)))
    verdict = judge(data, policy=SLICED)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert read(verdict)["log_loss of airport=2"].value == pytest.approx(-math.log(0.99))


def ranked_by_few(position: str) -> Verdict:
    """A named slice that is ranked well, and another one with three positives, first or last in the order of the parts."""
    generator = np.random.default_rng(5)
    labels = np.r_[np.ones(150), np.zeros(450), np.ones(3), np.zeros(597)]
    truth = np.where(labels == 1, generator.beta(4, 2, 1200), generator.beta(2, 4, 1200))
    truth[600:603] = [0.97, 0.97, 0.96]
    frame = pd.DataFrame({"late": labels, "truth": truth, "air": ["m"] * 600 + [position] * 600})
    auc = AUC.model_copy(update={"max_worse_than_incumbent": 0.9})
    named = Slice(column="air", values=("m",), min_row_count=500, metric=auc)
    return judge(Rows(frame), policy=POLICY.model_copy(update={"metrics": (auc,), "slices": (named,)}))


@pytest.mark.parametrize("position", ["a", "z"])
def test_a_slice_without_bounds_is_not_left_out_of_the_worst(position: str) -> None:
    verdict = ranked_by_few(position)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert read(verdict)["worst roc_auc of air"].value is None
    assert f"roc_auc: too few rows of one class (n=3) of air={position}" in verdict.reason
    assert "nan" not in verdict.reason


@pytest.mark.parametrize("twins", [("null", None), ("1", 1), ("2", 2.0)])
def test_values_of_a_slice_that_read_alike_are_one_part(twins: tuple[Any, Any]) -> None:
    values = pd.Series([*[twins[0]] * 150, *[twins[1]] * 50, *["JFK"] * 200], dtype=object)
    parts = read_parts(pd.DataFrame({"airport": values}), AIRPORTS.model_copy(update={"values": ("JFK",)}))
    assert [len(part.rows) for part in parts] == [200, 200]
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(400))


@pytest.mark.parametrize("beyond", [1.0000000000000002, 1.0000005, -1e-9])
def test_a_probability_that_rounding_moved_past_the_end_is_that_end(beyond: float) -> None:
    policy = only(AUC, LOSS, ACCURACY, LOSS.model_copy(update={"name": "brier"}), LOSS.model_copy(update={"name": "calibration_error"}))
    moved, clipped = (judge(candidate=Model(spoiled(value)), policy=policy) for value in (beyond, min(max(beyond, 0.0), 1.0)))
    for name in ("log_loss", "accuracy", "brier", "calibration_error"):
        assert read(moved)[name].value == read(clipped)[name].value
        assert read(moved)[name].bounds == read(clipped)[name].bounds


def test_identifiers_beyond_the_exact_floats_are_compared_exactly() -> None:
    right = [10**18 + 128 * (index % 2) for index in range(N)]
    wrong = [number + 1 for number in right]
    data, divergence = with_labels(lambda _: right), Divergence(label_comparator(layout=Layout(row_count=1)), 0.1)
    asked: dict[str, Any] = {"policy": only(ACCURACY), "divergence": divergence}
    assert judge(data, candidate=Answers(right), incumbent=Answers(right), **asked).outcome is Outcome.PASS
    failed = judge(data, candidate=Answers(wrong), incumbent=Answers(right), **asked)
    assert failed.outcome is Outcome.FAIL
    assert read(failed)["accuracy"].value == 0.0


@pytest.mark.parametrize("labels", [lambda s: s.astype("category"), lambda s: s.map({0: False, 1: True}).astype("category")])
def test_labels_of_a_categorical_column_are_what_they_stand_for(labels: Callable[["pd.Series[Any]"], Any]) -> None:
    assert judge(with_labels(labels)) == judge()


def test_a_categorical_column_may_lack_a_label() -> None:
    verdict = judge(with_labels(lambda s: s.where(s.index > 0).astype("category")))
    assert "1 of 400 rows have no usable late" in verdict.reason


@pytest.mark.parametrize("change", [{"min_row_count": 99}, {"slices": [{**AIRPORTS.model_dump(), "min_row_count": 99}]}])
def test_a_profile_cannot_ask_for_bounds_of_fewer_than_100_rows(change: dict[str, Any]) -> None:
    given = {**SLICED.model_dump(mode="json"), **change}
    with pytest.raises(ValueError, match="greater than or equal to 100"):
        Evaluation.model_validate_json(json.dumps(given))


def test_the_envelope_is_the_largest_disagreement_and_says_when_the_canary_would_halt() -> None:
    verdict = judge(candidate=noisy(0.6, where=2), policy=SLICED)
    shown = read(verdict)
    assert shown["largest_segment_disagreement"].value == shown["disagreement of airport=2"].value
    assert (shown["largest_segment_disagreement"].value or 0) > 0.1 > (shown["disagreement of airport=0"].value or 0)
    assert "(disagreement of airport=2), the canary tolerates 0.1" in verdict.reason
    assert "tolerates" not in judge(policy=SLICED).reason
    assert "tolerates" not in judge(candidate=noisy(0.6, where=2), policy=SLICED, divergence=replace(PROBABILITIES, tolerance=0.5)).reason


RIGHT, WRONG = [True] * 300 + [False] * 100, [True] * 100 + [False] * 300


@pytest.mark.parametrize(
    ("compare", "label", "right", "wrong"),
    [
        pytest.param(overlap_comparator(depth=3, layout=Layout(True, 1)), ["a", "b", "c"], ["c", "a", "b"], ["x", "y", "z"], id="rankings"),
        pytest.param(cosine_comparator(layout=Layout(True, 1)), [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], id="embeddings"),
        pytest.param(text_comparator(layout=Layout(False, 1)), "the gate is held", "The gate is held", "no", id="texts"),
        pytest.param(
            document_comparator({"late": "boolean"}, layout=Layout(False, 1)),
            {"late": True},
            {"late": True},
            {"late": False},
            id="documents",
        ),
        pytest.param(
            document_comparator({"late": "boolean"}, layout=Layout(False, 1)),
            '{"late": true}',
            '{"late": true}',
            '{"late": false}',
            id="documents as texts",
        ),
        pytest.param(label_comparator(layout=Layout(False, 1)), "late", {"label": "late"}, {"label": "in time"}, id="labels in records"),
        pytest.param(
            probability_comparator(layout=Layout(True, 1)), 2, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], id="probabilities of three classes"
        ),
    ],
)
def test_any_type_of_answer_is_judged_by_its_distance_to_the_label(compare: Any, label: Any, right: Any, wrong: Any) -> None:
    labels: Any = pd.Series([label] * N)
    data = Rows(rows().frame.assign(late=labels))
    good, bad = (Answers([right if hit else wrong for hit in hits]) for hits in (RIGHT, WRONG))
    divergence = Divergence(compare, 0.1, labels_are_classes=True)
    passed = judge(data, candidate=good, incumbent=good, policy=only(DISTANCE), divergence=divergence)
    failed = judge(data, candidate=bad, incumbent=good, policy=only(DISTANCE), divergence=divergence)
    assert passed.outcome is Outcome.PASS, passed.reason
    assert read(passed)["distance_to_label"].value == pytest.approx(0.25)
    assert failed.outcome is Outcome.FAIL
    assert read(failed)["distance_to_label_worse_by"].value == pytest.approx(0.5)


def test_an_answer_or_label_that_the_comparator_cannot_read_has_no_distance() -> None:
    divergence = Divergence(overlap_comparator(depth=3, layout=Layout(True, 1)), 0.1)
    labels: Any = pd.Series([["a", "b", "c"]] * N)
    good: list[Any] = [["a", "b", "c"]] * N
    for data, candidate in (
        (Rows(rows().frame.assign(late=labels)), Answers([[None], *good[1:]])),
        (Rows(rows().frame.assign(late=pd.Series([[None], *good[1:]]))), Answers(good)),
    ):
        verdict = judge(data, candidate=candidate, incumbent=Answers(good), policy=only(DISTANCE), divergence=divergence)
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert "1 of 400 rows have no answer and label" in verdict.reason


@pytest.mark.parametrize("form", [lambda p: [p], lambda p: {"late": p}, lambda p: [1 - p, p], lambda p: {"no": 1 - p, "yes": p}])
def test_the_form_of_an_answer_does_not_change_its_metrics(form: Callable[[float], Any]) -> None:
    truth = [float(p) for p in rows().frame["truth"]]
    wrapped = Answers([form(p) for p in truth])
    divergence = Divergence(probability_comparator(layout=Layout(True, 1)), 0.1, labels_are_classes=True)
    policy = only(AUC, DISTANCE.model_copy(update={"limit": 1.0}))
    plain = read(judge(policy=policy))
    found = read(judge(candidate=wrapped, incumbent=wrapped, policy=policy, divergence=divergence))
    for name in ("roc_auc", "distance_to_label"):
        assert found[name].value == pytest.approx(plain[name].value)


def test_a_first_version_is_judged_by_its_own_values() -> None:
    def outcome(*floors: Floor, model: Any = None) -> Verdict:
        return judge_first(POLICY, floors, rows(), candidate=model or Model(), divergence=PROBABILITIES)

    good = outcome(Floor(name="roc_auc", better="higher", limit=0.7), Floor(name="log_loss", better="lower", limit=0.65))
    assert good.outcome is Outcome.PASS, good.reason
    assert [m.name for m in good.measurements] == ["roc_auc", "log_loss"]
    assert outcome(Floor(name="roc_auc", better="higher", limit=0.99)).outcome is Outcome.FAIL
    assert outcome(Floor(name="roc_auc", better="higher", limit=0.1), model=Model(spoiled(math.nan))).outcome is Outcome.INCONCLUSIVE


def test_other_bytes_than_the_profile_names_are_no_evidence() -> None:
    world = World()
    session = world.session()
    assert run_evaluation(session).outcome is Outcome.PASS
    tampered = WorldRows(rows().frame, digest="6" * 64)
    services = replace(session.services, read_rows=lambda _: tampered)
    verdict = run_evaluation(replace(session, services=services))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "5" * 64 in verdict.reason
    assert "6" * 64 in verdict.reason
    with pytest.raises(EvidenceError, match="SHA-256"):
        read_payloads(replace(session, services=services))


def test_the_reference_of_the_drift_gate_may_be_what_the_candidate_s_own_run_logged() -> None:
    session = World().session()
    gates = session.profile.gates
    drift = gates.drift.model_copy(update={"reference": "candidate:training"})
    profile = session.profile.model_copy(update={"gates": gates.model_copy(update={"drift": drift})})
    asked: list[tuple[str, str]] = []

    def read_training_rows(name: str, version: str) -> WorldRows:
        asked.append((name, version))
        return WorldRows(rows().frame)

    services = replace(session.services, read_training_rows=read_training_rows)
    own = replace(session, services=services, loaded=replace(session.loaded, profile=profile))
    assert len(read_reference_rows(own).frame) == N
    assert asked == [("late", "2")]
    assert read_reference_rows(session).source == "fake"
