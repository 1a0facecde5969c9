"""What is wrong with rows before any distance is taken: columns absent, of another kind, null, infinite, out of range, stuck."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from interlock.control.gates.inputs import as_numbers, plain
from interlock.errors import EvidenceError, NoSamples
from interlock.judge.drift import Floats
from interlock.profile.gates import CategoryColumn, NumberColumn

Policy: TypeAlias = NumberColumn | CategoryColumn
Category: TypeAlias = str | bool | float

UNKNOWN = "nothing but nulls"
STUCK_SHARE = 0.999  # a feed that died may still let an odd row through
_NUMBER, _BOOLEAN, _TEXT = "numbers", "booleans", "text"
_KINDS = {
    "integer": _NUMBER,
    "floating": _NUMBER,
    "mixed-integer-float": _NUMBER,
    "decimal": _NUMBER,
    "boolean": _BOOLEAN,
    "string": _TEXT,
    "empty": UNKNOWN,
}
_USABLE = {"number": {_NUMBER, _BOOLEAN, UNKNOWN}, "category": {_NUMBER, _BOOLEAN, _TEXT, UNKNOWN}}


@dataclass(frozen=True, slots=True)
class Column:
    """
    One column of one data set, counted on every row.

    kind: what it holds, in a word for people. numbers: the finite ones, sorted; a column of categories has `counts` instead, by kind and
    value.
    """

    dataset: str
    row_count: int
    kind: str
    null_count: int
    infinite_count: int = 0
    numbers: Floats = field(default_factory=lambda: np.empty(0))
    counts: Mapping[tuple[str, Category], int] = field(default_factory=dict)

    @property
    def null_percent(self) -> float:
        """Rows without a value (null, NaN), in percent of the rows."""
        return 100.0 * self.null_count / self.row_count

    @property
    def value_count(self) -> int:
        """Rows that a distance can stand on."""
        return len(self.numbers) + sum(self.counts.values())

    @property
    def is_constant(self) -> bool:
        """One value in all rows that have any, or none at all."""
        return len(self.counts) <= 1 and (not len(self.numbers) or bool(self.numbers[0] == self.numbers[-1]))

    def count_of(self, value: Any) -> int:
        """Rows with this number, or of this category."""
        if self.counts:
            return self.counts.get(value, 0)
        begin, end = (int(np.searchsorted(self.numbers, value, side)) for side in ("left", "right"))
        return end - begin

    def dominant(self) -> tuple[Any, int]:
        """The number or category of more than half of the rows that have a value, and of how many; any other where none is of so many."""
        value = max(self.counts, key=self.counts.__getitem__) if self.counts else self.numbers[len(self.numbers) // 2]
        return value, self.count_of(value)


@dataclass(frozen=True, slots=True)
class Pair:
    """A column of the profile on both sides; neither when one of them cannot be used, and `faults` say why."""

    policy: Policy
    sides: tuple[Column, ...]
    faults: tuple[str, ...]

    def is_stuck(self, confidence: float) -> bool:
        """
        It varies in the reference and now holds one value, but for a row in a thousand: a feed that died; its distance is only about 1.

        Not when other values are so rare in the reference that rows of its kind would show so few with more than 1 - `confidence`.
        """
        if not self.sides or self.sides[0].is_constant:
            return False
        before, now = self.sides
        if not now.value_count:
            return True
        value, count = now.dominant()
        if count <= STUCK_SHARE * now.value_count:
            return False
        other_count, total = now.value_count - count, before.value_count + now.value_count
        others = before.value_count - before.count_of(value) + other_count
        return float(hypergeom.cdf(other_count, total, others, now.value_count)) < 1 - confidence

    def outside_count(self, side: Column) -> int:
        """Rows with a finite value that is out of the profile's range, or of a category that is not allowed."""
        if isinstance(self.policy, NumberColumn):
            above = np.searchsorted(side.numbers, self.policy.maximum, "right")
            return len(side.numbers) - int(above) + int(np.searchsorted(side.numbers, self.policy.minimum, "left"))
        return sum(side.counts[category] for category in self._unknown(side))

    def outside_percent(self, side: Column) -> float:
        """The same in percent of the rows that have a value, so that nulls do not thin it; 0 when none has."""
        return 100.0 * self.outside_count(side) / side.value_count if side.value_count else 0.0

    def unknown_categories(self, side: Column) -> list[str]:
        """Categories that are not allowed, the most frequent first."""
        return [str(value) for _, value in sorted(self._unknown(side), key=lambda found: (-side.counts[found], str(found[1])))]

    def _unknown(self, side: Column) -> list[tuple[str, Category]]:
        if isinstance(self.policy, NumberColumn):
            return []
        given = self.policy.categories
        allowed = self.sides[0].counts.keys() if given is None else {(_kind_of(category), category) for category in given}
        return [category for category in side.counts if category not in allowed]


def read_pair(policy: Policy, reference: pd.DataFrame, current: pd.DataFrame) -> Pair:
    """
    One column of both data sets, counted on every row.

    Raises:
        NoSamples: a data set has no rows.
    """
    sides, faults = list[Column](), list[str]()
    for dataset, frame in (("reference", reference), ("current", current)):
        if frame.empty:
            raise NoSamples(f"the {dataset} data has no rows: check the query that writes it")
        try:
            sides.append(_read_column(policy, frame, dataset))
        except EvidenceError as error:
            faults.append(str(error))
    if len(kinds := {side.kind for side in sides} - {UNKNOWN}) > 1:
        faults.append(f"{policy.name} holds {sides[0].kind} in the reference rows and {sides[1].kind} in the current rows")
    return Pair(policy, tuple(sides) if not faults and len(kinds) <= 1 else (), tuple(faults))


def _read_column(policy: Policy, frame: pd.DataFrame, dataset: str) -> Column:
    if (found := list(frame.columns).count(policy.name)) != 1:
        raise EvidenceError(f"{policy.name} is {'there twice in' if found else 'absent from'} the {dataset} rows")
    return count_values(frame[policy.name], policy.kind, name=policy.name, dataset=dataset)


def count_values(values: "pd.Series[Any]", wanted: Literal["number", "category"], *, name: str, dataset: str) -> Column:
    """
    Any values, counted as numbers or as categories.

    Raises:
        EvidenceError: they are of another kind, or of several.
    """
    values = plain(values)
    null_count = int(values.isna().sum())
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    kind = UNKNOWN if null_count == len(values) else _KINDS.get(inferred, inferred)
    if kind not in _USABLE[wanted]:
        raise EvidenceError(f"{name} holds {kind} in the {dataset} rows, the profile wants a {wanted}")
    if wanted == "category":
        return _categories(values, kind, null_count, dataset)
    numbers = as_numbers(values)
    if numbers is None:
        raise EvidenceError(f"{name} holds no usable numbers in the {dataset} rows")
    finite = np.sort(numbers[np.isfinite(numbers)])
    return Column(dataset, len(values), kind, null_count, int(np.isinf(numbers).sum()), numbers=finite)


def without_category(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """The values as what they are, where pandas holds them as a category."""
    return values.astype(values.cat.categories.dtype) if isinstance(values.dtype, pd.CategoricalDtype) else values


def _categories(values: "pd.Series[Any]", kind: str, null_count: int, dataset: str) -> Column:
    counts: dict[Any, int] = {value: int(count) for value, count in values.value_counts(dropna=True).items()}
    infinite = [value for value in counts if kind == _NUMBER and not math.isfinite(value)]
    finite = {(kind, value): count for value, count in counts.items() if value not in infinite}
    return Column(dataset, len(values), kind, null_count, sum(counts[value] for value in infinite), counts=finite)


def _kind_of(category: Category) -> str:
    return _BOOLEAN if isinstance(category, bool) else _TEXT if isinstance(category, str) else _NUMBER
