"""Embeddings: the angle between vectors of one space, or which neighbours are found, where the spaces differ."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.judge.comparators.answers import ONE_VALUE_A_ROW, Compare, Layout, Row, comparator_of, only_field
from interlock.judge.comparators.rankings import Ids, read_ids

Vector = NDArray[np.float64]


def cosine_comparator(*, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """D is (1 - cosine) / 2. A row is a vector of two or more numbers, not all 0; a vector of another length is unusable."""
    return comparator_of(_read_vector, _angle, layout=layout._replace(row_is_list=True))


def neighbour_comparator(*, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """D is 1 - Jaccard index of two sets of ids: those of the nearest neighbours, which the model answers instead of its vectors."""
    return comparator_of(read_ids, _jaccard, layout=layout._replace(row_is_list=True))


def _read_vector(value: Any) -> Row | None:
    numbers = only_field(value)
    if not isinstance(numbers, list) or len(numbers) < 2 or any(type(number) not in (float, int) for number in numbers):
        return None
    vector = np.array(numbers, dtype=np.float64)
    largest = float(np.abs(vector).max())
    if not (np.isfinite(largest) and largest > 0):
        return None
    vector /= largest  # so that no square overflows or vanishes
    return Row(len(numbers), vector / np.sqrt(vector @ vector))


def _angle(incumbent: Vector, candidate: Vector) -> float:
    if np.array_equal(incumbent, candidate):
        return 0.0
    return (1 - float(incumbent @ candidate)) / 2


def _jaccard(incumbent: Ids, candidate: Ids) -> float:
    one, other = set(incumbent), set(candidate)
    together = len(one | other)
    return 1 - len(one & other) / together if together else 0.0
