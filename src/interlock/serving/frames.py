"""
A short way from a JSON payload to the data frame that MLflow's parsing and schema enforcement would have made of it.

MLflow casts and checks column by column, twice; for a single row that costs as much as a small model. `FrameBuilder` knows the signature
beforehand and builds the final frame at once, but only from a payload that needs no judgement: exactly the columns of the signature, and
values of the one JSON type that each column takes without rounding, wrapping or filling. For everything else it answers None and the caller
asks MLflow. It never refuses a payload: refusals are MLflow's, word for word.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

Values = Sequence[Any]

# Beyond 2**53 a whole number may not survive in a double; how it is then rounded is left to pandas.
EXACT_INTEGER = 2**53
FORMATS = (b'"dataframe_split"', b'"dataframe_records"')
# A payload names its format first; so many bytes are searched before the body is parsed, because parsing 16 MiB twice is not a short way.
PREFIX_BYTES = 64


class Payload(NamedTuple):
    """A frame that already satisfies the signature, and the `params` as they came (None: not given)."""

    frame: pd.DataFrame
    params: Any


class FrameBuilder:
    """Builds frames for one signature. `kinds` maps column names, in the order of the signature, to MLflow's names of column types."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._names = list(kinds)
        self._name_set = set(kinds)
        self._arrays = [_ARRAYS[kind] for kind in kinds.values()]

    @staticmethod
    def knows(kind: str) -> bool:
        """Can columns of this type be built here?"""
        return kind in _ARRAYS

    def build(self, body: bytes) -> Payload | None:
        """The frame of a JSON body, or None when MLflow has to look at it."""
        if not any(name in body[:PREFIX_BYTES] for name in FORMATS):
            return None
        try:
            decoded = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(decoded, dict):
            return None
        params = decoded.pop("params", None)
        if len(decoded) != 1:
            return None
        name, content = decoded.popitem()
        frame = {"dataframe_split": self._split, "dataframe_records": self._records}.get(name, _nothing)(content)
        return None if frame is None else Payload(frame, params)

    def _split(self, content: Any) -> pd.DataFrame | None:
        if not isinstance(content, dict) or not content.keys() <= {"columns", "data", "index"}:
            return None
        names: Any = content.get("columns")
        rows: Any = content.get("data")
        index: Any = content.get("index")
        if not _is_list_of(list, rows) or not _is_list_of(str, names):
            return None
        if len(names) != len(self._names) or set(map(len, rows)) != {len(names)}:
            return None
        if index is not None and not (_is_list_of(int, index) and len(index) == len(rows) == len(set(index))):
            return None
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        return self._frame(columns, index) if columns.keys() == self._name_set else None

    def _records(self, content: Any) -> pd.DataFrame | None:
        if not _is_list_of(dict, content) or any(row.keys() != self._name_set for row in content):
            return None
        return self._frame({name: [row[name] for row in content] for name in self._names}, None)

    def _frame(self, columns: Mapping[str, Values], index: list[int] | None) -> pd.DataFrame | None:
        arrays = {}
        for name, make in zip(self._names, self._arrays, strict=True):
            if (array := make(columns[name])) is None:
                return None
            arrays[name] = array
        return pd.DataFrame(arrays, index=None if index is None else pd.Index(index))


def _is_list_of(kind: type, values: Any) -> bool:
    """Is it a list with at least one element, all of exactly this type? (A bool is not an int here.)"""
    return type(values) is list and set(map(type, values)) == {kind}


def _nothing(content: Any) -> None:
    return None


def _doubles(values: Values) -> np.ndarray | None:
    types = set(map(type, values))
    if not types <= {float, int}:
        return None
    if int in types and any(type(value) is int and abs(value) > EXACT_INTEGER for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _floats(values: Values) -> np.ndarray | None:
    doubles = _doubles(values)
    # A double beyond the range of a float becomes infinite with a warning: MLflow's to do.
    if doubles is None or bool((np.abs(doubles) > np.finfo(np.float32).max).any()):
        return None
    return doubles.astype(np.float32)


def _whole_numbers(values: Values, dtype: type[np.signedinteger[Any]]) -> np.ndarray | None:
    bounds = np.iinfo(dtype)
    if set(map(type, values)) != {int} or not (bounds.min <= min(values) and max(values) <= bounds.max):
        return None
    return np.array(values, dtype=dtype)


def _only(kind: type, dtype: type) -> Callable[[Values], "np.ndarray | None"]:
    def array(values: Values) -> np.ndarray | None:
        return np.array(values, dtype=dtype) if set(map(type, values)) == {kind} else None

    return array


_ARRAYS: dict[str, Callable[[Values], "np.ndarray | None"]] = {
    "double": _doubles,
    "float": _floats,
    "long": lambda values: _whole_numbers(values, np.int64),
    "integer": lambda values: _whole_numbers(values, np.int32),
    "boolean": _only(bool, np.bool_),
    "string": _only(str, np.object_),
}
