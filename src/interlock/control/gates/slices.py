"""The parts of labelled rows that are judged by themselves: one for each value of a column that a profile names."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.profile.gates import Slice


class Part(NamedTuple):
    """The positions of the rows with one value of a slice's column. is_named: the profile names the value."""

    name: str
    rows: NDArray[np.intp]
    is_named: bool
    is_large_enough: bool


def read_parts(frame: pd.DataFrame, sliced: Slice) -> Sequence[Part]:
    """
    A part for each named value, in the profile's order and whatever its size, then one for each other value with enough rows.

    Rows without a value are a part too. Without the column the named parts have no rows.
    """
    found: dict[str, NDArray[np.intp]] = {}
    if sliced.column in frame.columns:
        groups = frame.groupby(sliced.column, dropna=False, observed=True).indices
        for value, rows in groups.items():
            alike = found.get(_told(value), np.array([], dtype=np.intp))  # "null" and null, "1" and 1 are one part: no row is lost
            found[_told(value)] = np.sort(np.concatenate([alike, np.asarray(rows, dtype=np.intp)]))
    parts = []
    for value in dict.fromkeys([*map(_told, sliced.values), *found]):
        rows = found.get(value, np.array([], dtype=np.intp))
        named = value in map(_told, sliced.values)
        parts.append(Part(f"{sliced.column}={value}", rows, is_named=named, is_large_enough=len(rows) >= sliced.min_row_count))
    return [part for part in parts if part.is_named or part.is_large_enough]


def names_of_parts(sliced: Slice) -> Sequence[str]:
    """What the named parts are called, whether or not there are such rows."""
    return [f"{sliced.column}={_told(value)}" for value in sliced.values]


def _told(value: Any) -> str:
    """1, 1.0 and numpy's are one value; null is one of its own."""
    if pd.isna(value):
        return "null"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
