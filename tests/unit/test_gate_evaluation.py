"""The evaluation gate passes only on present, finite, sufficient evidence that the candidate is good and not worse."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from interlock.control.gates.evaluation import judge_evaluation, required_of_evaluation
from interlock.control.gates.scores import score, worse_by_bounds
from interlock.model.verdict import Measurement, Outcome, Verdict, judge_measurements
from interlock.profile.schema import Evaluation, Metric

N = 400
AUC = Metric(name="roc_auc", better="higher", limit=0.7, max_worse_than_incumbent=0.02)
LOSS = Metric(name="log_loss", better="lower", limit=0.65, max_worse_than_incumbent=0.02)
ACCURACY = Metric(name="accuracy", better="higher", limit=0.6, max_worse_than_incumbent=0.02)
POLICY = Evaluation(data="x.parquet", label_column="late", min_row_count=N, metrics=(AUC, LOSS))


@dataclass(frozen=True)
class Rows:
    frame: pd.DataFrame
    digest: str = "5" * 64


class Model:
    """Answers with the column it was made for, after `change`."""

    def __init__(self, change: Callable[[NDArray[Any]], NDArray[Any]] = lambda answers: answers) -> None:
        self._change = change

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        assert "late" not in frame.columns, "a model must not see the answer"
        return self._change(frame["truth"].to_numpy(dtype=float).copy())


def rows(n: int = N, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    truth = generator.beta(1, 1, n)
    return Rows(pd.DataFrame({"truth": truth, "late": (generator.random(n) < truth).astype(int)}))


def read(verdict: Verdict) -> dict[str, Measurement]:
    return {m.name: m for m in verdict.measurements}


def judge(
    data: Rows | None = None, *, candidate: Model | None = None, incumbent: Model | None = None, policy: Evaluation = POLICY
) -> Verdict:
    return judge_evaluation(policy, data or rows(), candidate=candidate or Model(), incumbent=incumbent or Model())


def spoiled(value: float, count: int = 1) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(answers: NDArray[Any]) -> NDArray[Any]:
        answers[:count] = value
        return answers

    return change


def with_labels(change: Callable[["pd.Series[Any]"], Any]) -> Rows:
    data = rows()
    return Rows(data.frame.assign(late=change(data.frame["late"])))


def test_the_same_model_passes_and_shows_every_number() -> None:
    verdict = judge()
    assert verdict.outcome is Outcome.PASS, verdict.reason
    shown = read(verdict)
    assert list(shown) == ["roc_auc", "roc_auc_worse_by", "log_loss", "log_loss_worse_by", "mean_disagreement"]
    assert shown["roc_auc_worse_by"].value == 0.0
    assert shown["mean_disagreement"].value == 0.0
    assert all(m.sample_count == N and m.min_sample_count == N for m in verdict.measurements)


def test_the_verdict_can_be_recomputed_from_its_measurements() -> None:
    verdict = judge(candidate=Model(lambda p: 1 - p))
    required = required_of_evaluation(POLICY)
    again = judge_measurements("evaluation", [m for m in verdict.measurements if m.name in required], required=required)
    assert (again.outcome, again.reason) == (verdict.outcome, verdict.reason)


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
        m.name for m in verdict.measurements if m.value is not None and (m.value > m.limit if m.better == "lower" else m.value < m.limit)
    }
    assert beyond <= failed


def test_the_bound_decides_not_the_point() -> None:
    noisy = Model(lambda p: np.clip(p + np.random.default_rng(3).normal(0, 0.12, len(p)), 0.001, 0.999))
    data = rows()
    labels, truth = data.frame["late"].to_numpy(dtype=float), data.frame["truth"].to_numpy()
    point = score("roc_auc", labels, truth) - score("roc_auc", labels, noisy.predict(data.frame[["truth"]]))
    policy = POLICY.model_copy(update={"metrics": (AUC.model_copy(update={"max_worse_than_incumbent": point + 0.001}),)})
    verdict = judge(data, candidate=noisy, policy=policy)
    value = read(verdict)["roc_auc_worse_by"].value
    assert value is not None
    assert value > point + 0.001
    assert verdict.outcome is Outcome.FAIL


def test_a_better_candidate_is_worse_by_less_than_nothing() -> None:
    verdict = judge(incumbent=Model(lambda p: 1 - p))
    assert verdict.outcome is Outcome.PASS
    assert (read(verdict)["roc_auc_worse_by"].value or 0) < 0


@pytest.mark.parametrize(
    ("data", "candidate", "incumbent", "reason"),
    [
        pytest.param(None, Model(spoiled(math.nan)), None, "1 of 400 predictions of the candidate", id="one NaN prediction"),
        pytest.param(
            None, None, Model(spoiled(math.nan)), "1 of 400 predictions of the incumbent", id="one NaN prediction of the incumbent"
        ),
        pytest.param(None, Model(spoiled(math.inf, N)), None, "400 of 400", id="nothing but infinities"),
        pytest.param(None, Model(spoiled(1.5)), None, "outside 0 to 1", id="a probability above one"),
        pytest.param(None, Model(lambda p: p[:-1]), None, "shape (399,)", id="one prediction too few"),
        pytest.param(None, Model(lambda p: np.array(["<html>"] * len(p), dtype=object)), None, "found text", id="text instead of numbers"),
        pytest.param(
            with_labels(lambda s: s.astype(float).where(s.index > 0)),
            None,
            None,
            "1 of 400 rows have no usable late",
            id="one missing label",
        ),
        pytest.param(
            with_labels(lambda s: s.astype("Int64").where(s.index > 0)),
            None,
            None,
            "1 of 400 rows",
            id="one missing label of a nullable type",
        ),
        pytest.param(with_labels(lambda s: s * 0), None, None, "found 1 different labels", id="labels of one class"),
        pytest.param(with_labels(lambda s: s.index % 3), None, None, "found 3 different labels", id="three classes for a binary metric"),
        pytest.param(with_labels(lambda s: s.map({0: "no", 1: "yes"})), None, None, "found text", id="labels in words"),
        pytest.param(rows(N - 1), None, None, "399 samples, needs 400", id="one row too few"),
        pytest.param(rows(0), None, None, "no rows", id="no rows"),
        pytest.param(Rows(rows().frame.rename(columns={"late": "tardy"})), None, None, "no column late", id="no label column"),
        pytest.param(Rows(rows().frame.drop(columns="truth")), None, None, "KeyError", id="a model that raises"),
    ],
)
def test_what_cannot_be_judged_is_inconclusive(data: Rows | None, candidate: Model | None, incumbent: Model | None, reason: str) -> None:
    verdict = judge(data, candidate=candidate, incumbent=incumbent)
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.reason
    assert reason in verdict.reason
    if verdict.measurements and "samples" not in reason:
        assert all(m.value is None for m in verdict.measurements if m.name in {"log_loss", "log_loss_worse_by"})


def test_a_single_positive_is_too_few_for_a_bound() -> None:
    verdict = judge(with_labels(lambda s: (s.index == 0).astype(int)), policy=POLICY.model_copy(update={"metrics": (AUC,)}))
    assert verdict.outcome is not Outcome.PASS
    assert not math.isfinite(read(verdict)["roc_auc_worse_by"].value or 0.0)


def test_one_unusable_metric_does_not_hide_that_another_one_failed() -> None:
    verdict = judge(candidate=Model(lambda p: (1 - p) * 1.5))
    assert verdict.outcome is Outcome.FAIL
    assert read(verdict)["log_loss"].value is None
    assert "log_loss needs probabilities" in verdict.reason


def test_labels_in_words_are_judged_by_accuracy() -> None:
    policy = POLICY.model_copy(update={"metrics": (ACCURACY,)})
    data = with_labels(lambda s: s.map({0: "no", 1: "yes"}))
    words = Model(lambda p: np.where(p >= 0.5, "yes", "no").astype(object))
    lazy = Model(lambda p: np.array(["no"] * len(p), dtype=object))
    assert judge(data, candidate=words, incumbent=words, policy=policy).outcome is Outcome.PASS
    beaten = judge(data, candidate=lazy, incumbent=words, policy=policy)
    assert beaten.outcome is Outcome.FAIL
    assert 0.3 < (read(beaten)["mean_disagreement"].value or 0) < 0.7


def test_the_same_data_gives_the_same_numbers_and_other_data_gives_others() -> None:
    noisy = Model(lambda p: np.clip(p + np.random.default_rng(3).normal(0, 0.1, len(p)), 0.001, 0.999))
    first, second = judge(candidate=noisy), judge(candidate=noisy)
    other = judge(Rows(rows().frame, digest="6" * 64), candidate=noisy)
    assert first == second
    assert read(first)["roc_auc_worse_by"] != read(other)["roc_auc_worse_by"]


def test_the_rank_formula_agrees_with_mann_whitney_with_ties() -> None:
    generator = np.random.default_rng(7)
    labels = (generator.random(300) < 0.3).astype(float)
    scores = np.round(generator.random(300) + 0.3 * labels, 1)
    u = stats.mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert score("roc_auc", labels, scores) == pytest.approx(u / (labels.sum() * (1 - labels).sum()))


def test_the_bound_covers_a_known_difference_about_95_times_in_a_hundred() -> None:
    metric = Metric(name="mean_absolute_error", better="lower", limit=9.0, max_worse_than_incumbent=1.0)
    covered = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0.3, 1.0, 150)
        zeros = np.zeros(150)
        candidate, incumbent = np.where(noise > 0, noise, 0.0), np.where(noise < 0, -noise, 0.0)  # |candidate| - |incumbent| = noise
        bounds = worse_by_bounds([metric], zeros, candidate=candidate, incumbent=incumbent, seed=seed)
        covered += bounds["mean_absolute_error"] >= 0.3
    assert 88 <= covered <= 100
    assert covered < 100
