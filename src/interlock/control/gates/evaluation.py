"""The evaluation gate: candidate and incumbent on the same labelled rows, as a whole and in every slice that the profile names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.control.gates.distances import Divergence, are_beyond_floats, as_texts, as_values, distances, label_texts
from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.envelope import envelope_remark, measure_envelope
from interlock.control.gates.inputs import Answerer, Rows, as_numbers, seed_from
from interlock.control.gates.metrics import DISTANCE, Numbers, Side
from interlock.control.gates.offline import Question, Reading, measure, names_of, unmeasured, worst_of
from interlock.control.gates.slices import Part, names_of_parts, read_parts
from interlock.errors import EvidenceError, NoSamples
from interlock.model.verdict import Measurement, Verdict
from interlock.profile.gates import Evaluation, Floor, Metric, Slice

GATE = "evaluation"
FIRST = "bootstrap"
ROWS_COMPARED = "rows_compared"


class _Labelled(NamedTuple):
    """The labels as they are and as values, and the rows without them: a model must not be able to read the answer."""

    labels: Sequence[Any]
    values: NDArray[Any]
    inputs: pd.DataFrame


class _Answered(NamedTuple):
    """What one model answered to each row: as it is, as its server's body, and as a value."""

    answers: Sequence[Any]
    texts: Sequence[str]
    values: NDArray[Any]


def judge_evaluation(policy: Evaluation, rows: Rows, *, candidate: Answerer, incumbent: Answerer, divergence: Divergence) -> Verdict:
    """
    Is the candidate good enough, and not worse than the incumbent, on the same labelled rows and in every slice of them?

    Each metric gives two required measurements with bounds, one-sided 95 % both ways (500 paired resamples, seeded by the data's digest;
    exact where the metric is a share): the candidate's value against the absolute limit, and `<metric>_worse_by`, the difference to the
    incumbent, against `max_worse_than_incumbent`. So does each slice, for every named value and for the worst of all values with enough
    rows. Bounds across a limit are INCONCLUSIVE: too few rows neither pass a bad candidate nor fail a good one. So is what cannot be
    measured: a missing label, an unusable prediction of either model, labels of one class, a named value without enough rows.
    `mean_disagreement` and what belongs to it is shown and not judged: how much the canary will see the two differ.
    """
    return judged(GATE, lambda: _judge(policy, rows, candidate, incumbent, divergence))


def judge_first(policy: Evaluation, floors: Sequence[Floor], rows: Rows, *, candidate: Answerer, divergence: Divergence) -> Verdict:
    """Is a first version, which has no incumbent to be compared with, good enough on the labelled rows? By its own values alone."""
    metrics = tuple(Metric(**floor.model_dump(), max_worse_than_incumbent=0.0) for floor in floors)
    alone = policy.model_copy(update={"metrics": metrics, "slices": ()})

    def judge() -> Verdict:
        labelled = _read_labelled(rows.frame, policy.label_column)
        answered = _ask(candidate, labelled, "candidate")
        side = _side(alone, labelled, answered, divergence)
        flaws = list(_missing(policy.label_column, labelled, candidate=answered))
        readings, more = _measured(_questions(alone, {}), side, side, rows=rows, is_measurable=not flaws)
        measurements = [reading.own for reading in readings]
        return judge_required(FIRST, measurements, required=[m.name for m in metrics], remarks=dict.fromkeys([*flaws, *more]))

    return judged(FIRST, judge)


def required_of_evaluation(policy: Evaluation) -> tuple[str, ...]:
    """The names that decide."""
    names = [name for metric in policy.metrics for name in names_of(metric)]
    for sliced in policy.slices:
        names += [name for part in names_of_parts(sliced) for name in names_of(sliced.metric, f" of {part}")]
        names += _worst_names(sliced)
    return (*names, ROWS_COMPARED)


def _judge(policy: Evaluation, rows: Rows, candidate: Answerer, incumbent: Answerer, divergence: Divergence) -> Verdict:
    labelled = _read_labelled(rows.frame, policy.label_column)
    ours, theirs = _ask(candidate, labelled, "candidate"), _ask(incumbent, labelled, "incumbent")
    flaws = list(_missing(policy.label_column, labelled, candidate=ours, incumbent=theirs))
    parts = {sliced.column: read_parts(rows.frame, sliced) for sliced in policy.slices}
    questions = _questions(policy, parts)
    sides = [_side(policy, labelled, answered, divergence) for answered in (ours, theirs)]
    readings, more = _measured(questions, *sides, rows=rows, is_measurable=not flaws)
    between = distances(divergence.compare, theirs.texts, ours.texts)
    shown = measure_envelope(between, [part for found in parts.values() for part in found])
    remarks = [*flaws, *more, envelope_remark(shown, divergence.tolerance)]
    return judge_required(
        GATE,
        [*_decisive(policy, parts, iter(readings)), _rows_compared(between, policy.min_row_count), *shown],
        required=required_of_evaluation(policy),
        remarks=dict.fromkeys(filter(None, remarks)),
    )


def _read_labelled(frame: pd.DataFrame, label_column: str) -> _Labelled:
    if frame.empty:
        raise NoSamples("the evaluation data has no rows: check the query that writes it")
    if label_column not in frame.columns:
        raise EvidenceError(f"the evaluation data has no column {label_column}: name the label column in the release profile")
    labels = frame[label_column]
    numbers = None if are_beyond_floats(labels.tolist()) else as_numbers(labels)
    values = labels.to_numpy(dtype=object) if numbers is None else numbers
    return _Labelled(labels.tolist(), values, frame.drop(columns=[label_column]))


def _ask(model: Answerer, labelled: _Labelled, who: str) -> _Answered:
    answers = model.answers(labelled.inputs.copy())
    if len(answers) != len(labelled.labels):
        raise EvidenceError(f"the {who} gave {len(answers)} predictions for {len(labelled.labels)} rows: it must give one for each row")
    return _Answered(answers, as_texts(answers), as_values(answers))


def _side(policy: Evaluation, labelled: _Labelled, answered: _Answered, divergence: Divergence) -> Side:
    """Distances to the labels take time, and are taken only where a metric asks for them."""
    metrics = [*policy.metrics, *(sliced.metric for sliced in policy.slices)]
    to_labels = np.full(len(labelled.labels), np.nan)
    if any(metric.name == DISTANCE for metric in metrics):
        right = label_texts(labelled.labels, answered.answers, are_classes=divergence.labels_are_classes)
        to_labels = distances(divergence.compare, right, answered.texts)
    return Side(labelled.values, answered.values, to_labels)


def _missing(label_column: str, labelled: _Labelled, **answered: _Answered) -> Iterator[str]:
    if count := _missing_count(labelled.values):
        yield f"{count} of {len(labelled.values)} rows have no usable {label_column}"
    for who, one in answered.items():
        if count := _missing_count(one.values):
            yield f"{count} of {len(one.values)} predictions of the {who} are missing or not finite"


def _missing_count(values: NDArray[Any]) -> int:
    return int((~np.isfinite(values)).sum() if values.dtype.kind == "f" else pd.isna(values).sum())


def _questions(policy: Evaluation, parts: Mapping[str, Sequence[Part]]) -> Sequence[Question]:
    """Every metric on all rows, then on the parts of every slice; `_decisive` reads them in this order."""
    of_all = [Question(metric, "", None, policy.min_row_count) for metric in policy.metrics]
    of_parts = [
        Question(sliced.metric, f" of {part.name}", part.rows, sliced.min_row_count)
        for sliced in policy.slices
        for part in parts[sliced.column]
    ]
    return [*of_all, *of_parts]


def _measured(
    questions: Sequence[Question], candidate: Side, incumbent: Side, *, rows: Rows, is_measurable: bool
) -> tuple[Sequence[Reading], Sequence[str]]:
    if is_measurable:
        return measure(questions, candidate, incumbent, seed=seed_from(rows.digest))
    return [unmeasured(question, row_count=len(candidate.labels)) for question in questions], ()


def _decisive(policy: Evaluation, parts: Mapping[str, Sequence[Part]], readings: Iterator[Reading]) -> Iterator[Measurement]:
    """What was measured on all rows and on each part, and the worst of all parts that are large enough."""
    for _ in policy.metrics:
        yield from next(readings)
    for sliced in policy.slices:
        of_parts = [(part, next(readings)) for part in parts[sliced.column]]
        for _, reading in of_parts:
            yield from reading
        large = [reading for part, reading in of_parts if part.is_large_enough]
        for name, found in zip(_worst_names(sliced), zip(*(large or [_none_of(sliced)]), strict=True), strict=True):
            yield worst_of(name, found, min_sample_count=sliced.min_row_count)


def _worst_names(sliced: Slice) -> tuple[str, str]:
    own, worse_by = names_of(sliced.metric, f" of {sliced.column}")
    return f"worst {own}", f"worst {worse_by}"


def _none_of(sliced: Slice) -> Reading:
    return unmeasured(Question(sliced.metric, "", np.array([], dtype=np.intp), sliced.min_row_count), row_count=0)


def _rows_compared(between: Numbers, min_row_count: int) -> Measurement:
    """All rows, or nothing: an answer that the canary could not compare is no answer."""
    count = int(np.isfinite(between).sum())
    return Measurement(ROWS_COMPARED, float(count) if count == len(between) else None, len(between), "higher", "rows", count, min_row_count)
