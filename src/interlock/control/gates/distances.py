"""Offline answers of any type: as numbers or labels where they are such, and how far from one another by the profile's comparator."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.control.gates.metrics import Numbers
from interlock.judge.comparators import Compare

_SUM_SLACK = 1e-6
_LARGEST_EXACT = 2**53  # beyond it neighbouring whole numbers are the same float


@dataclass(frozen=True, slots=True)
class Divergence:
    """
    How the canary will compare two answers to one row, and the mean D that it will tolerate.

    labels_are_classes: the answers are class probabilities; to a row with several of them label i is certainty of class i.
    """

    compare: Compare
    tolerance: float
    labels_are_classes: bool = False


def as_values(answers: Sequence[Any]) -> NDArray[Any]:
    """
    One value a row, shape (n,): floats (null as NaN) where all answers are numbers that floats hold exactly, else objects.

    A list or record of one value is that value; probabilities of two classes are those of the second.
    """
    kinds = set(map(type, answers))
    if kinds <= {list, dict} and kinds:
        rows = [list(answer.values()) if isinstance(answer, dict) else answer for answer in answers]
        widths = set(map(len, rows))
        if widths == {1}:
            return as_values([row[0] for row in rows])
        if widths == {2} and all(map(_is_distribution, rows)):
            return np.array([row[1] for row in rows], dtype=np.float64)
    if kinds <= {int, float, bool, type(None)} and not are_beyond_floats(answers):
        return np.array([np.nan if answer is None else answer for answer in answers], dtype=np.float64)
    return np.fromiter(answers, dtype=object, count=len(answers))


def are_beyond_floats(values: Sequence[Any]) -> bool:
    """Whether a whole number among them is so large that two different ones would be one float: identifiers are."""
    return any(isinstance(value, int) and abs(value) > _LARGEST_EXACT for value in values)


def as_texts(answers: Sequence[Any]) -> list[str]:
    """Each answer as the server's body for a request of that row alone."""
    return [f'{{"predictions": [{text}]}}' for text in map(json.dumps, answers)]


def label_texts(labels: Sequence[Any], answers: Sequence[Any], *, are_classes: bool) -> list[str]:
    """Each label as the body of the answer that would have been right."""
    return as_texts(right_answers(labels, answers, are_classes=are_classes))


def right_answers(labels: Sequence[Any], answers: Sequence[Any], *, are_classes: bool) -> list[Any]:
    """Each label as the answer that would have been right: in the form of the answer to its row."""
    return [_in_form(label, answer, are_classes) for label, answer in zip(labels, answers, strict=True)]


def distances(compare: Compare, expected: Sequence[str], answers: Sequence[str]) -> Numbers:
    """D of each answer, shape (n,); NaN where what was expected, or the answer itself, cannot be compared."""
    return np.array([_distance(compare, one, two) for one, two in zip(expected, answers, strict=True)], dtype=np.float64)


def _distance(compare: Compare, expected: str, answer: str) -> float:
    difference = compare(expected, answer)
    if difference is None:
        return np.nan
    is_farthest = difference.divergence >= 1.0  # so it is for an answer that cannot be read, and nobody may call that an error of so much
    return np.nan if is_farthest and compare(answer, None) is None else difference.divergence


def _in_form(label: Any, answer: Any, are_classes: bool) -> Any:
    label = label.tolist() if isinstance(label, np.ndarray | np.generic) else label
    if isinstance(answer, dict) and len(answer) == 1 and not isinstance(label, dict):
        return {name: _in_form(label, value, are_classes) for name, value in answer.items()}
    values = list(answer.values()) if isinstance(answer, dict) else answer
    if not isinstance(values, list) or isinstance(label, list | dict):
        return label
    if len(values) == 1:
        right = [label]
    elif are_classes and label in range(len(values)):
        right = [float(index == label) for index in range(len(values))]
    else:
        return label
    return dict(zip(answer, right, strict=True)) if isinstance(answer, dict) else right


def _is_distribution(row: Sequence[Any]) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) and value >= -_SUM_SLACK for value in row)
    return numbers and abs(sum(row) - 1) <= _SUM_SLACK
