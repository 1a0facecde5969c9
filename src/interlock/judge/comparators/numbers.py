"""Class probabilities and quantities."""

import math
from typing import Any

from interlock.judge.comparators.answers import (
    ONE_VALUE_A_ROW,
    Compare,
    Layout,
    Row,
    RowDifference,
    comparator_of,
    flatten,
    require_positive,
)

_SUM_SLACK = 1e-2  # class probabilities rounded to 2 or 3 digits still count as a distribution
_RANGE_SLACK = 1e-6  # float32 soft-max may give 1.0000001

Numbers = list[float]


def probability_comparator(*, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """D is the total variation distance. A row is P(class 1), or the probabilities of all classes, which sum to about 1."""
    return comparator_of(_read_distribution, _total_variation, layout=layout)


def difference_comparator(*, scale_units: float, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """
    D is min(1, |difference| / scale), averaged over the numbers of a row. Raises PolicyError unless the scale is finite and above 0.

    scale_units: a difference this large, in the output's own unit, is as far as can be.
    """
    scale = require_positive("scale_units", scale_units)

    def differ(incumbent: Numbers, candidate: Numbers) -> float:
        return math.fsum(min(1.0, abs(b - a) / scale) for a, b in zip(incumbent, candidate, strict=True)) / len(incumbent)

    return comparator_of(_read_numbers, differ, layout=layout, signed=_signed_by(scale))


def exceeds_comparator(*, tolerance_units: float, scale_units: float, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """
    D is 1 where any number of the row differs by more than the tolerance, else 0. Raises PolicyError unless both are finite and above 0.

    scale_units: what the signed difference is measured by, in the output's own unit.
    """
    tolerance = require_positive("tolerance_units", tolerance_units)

    def differ(incumbent: Numbers, candidate: Numbers) -> float:
        return float(any(abs(b - a) > tolerance for a, b in zip(incumbent, candidate, strict=True)))

    return comparator_of(_read_numbers, differ, layout=layout, signed=_signed_by(require_positive("scale_units", scale_units)))


def _signed_by(scale: float) -> RowDifference:
    def signed(incumbent: Numbers, candidate: Numbers) -> float:
        return math.fsum(max(-1.0, min(1.0, (b - a) / scale)) for a, b in zip(incumbent, candidate, strict=True)) / len(incumbent)

    return signed


def _total_variation(incumbent: Numbers, candidate: Numbers) -> float:
    total = math.fsum(abs(a - b) for a, b in zip(incumbent, candidate, strict=True))
    return total if len(incumbent) == 1 else 0.5 * total


def _read_numbers(value: Any) -> Row | None:
    leaves: list[Any] = []
    shape = flatten(value, leaves)
    if not leaves or any(isinstance(leaf, bool | str) for leaf in leaves):
        return None
    numbers = [float(leaf) for leaf in leaves]
    return Row(shape, numbers) if all(map(math.isfinite, numbers)) else None


def _read_distribution(value: Any) -> Row | None:
    """One number is P(class 1); several are the probabilities of all classes and must sum to about 1."""
    row = _read_numbers(value)
    if row is None or not all(-_RANGE_SLACK <= number <= 1 + _RANGE_SLACK for number in row.values):
        return None
    return row if len(row.values) == 1 or abs(math.fsum(row.values) - 1) <= _SUM_SLACK else None
