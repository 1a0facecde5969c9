"""Values of users as the model's server has cast them: the type is the signature's, whatever JSON or CSV made of the value."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interlock.serving.input_shapes import Columns, NotUnderstood

_MOST = {"float": float(np.finfo(np.float32).max), "double": math.inf}
_WHOLE = {"integer": 2**31, "long": 2**63}
_TYPES: Mapping[str, Any] = {"float": np.float32, "double": np.float64, "integer": np.int32, "long": np.int64, "boolean": np.bool_}
TEXT = "string"


class Caster:
    """
    Casts columns by the signature's types (MLflow's names by column; one that is not there, or another word, leaves a value as it is).

    not_finite_count: values that became missing because they are infinite, or too large for the type. One user can send one at any time:
    that is no fault of a release.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self.not_finite_count = 0

    def cast(self, columns: Columns) -> Columns:
        """
        The columns of one body.

        Raises:
            NotUnderstood: a value cannot be cast; the model's server refuses it as well.
        """
        before = self.not_finite_count
        try:
            return {name: self._cast_column(self._kinds.get(name, ""), values) for name, values in columns.items()}
        except (ValueError, TypeError, OverflowError) as error:
            self.not_finite_count = before
            raise NotUnderstood(f"{type(error).__name__}: {error}") from error

    def series(self, name: str, values: Sequence[Any]) -> "pd.Series[Any]":
        """Cast values in the type the model wants; whole numbers and booleans with gaps, which it does not take, as pandas has them."""
        series: pd.Series[Any] = pd.Series(values)
        wanted = _TYPES.get(self._kinds.get(name, ""))
        if wanted is None or (series.hasnans and wanted not in {np.float32, np.float64}):
            return series
        return series.astype(wanted)

    def _cast_column(self, kind: str, values: Sequence[Any]) -> Sequence[Any]:
        if kind in _MOST:
            return [self._finite(math.nan if value is None else float(value), _MOST[kind]) for value in values]
        if kind in _WHOLE:
            return [_whole(value, _WHOLE[kind]) for value in values]
        if kind in _OTHERS:
            return [None if value is None or value != value else _OTHERS[kind](value) for value in values]
        return [self._plain(value) for value in values]

    def _finite(self, value: float, most: float) -> float:
        if abs(value) == math.inf or abs(value) > most:
            self.not_finite_count += 1
            return math.nan
        return value

    def _plain(self, value: Any) -> Any:
        """A value of no known type: a whole number that no double can hold counts as infinite, as it does in JSON with a point."""
        if type(value) is float:
            return self._finite(value, math.inf)
        if type(value) is int and abs(value) >= 2**1023:
            return self._finite(math.inf, math.inf)
        return value


def _whole(value: Any, beyond: int) -> int:
    whole = int(value)
    if not -beyond <= whole < beyond:
        raise OverflowError(f"{whole} is out of range")
    return whole


_OTHERS: Mapping[str, Callable[[Any], Any]] = {"boolean": bool, TEXT: str}
