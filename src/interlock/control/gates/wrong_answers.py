"""Answers that contradict every label, for every kind of answer: wrong whatever the metric, and whatever the incumbent is worth."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from interlock.control.gates.distances import Divergence, as_texts, as_values, distances, right_answers
from interlock.control.gates.inputs import Answerer
from interlock.errors import EvidenceError
from interlock.profile.output import AnyOutput, CostMatrix

SURE = 0.99
MANY = 100.0  # standard deviations of the labels: beyond any model, however bad
CLASS_COUNT = 50  # the most frequent ones; with more there is no telling which is farthest
NO_WORD = "qxzqxz"  # a token of no text
NO_ID = -(2**62)

# The right answer to a row, and which share of the rows comes before it -> answers in the same form that are all wrong.
_Propose: TypeAlias = Callable[[Any, float], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Contradicting:
    """A model that is wrong about each of the labelled rows, in the form of another one's answers. labels: in the order of the rows."""

    model: Answerer
    labels: Sequence[Any]
    output: AnyOutput
    divergence: Divergence

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        """A wrong answer to each row. The rows are those of the labels, all of them: they do not carry their labels."""
        if len(frame) != len(self.labels):
            raise EvidenceError(
                f"{len(frame)} rows were asked about, there are {len(self.labels)} labels to contradict: ask about all at once"
            )
        return wrong_answers(self.labels, self.model.answers(frame), output=self.output, divergence=self.divergence)


def wrong_answers(labels: Sequence[Any], answers: Sequence[Any], *, output: AnyOutput, divergence: Divergence) -> list[Any]:
    """One wrong answer a row; where several come to mind, the one that is farthest from the label by the profile's comparator."""
    plain = [float(label) if isinstance(label, Decimal) else label for label in labels]
    rights = right_answers(plain, answers, are_classes=divergence.labels_are_classes)
    propose, known = _proposals(output, rights, answers), dict[str, Any]()
    found = []
    for index, right in enumerate(rights):
        wrong = propose(right, index / len(rights))
        if len(wrong) > 1:  # the same for the same label
            text = json.dumps(right)
            known[text] = known.get(text) or [_farthest(divergence, right, wrong)]
            wrong = known[text]
        found.append(wrong[0])
    return found


def _farthest(divergence: Divergence, right: Any, wrong: Sequence[Any]) -> Any:
    between = distances(divergence.compare, as_texts([right]) * len(wrong), as_texts(wrong))
    return wrong[int(np.argmax(np.nan_to_num(between, nan=-1.0)))]


def _proposals(output: AnyOutput, rights: Sequence[Any], answers: Sequence[Any]) -> _Propose:
    if output.type == "label":
        return partial(_other_classes, _classes(output, rights, answers))
    if output.type == "probability" or (output.type == "regression" and _are_probabilities(rights, answers)):
        return _certain
    if output.type == "regression":
        return _far_away(rights)
    if output.type == "ranking" or output.comparator == "neighbours":
        return _other_ids
    return {"embedding": _opposite, "text": _other_text, "json": _other_document}[output.type]


def _are_probabilities(rights: Sequence[Any], answers: Sequence[Any]) -> bool:
    """Whether a quantity is the probability of label 1 in all but name."""
    values = as_values(answers)
    return values.dtype.kind == "f" and bool(((values >= 0) & (values <= 1)).all()) and {*_leaves(rights)} <= {0, 1}


def _certain(right: Any, share: float) -> Sequence[Any]:
    """Certainty of another class. No two rows are alike: in a tie the average precision is that of a coin."""
    shares, doubt = list(_leaves(right)), (1 - SURE) * (1 - share / 2)
    if len(shares) == 1:
        is_one = _is_number(shares[0]) and shares[0] >= 0.5
        return [_replaced(right, lambda _: doubt if is_one else 1 - doubt)]
    least = shares.index(min(shares))
    wrong = iter([1 - doubt if index == least else doubt / (len(shares) - 1) for index in range(len(shares))])
    return [_replaced(right, lambda _: next(wrong))]


def _far_away(rights: Sequence[Any]) -> _Propose:
    """Large where the label is small, and small where it is large: far off, and in the opposite order."""
    numbers = np.array([leaf for leaf in _leaves(rights) if _is_number(leaf)] or [0.0], dtype=np.float64)
    middle = (float(numbers.min()) + float(numbers.max())) / 2
    far = MANY * (float(numbers.std()) or max(1.0, abs(middle)))

    def moved(label: Any) -> Any:
        return label if not _is_number(label) else label - far if label > middle else label + far

    return lambda right, _: [_replaced(right, moved)]


def _classes(output: AnyOutput, rights: Sequence[Any], answers: Sequence[Any]) -> list[Any]:
    """The classes that there are, an invented one when there is only one."""
    counts = Counter(leaf for leaf in (*_leaves(answers), *_leaves(rights)) if isinstance(leaf, str) or _is_number(leaf))
    found = [name for name, _ in counts.most_common(CLASS_COUNT)]
    found += [name for name in (output.labels if isinstance(output, CostMatrix) else ()) if name not in counts]
    return found if len(found) > 1 else [*found, *map(_changed, found)]


def _other_classes(classes: Sequence[Any], right: Any, _: float) -> Sequence[Any]:
    """Numbers far away first."""
    first = next(_leaves(right), None)
    gap = (lambda name: abs(name - first) if _is_number(name) else 0.0) if _is_number(first) else (lambda _: 0.0)
    ordered = sorted((name for name in classes if name != first), key=gap, reverse=True)
    return [_replaced(right, partial(_other_than, [name, *ordered])) for name in ordered] or [right]


def _other_than(names: Sequence[Any], label: Any) -> Any:
    return next((name for name in names if name != label), _changed(label))


def _other_ids(right: Any, share: float) -> Sequence[Any]:
    if isinstance(right, dict) and len(right) == 1:
        return [{name: _other_ids(ids, share)[0] for name, ids in right.items()}]
    ids = right if isinstance(right, list) and right else [right]
    return [[f"{NO_WORD}{index}" if isinstance(one, str) else NO_ID - index for index, one in enumerate(ids)]]


def _opposite(right: Any, _: float) -> Sequence[Any]:
    return [_replaced(right, lambda leaf: -leaf if _is_number(leaf) else leaf)]


def _other_text(right: Any, _: float) -> Sequence[Any]:
    return [_replaced(right, lambda _: NO_WORD)]


def _other_document(right: Any, _: float) -> Sequence[Any]:
    return [_replaced(right, _changed)]


def _changed(leaf: Any) -> Any:
    """Another value of the same kind; of a text that holds an object, another object."""
    if isinstance(leaf, bool):
        return not leaf
    if _is_number(leaf):
        return leaf + 1 if abs(leaf) < 1 / np.finfo(float).eps else -leaf
    try:
        held = json.loads(leaf) if isinstance(leaf, str) else None
    except (ValueError, RecursionError):
        held = None
    if isinstance(held, dict):
        return json.dumps(_replaced(held, _changed))
    return f"{leaf}{NO_WORD}" if isinstance(leaf, str) else NO_WORD


def _replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same form with other leaves. An empty list or record is given one: it has nothing else to be changed."""
    if isinstance(value, dict):
        return {name: _replaced(one, change) for name, one in value.items()} or {NO_WORD: NO_WORD}
    if isinstance(value, list):
        return [_replaced(one, change) for one in value] or [NO_WORD]
    return change(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
