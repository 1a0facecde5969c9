"""Answers of any kind as one plain number or category a row: what prediction drift is measured on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from interlock.control.gates.inputs import Answerer
from interlock.errors import EvidenceError
from interlock.profile.output import AnyOutput

BLOCK_ROW_COUNT = 50_000  # rows asked at once: what a model and the JSON of its answers take is bounded


@dataclass(frozen=True, slots=True)
class PlainAnswers:
    """
    A model version's answers, one plain value a row.

    A quantity is itself; of probabilities it is that of class 1, or the largest where there are more classes; of a vector the length, of a
    text the count of words, of a document that of values. A label is itself, a list of ids the first one.
    """

    output: AnyOutput
    model: Answerer

    @property
    def kind(self) -> Literal["number", "category"]:
        """Whether they are measured as numbers or as categories."""
        is_list_of_ids = self.output.type == "ranking" or self.output.comparator == "neighbours"
        return "category" if is_list_of_ids or self.output.type == "label" else "number"

    def read(self, frame: pd.DataFrame) -> "pd.Series[Any]":
        """
        The candidate's answers to these rows; one that is not of the output's kind is missing.

        Raises:
            ReleaseError: it does not answer them, or not once each.
        """
        plain = _plain_of(self.output)
        found: list[Any] = []
        for start in range(0, len(frame), BLOCK_ROW_COUNT):
            rows = frame.iloc[start : start + BLOCK_ROW_COUNT].copy()  # a model may write into what it is given
            answers = self.model.answers(rows)
            if len(answers) != len(rows):
                raise EvidenceError(f"the candidate gave {len(answers)} answers to {len(rows)} rows, needs one for each")
            found += [plain(_alone(answer, self.output)) for answer in answers]
        return pd.Series(found, dtype="float64" if self.kind == "number" else "object")


def _alone(answer: Any, output: AnyOutput) -> Any:
    """The value of a record with one field, as a model with a named output answers."""
    return next(iter(answer.values())) if output.type != "json" and isinstance(answer, dict) and len(answer) == 1 else answer


def _plain_of(output: AnyOutput) -> Callable[[Any], Any]:
    if output.comparator == "neighbours":
        return _first
    return {
        "probability": _probability,
        "regression": _number,
        "label": _label,
        "ranking": _first,
        "embedding": _length,
        "text": lambda answer: float(len(answer.split())) if isinstance(answer, str) else math.nan,
        "json": lambda answer: float(_value_count(answer)) if isinstance(answer, dict) else math.nan,
    }[output.type]


def _number(answer: Any) -> float:
    return float(answer) if isinstance(answer, int | float) else math.nan


def _probability(answer: Any) -> float:
    if not isinstance(answer, list):
        return _number(answer)
    shares = [_number(share) for share in answer]
    return math.nan if not shares or any(map(math.isnan, shares)) else shares[1] if len(shares) == 2 else max(shares)


def _label(answer: Any) -> Any:
    return answer if isinstance(answer, str | int | float) else None


def _first(answer: Any) -> Any:
    """Of a list of ids; an empty one is a category of its own, as text: it is an answer."""
    if not isinstance(answer, list):
        return None
    return str(answer[0]) if answer else "nothing"


def _length(answer: Any) -> float:
    return math.hypot(*map(_number, answer)) if isinstance(answer, list) and answer else math.nan


def _value_count(answer: Any) -> int:
    if isinstance(answer, dict | list):
        return sum(map(_value_count, answer.values() if isinstance(answer, dict) else answer))
    return 1
