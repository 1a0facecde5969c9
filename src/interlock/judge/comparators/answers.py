"""
What every comparator shares: answers are read, rows are matched, and D is averaged over the rows.

Answers are response bodies of the MLflow scoring protocol, `{"predictions": ...}`: a list of rows (numbers, texts, lists or records),
a mapping of columns, or one value. What a row is cannot be told from the answer: `[0.9, 0.1]` is two scores or one row of class
probabilities, and read as the wrong one of them D shrinks. It is told by `Layout`. Whatever is wrong on the candidate's side is D = 1; an
answer of the incumbent that cannot be read makes the pair say nothing (None). No text whatever makes a comparator raise.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from interlock.errors import PolicyError

MAX_DEPTH = 64  # lists and records in each other; no prediction is nested as deep, and Python's stack must not be the limit


class Difference(NamedTuple):
    """
    How two answers to one input differ.

    divergence: D in [0, 1]; 1 where the candidate's answer is missing or unusable.
    signed: mean of (candidate - incumbent) / scale, each clipped to [-1, 1]; None unless the outputs are quantities and both are usable.
    """

    divergence: float
    signed: float | None = None


class Layout(NamedTuple):
    """
    How an answer is laid out in rows.

    row_is_list: a row is a list (class probabilities, ids, a vector): a list without lists in it is one row, bare or as a record's field.
    row_count: an answer with another number of rows is unusable; None where the inputs may be batches.
    """

    row_is_list: bool = False
    row_count: int | None = None


ONE_VALUE_A_ROW = Layout()

# (incumbent's answer, candidate's answer) -> their difference; None when the incumbent's says nothing.
Compare = Callable[[str | None, str | None], Difference | None]


class Row(NamedTuple):
    """One row of an answer, read: two rows compare only when their shapes are equal."""

    shape: object
    values: Any


ReadRow = Callable[[Any], Row | None]  # None when a row is not what the comparator can compare
RowDifference = Callable[[Any, Any], float]  # (incumbent's values, candidate's values) of two rows of one shape

_UNUSABLE = Difference(1.0)


def comparator_of(
    read_row: ReadRow, differ: RowDifference, *, layout: Layout, signed: RowDifference | None = None, has_columns: bool = True
) -> Compare:
    """
    The comparison of whole answers out of the comparison of two rows.

    Args:
        differ: D of two rows, in [0, 1]. signed: how much larger the candidate's row is, in [-1, 1]; only for quantities.
        layout: of both answers. has_columns: whether a mapping of lists of one length is columns; else every mapping is one row.
    """
    same = Difference(0.0, None if signed is None else 0.0)

    def compare(incumbent_text: str | None, candidate_text: str | None) -> Difference | None:
        incumbent = _read(incumbent_text, read_row, layout, has_columns)
        if incumbent is None:
            return None
        if candidate_text == incumbent_text:
            return same
        candidate = _read(candidate_text, read_row, layout, has_columns)
        if candidate is None or [row.shape for row in candidate] != [row.shape for row in incumbent]:
            return _UNUSABLE
        pairs = [(a.values, b.values) for a, b in zip(incumbent, candidate, strict=True)]
        mean = math.fsum(differ(a, b) for a, b in pairs) / len(pairs)
        if not math.isfinite(mean):
            return _UNUSABLE
        bias = None if signed is None else math.fsum(signed(a, b) for a, b in pairs) / len(pairs)
        return Difference(min(1.0, max(0.0, mean)), bias)

    return compare


def require_positive(name: str, value: float) -> float:
    """The value. Raises PolicyError unless it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise PolicyError(f"{name} is {value!r}, needs a finite number above 0")
    return value


def decode(text: str) -> Any:
    """
    The JSON value in a text. NaN and Infinity are no JSON, and a key that is given twice has no one value.

    Raises:
        ValueError: the text is not such JSON. RecursionError: it is nested without end.
    """
    return _DECODER.decode(text)


def flatten(value: Any, leaves: list[Any], depth: int = 0) -> object:
    """Append the leaves of `value`, records in the order of their keys, and return its shape. Raises TypeError for null."""
    if isinstance(value, bool):
        leaves.append(value)
        return "bool"
    if isinstance(value, int | float):
        leaves.append(value)
        return "number"
    if isinstance(value, str):
        leaves.append(value)
        return "text"
    if depth > MAX_DEPTH:
        raise TypeError("a prediction is not nested as deep")
    if isinstance(value, list):
        return [flatten(item, leaves, depth + 1) for item in value]
    if isinstance(value, dict):
        return [(key, flatten(value[key], leaves, depth + 1)) for key in sorted(value)]
    raise TypeError("null is not a prediction")


def only_field(row: Any) -> Any:
    """The value of a record with one field (a frame with one column answers such rows); anything else as it is."""
    return next(iter(row.values())) if isinstance(row, dict) and len(row) == 1 else row


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given more than once")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_record)


def _read(text: str | None, read_row: ReadRow, layout: Layout, has_columns: bool) -> list[Row] | None:
    """The rows of an answer; None when it is missing, not of the protocol, empty, or holds a row that the comparator cannot compare."""
    if text is None:
        return None
    rows: list[Row] = []
    try:
        for value in _rows_of(decode(text)["predictions"], layout.row_is_list, has_columns):
            if (row := read_row(value)) is None:
                return None
            rows.append(row)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):  # OverflowError: an integer too large for a float
        return None
    return rows if rows and layout.row_count in (None, len(rows)) else None


def _rows_of(predictions: Any, row_is_list: bool, has_columns: bool) -> list[Any]:
    if isinstance(predictions, list):
        return [predictions] if row_is_list and predictions and _is_plain(predictions) else predictions
    if has_columns and isinstance(predictions, dict) and predictions:
        columns = list(predictions.values())
        are_columns = all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns)
        if are_columns and not (row_is_list and any(map(_is_plain, columns))):
            return [dict(zip(predictions, row, strict=True)) for row in zip(*columns, strict=True)]
    return [predictions]


def _is_plain(items: list[Any]) -> bool:
    return not any(isinstance(item, list | dict) for item in items)
