"""The evaluation gate: candidate and incumbent on the same labelled rows."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import Predictor, Rows, as_numbers, seed_from
from interlock.control.gates.scores import disagreement, flaw, score, worse_by_bounds
from interlock.errors import EvidenceError, NoSamples
from interlock.model.verdict import Measurement, Verdict
from interlock.profile.schema import Evaluation, Metric

GATE = "evaluation"
WORSE_BY = "_worse_by"


def judge_evaluation(policy: Evaluation, rows: Rows, *, candidate: Predictor, incumbent: Predictor) -> Verdict:
    """
    Is the candidate good enough, and not worse than the incumbent, on the same labelled rows?

    Each metric gives two required measurements: the candidate's value against the absolute limit, and `<metric>_worse_by`: the upper
    bound of the difference to the incumbent (paired bootstrap, 500 resamples, one-sided 95 %, seeded by the data's digest)
    against `max_worse_than_incumbent`. The bound is compared, not the point: too few rows can fail a good candidate, never pass a bad one.
    A missing label, an unusable prediction or labels of one class make the value None: INCONCLUSIVE.
    `mean_disagreement` is shown and not judged: how much the canary will see the two differ.
    """
    return judged(GATE, lambda: _judge(policy, rows, candidate=candidate, incumbent=incumbent))


def required_of_evaluation(policy: Evaluation) -> tuple[str, ...]:
    """The names that decide."""
    return tuple(name for metric in policy.metrics for name in (metric.name, metric.name + WORSE_BY))


def _judge(policy: Evaluation, rows: Rows, *, candidate: Predictor, incumbent: Predictor) -> Verdict:
    labels, inputs = _split_labels(rows.frame, policy.label_column)
    answers = {"candidate": _answers(candidate, inputs, "candidate"), "incumbent": _answers(incumbent, inputs, "incumbent")}
    flaws = [
        text for text in (_missing_labels(labels, policy.label_column), *(_missing_answers(who, a) for who, a in answers.items())) if text
    ]
    usable: list[Metric] = []
    for metric in policy.metrics if not flaws else ():
        found = [f"{who}: {text}" for who, a in answers.items() if (text := flaw(metric.name, labels, a)) is not None]
        flaws += found
        if not found:
            usable.append(metric)
    bounds = worse_by_bounds(usable, labels, **answers, seed=seed_from(rows.digest)) if usable else {}
    values: dict[str, float] = {metric.name: score(metric.name, labels, answers["candidate"]) for metric in usable}
    values |= {name + WORSE_BY: bound for name, bound in bounds.items()}
    measurements = [m for metric in policy.metrics for m in _pair(metric, values, policy, len(labels))]
    measurements += _disagreement(policy, answers, len(labels)) if usable else []
    return judge_required(GATE, measurements, required=required_of_evaluation(policy), remarks=dict.fromkeys(flaws))


def _split_labels(frame: pd.DataFrame, label_column: str) -> tuple[NDArray[Any], pd.DataFrame]:
    """The labels, and the rows without them: a model must not be able to read the answer."""
    if frame.empty:
        raise NoSamples("the evaluation data has no rows: check the query that writes it")
    if label_column not in frame.columns:
        raise EvidenceError(f"the evaluation data has no column {label_column}: name the label column in the release profile")
    labels = frame[label_column]
    numbers = as_numbers(labels)
    return labels.to_numpy(dtype=object) if numbers is None else numbers, frame.drop(columns=[label_column])


def _answers(model: Predictor, inputs: pd.DataFrame, who: str) -> NDArray[Any]:
    predicted = np.asarray(model.predict(inputs.copy()))
    if predicted.shape != (len(inputs),):
        raise EvidenceError(f"the {who} gave predictions of shape {predicted.shape} for {len(inputs)} rows: it must give one for each row")
    numbers = as_numbers(predicted)
    return predicted.astype(object) if numbers is None else numbers


def _missing_labels(labels: NDArray[Any], column: str) -> str | None:
    count = _missing_count(labels)
    return f"{count} of {len(labels)} rows have no usable {column}" if count else None


def _missing_answers(who: str, answers: NDArray[Any]) -> str | None:
    count = _missing_count(answers)
    return f"{count} of {len(answers)} predictions of the {who} are missing or not finite" if count else None


def _missing_count(values: NDArray[Any]) -> int:
    return int((~np.isfinite(values)).sum() if values.dtype.kind == "f" else pd.isna(values).sum())


def _pair(metric: Metric, values: dict[str, float], policy: Evaluation, row_count: int) -> tuple[Measurement, Measurement]:
    unit, worse_by = "", metric.name + WORSE_BY
    absolute = Measurement(metric.name, values.get(metric.name), metric.limit, metric.better, unit, row_count, policy.min_row_count)
    relative = Measurement(worse_by, values.get(worse_by), metric.max_worse_than_incumbent, "lower", unit, row_count, policy.min_row_count)
    return absolute, relative


def _disagreement(policy: Evaluation, answers: dict[str, NDArray[Any]], row_count: int) -> list[Measurement]:
    """Nothing for a regression: what counts as different there is the canary's to say."""
    candidate, incumbent = answers["candidate"], answers["incumbent"]
    as_labels = candidate.dtype.kind != "f" or incumbent.dtype.kind != "f"
    if not as_labels and not _are_probabilities(candidate, incumbent):
        if all(metric.name != "accuracy" for metric in policy.metrics):
            return []
        as_labels = True
    value = disagreement(candidate, incumbent, labels_only=as_labels)
    limit = 1.0  # nothing disagrees more
    return [Measurement("mean_disagreement", value if math.isfinite(value) else None, limit, "lower", "", row_count, policy.min_row_count)]


def _are_probabilities(*answers: NDArray[Any]) -> bool:
    return all(bool(((a >= 0) & (a <= 1)).all()) for a in answers)
