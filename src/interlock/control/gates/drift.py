"""The drift gate: have the rows, or the candidate's answers to them, moved away from what the candidate was trained on?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.control.gates.columns import Column, every, left_their_constant, read_columns, stuck
from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import DriftMeasure, Predictor, Rows, as_numbers, seed_from
from interlock.errors import EvidenceError
from interlock.model.verdict import Measurement, Verdict
from interlock.profile.schema import Drift

GATE = "drift"
REQUIRED = (
    "null_percent",
    "infinite_count",
    "stuck_column_count",
    "columns_measured",
    "drifted_share",
    "largest_column_distance",
    "prediction_distance",
)


@dataclass(frozen=True, slots=True)
class _Side:
    """One data set: its columns counted on all rows, and the sample that distances are taken on."""

    columns: Mapping[str, Column]
    sample: pd.DataFrame


def judge_drift(policy: Drift, reference: Rows, current: Rows, *, candidate: Predictor, measure: DriftMeasure) -> Verdict:
    """
    Are current rows, and the candidate's predictions on them, still near the reference?

    First our own counts, on all rows: every named column present and numeric in both data sets, else INCONCLUSIVE; nulls, infinities
    and columns stuck on one value against their limits. Then `measure`, on at most `max_row_count` rows a side, drawn without
    replacement by a generator seeded with the data's digest: a distance for every named column and for the predictions; how many
    were really measured is counted. One drifted column is not a FAIL, unless it is beyond `max_single_column_distance`; too large
    a share of them is.
    `distance of <column>` shows each column and decides nothing by itself.
    """
    return judged(GATE, lambda: _judge(policy, reference, current, candidate=candidate, measure=measure))


def _judge(policy: Drift, reference: Rows, current: Rows, *, candidate: Predictor, measure: DriftMeasure) -> Verdict:
    prediction = _free_name(policy.columns)
    before = _side(policy, reference, candidate, prediction, dataset="reference")
    now = _side(policy, current, candidate, prediction, dataset="current")
    measurable = _measurable(before, now, prediction)
    found = measure(before.sample[measurable], now.sample[measurable], columns=tuple(measurable)).distances if measurable else {}
    distances = {name: float(found[name]) for name in measurable if name in found and math.isfinite(found[name])}
    row_count = min(len(before.sample), len(now.sample))
    measurements = [*_counts(policy, before, now), *_distances(policy, before, now, distances, row_count)]
    measurements.append(_reading("prediction_distance", distances.get(prediction), policy.max_prediction_distance, row_count, policy))
    remarks = _remarks(policy, before, now, reference, current)
    if prediction not in measurable:
        remarks.append("a prediction is missing or not finite")
    return judge_required(GATE, measurements, required=REQUIRED, remarks=remarks)


def _measurable(before: _Side, now: _Side, prediction: str) -> list[str]:
    """Columns with at least one number on both sides, and the predictions when none is missing."""
    names = [name for name in before.columns if before.columns[name].distinct_count and now.columns[name].distinct_count]
    return names if _missing(before.sample[prediction]) or _missing(now.sample[prediction]) else [*names, prediction]


def _side(policy: Drift, rows: Rows, candidate: Predictor, prediction: str, *, dataset: str) -> _Side:
    columns = read_columns(rows.frame, policy.columns, dataset=dataset)
    sample = _sample(rows, policy.max_row_count)
    answers = np.asarray(candidate.predict(sample.copy()))
    if answers.shape != (len(sample),):
        raise EvidenceError(f"the candidate gave predictions of shape {answers.shape} for {len(sample)} {dataset} rows, needs one for each")
    kept = {name: as_numbers(sample[name]) for name in policy.columns}
    return _Side(columns, pd.DataFrame({**kept, prediction: _plain(answers)}))


def _sample(rows: Rows, max_row_count: int) -> pd.DataFrame:
    if len(rows.frame) <= max_row_count:
        return rows.frame
    generator = np.random.Generator(np.random.PCG64(seed_from(rows.digest)))
    return rows.frame.iloc[np.sort(generator.choice(len(rows.frame), max_row_count, replace=False))]


def _plain(answers: NDArray[Any]) -> NDArray[Any]:
    numbers = as_numbers(answers)
    return answers.astype(object) if numbers is None else numbers


def _missing(predictions: "pd.Series[Any]") -> bool:
    numbers = as_numbers(predictions)
    return bool(predictions.isna().any() if numbers is None else not np.isfinite(numbers).all())


def _free_name(columns: Sequence[str]) -> str:
    name = "prediction"
    while name in columns:
        name += "_"
    return name


def _counts(policy: Drift, before: _Side, now: _Side) -> tuple[Measurement, ...]:
    columns = list(every(before.columns, now.columns))
    row_count = min(column.row_count for column in columns)
    nulls = max(column.null_percent for column in columns)
    infinities = sum(column.infinite_count for column in columns)
    return (
        _reading("null_percent", nulls, policy.max_null_percent, row_count, policy, unit="%"),
        _reading("infinite_count", float(infinities), 0.0, row_count, policy, unit="values"),
        _reading("stuck_column_count", float(len(stuck(before.columns, now.columns))), 0.0, row_count, policy, unit="columns"),
    )


def _distances(policy: Drift, before: _Side, now: _Side, distances: Mapping[str, float], row_count: int) -> list[Measurement]:
    found = {name: distances[name] for name in policy.columns if name in distances}
    moved = set(left_their_constant(before.columns, now.columns))
    drifted = [name for name, distance in found.items() if distance > policy.max_column_distance or name in moved]
    complete = len(found) == len(policy.columns)
    count = len(policy.columns)
    return [
        Measurement("columns_measured", float(len(found)), float(count), "higher", "columns", row_count, policy.min_row_count),
        _reading("drifted_share", len(drifted) / count if complete else None, policy.max_drifted_share, row_count, policy),
        _reading(
            "largest_column_distance", max(found.values()) if complete else None, policy.max_single_column_distance, row_count, policy
        ),
        *(_reading(f"distance of {name}", found.get(name), policy.max_column_distance, row_count, policy) for name in policy.columns),
    ]


def _reading(name: str, value: float | None, limit: float, row_count: int, policy: Drift, *, unit: str = "") -> Measurement:
    return Measurement(name, value, limit, "lower", unit, row_count, policy.min_row_count)


def _remarks(policy: Drift, before: _Side, now: _Side, reference: Rows, current: Rows) -> list[str]:
    """Which columns stand behind the counts, and how many rows the distances stand on when not on all."""
    columns = list(every(before.columns, now.columns))
    remarks = [
        f"{c.name} is null in {c.null_percent:.3g} % of {c.dataset} rows" for c in columns if c.null_percent > policy.max_null_percent
    ]
    remarks += [f"{c.name} is infinite in {c.infinite_count} {c.dataset} rows" for c in columns if c.infinite_count]
    remarks += [f"{name} is stuck on one value" for name in stuck(before.columns, now.columns)]
    for side, rows, name in ((before, reference, "reference"), (now, current, "current")):
        if len(side.sample) < len(rows.frame):
            remarks.append(f"distances on {len(side.sample)} of {len(rows.frame)} {name} rows")
    return remarks
