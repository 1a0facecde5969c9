"""
How far two answers to the same input differ: D in [0, 1], one comparator per output type.

Answers are response bodies of the MLflow scoring protocol, `{"predictions": ...}`: a list of rows (numbers, texts, lists or records),
a mapping of columns, or one value. D is averaged over the rows of the request. Whatever is wrong on the candidate's side is D = 1;
an answer of the incumbent that cannot be read makes the pair say nothing (None).
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

from interlock.errors import PolicyError

_SUM_SLACK = 1e-2  # class probabilities rounded to 2 or 3 digits still count as a distribution
_RANGE_SLACK = 1e-6  # float32 soft-max may give 1.0000001


class Difference(NamedTuple):
    """
    How two answers to one input differ.

    divergence: D in [0, 1]; 1 where the candidate's answer is missing or unusable.
    signed: mean of (candidate - incumbent) / scale, each clipped to [-1, 1]; None unless the outputs are quantities and both are usable.
    """

    divergence: float
    signed: float | None = None


# (incumbent's answer, candidate's answer) -> their difference; None when the incumbent's says nothing.
Compare = Callable[[str | None, str | None], Difference | None]


class OutputType(StrEnum):
    """What a prediction is, and therefore how two of them are compared."""

    LABEL = "label"
    PROBABILITY = "probability"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class _Answer:
    """Rows of leaves, and the structure they were found in; two answers compare only when their structures are equal."""

    structure: object
    rows: list[list[Any]]


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def divergence(
    output_type: str, incumbent_text: str | None, candidate_text: str | None, *, regression_scale: float | None = None
) -> float | None:
    """
    How far the candidate's answer is from the incumbent's: 0 = the same, 1 = as far as can be; None = the incumbent's says nothing.

    label: share of rows that differ. probability: total variation distance. regression: min(1, |difference| / regression_scale).
    A candidate answer that is missing, unreadable, NaN, infinite, or of another length, shape or type is D = 1.

    Raises:
        PolicyError: the output type is unknown, or regression came without a positive scale.
    """
    kind = check_output_type(output_type, regression_scale)
    incumbent = _read(kind, incumbent_text)
    if incumbent is None:
        return None
    if candidate_text == incumbent_text:
        return 0.0
    candidate = _read(kind, candidate_text)
    if candidate is None or candidate.structure != incumbent.structure:
        return 1.0
    per_row = [_row_divergence(kind, a, b, regression_scale or 1.0) for a, b in zip(incumbent.rows, candidate.rows, strict=True)]
    mean = math.fsum(per_row) / len(per_row)
    return min(1.0, max(0.0, mean)) if math.isfinite(mean) else 1.0


def comparator(output_type: str, *, regression_scale: float | None = None) -> Compare:
    """The comparison for an output type. Raises PolicyError as `divergence` does, now rather than at the first pair."""
    kind = check_output_type(output_type, regression_scale)

    def compare(incumbent_text: str | None, candidate_text: str | None) -> Difference | None:
        distance = divergence(kind, incumbent_text, candidate_text, regression_scale=regression_scale)
        return None if distance is None else Difference(distance)

    return compare


def check_output_type(output_type: str, regression_scale: float | None) -> OutputType:
    """The output type as one of ours. Raises PolicyError when it is unknown, or regression has no finite scale above 0."""
    try:
        kind = OutputType(output_type)
    except ValueError as error:
        raise PolicyError(f"output type {output_type!r} is unknown, needs one of {', '.join(OutputType)}") from error
    if kind is OutputType.REGRESSION and not (regression_scale is not None and math.isfinite(regression_scale) and regression_scale > 0):
        raise PolicyError(f"regression needs a finite scale above 0 to measure a difference by, got {regression_scale!r}")
    return kind


def _row_divergence(kind: OutputType, incumbent: list[Any], candidate: list[Any], scale: float) -> float:
    if kind is OutputType.LABEL:
        return float(incumbent != candidate)
    differences: list[float] = [abs(a - b) for a, b in zip(incumbent, candidate, strict=True)]
    if kind is OutputType.REGRESSION:
        return math.fsum(min(1.0, difference / scale) for difference in differences) / len(differences)
    total = math.fsum(differences)
    return total if len(differences) == 1 else 0.5 * total


def _read(kind: OutputType, text: str | None) -> _Answer | None:
    """The answer, or None when it is missing, not of the protocol, empty, or holds a value this output type cannot have."""
    if text is None:
        return None
    try:
        document = _DECODER.decode(text)
        answer = _rows_of(document["predictions"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    try:
        usable = bool(answer.rows) and all(_is_usable(kind, row) for row in answer.rows)
    except OverflowError:  # an integer too large for a float
        return None
    return answer if usable else None


def _rows_of(predictions: Any) -> _Answer:
    if isinstance(predictions, dict):
        columns = list(predictions.values())
        if columns and all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            names = tuple(predictions)
            predictions = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        else:
            predictions = [predictions]
    elif not isinstance(predictions, list):
        predictions = [predictions]
    structures: list[object] = []
    rows: list[list[Any]] = []
    for row in predictions:
        leaves: list[Any] = []
        structures.append(_flatten(row, leaves))
        rows.append(leaves)
    return _Answer(structures, rows)


def _flatten(value: Any, leaves: list[Any]) -> object:
    """Append the leaves of `value`, records in the order of their keys, and return its structure. Raises TypeError for null."""
    if isinstance(value, bool):
        leaves.append(value)
        return "bool"
    if isinstance(value, int | float):
        leaves.append(value)
        return "number"
    if isinstance(value, str):
        leaves.append(value)
        return "text"
    if isinstance(value, list):
        return [_flatten(item, leaves) for item in value]
    if isinstance(value, dict):
        return [(key, _flatten(value[key], leaves)) for key in sorted(value)]
    raise TypeError("null is not a prediction")


def _is_usable(kind: OutputType, row: list[Any]) -> bool:
    if not row or any(isinstance(leaf, int | float) and not math.isfinite(leaf) for leaf in row):
        return False
    if kind is OutputType.LABEL:
        return True
    if any(isinstance(leaf, bool) or not isinstance(leaf, int | float) for leaf in row):
        return False
    return kind is OutputType.REGRESSION or _is_distribution(row)


def _is_distribution(row: list[Any]) -> bool:
    """One number is P(class 1); several are the probabilities of all classes and must sum to about 1."""
    in_range = all(-_RANGE_SLACK <= leaf <= 1 + _RANGE_SLACK for leaf in row)
    return in_range and (len(row) == 1 or abs(math.fsum(row) - 1) <= _SUM_SLACK)
