"""Class labels: another label is D = 1, or costs what the profile says."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from interlock.errors import PolicyError
from interlock.judge.comparators.answers import ONE_VALUE_A_ROW, Compare, Layout, Row, comparator_of, flatten

Label = bool | int | str


def label_comparator(labels: Sequence[Label] = (), costs: Sequence[Sequence[float]] = (), *, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """
    D is the share of rows whose labels differ; with costs, the mean cost of answering the candidate's label for the incumbent's.

    `costs[i][j]` is what label j costs where the incumbent says label i, in any unit; the largest one is D = 1. A row must be one label
    then, and a label that is not in `labels` is unusable: D = 1 from the candidate, no evidence from the incumbent.

    Raises:
        PolicyError: the costs are not square over the labels, negative, not finite, all 0, or above 0 for the same label.
    """
    if not labels and not costs:
        return comparator_of(_read_labels, _differs, layout=layout)
    scaled = _scaled(labels, costs)

    def read(value: Any) -> Row | None:
        row = _read_labels(value)
        known = row is not None and len(row.values) == 1 and _key(row.values[0]) in scaled
        return Row("label", _key(row.values[0])) if row is not None and known else None

    return comparator_of(read, lambda incumbent, candidate: scaled[incumbent][candidate], layout=layout)


_Key = tuple[str, Any]


def _key(label: Any) -> _Key:
    """1 and 1.0 are one label; 1, "1" and true are three."""
    return ("text" if isinstance(label, str) else "bool" if isinstance(label, bool) else "number"), label


def _read_labels(value: Any) -> Row | None:
    leaves: list[Any] = []
    shape = flatten(value, leaves)
    if not leaves or any(isinstance(leaf, int | float) and not math.isfinite(leaf) for leaf in leaves):
        return None
    return Row(shape, leaves)


def _differs(incumbent: Any, candidate: Any) -> float:
    return float(incumbent != candidate)


def _scaled(labels: Sequence[Label], costs: Sequence[Sequence[float]]) -> Mapping[_Key, Mapping[_Key, float]]:
    keys = [_key(label) for label in labels]
    if len(keys) < 2 or len(set(keys)) != len(keys):
        raise PolicyError(f"{len(keys)} labels ({', '.join(map(repr, labels))}), needs two or more, each once")
    if len(costs) != len(keys) or any(len(row) != len(keys) for row in costs):
        raise PolicyError(f"the costs must be {len(keys)} rows of {len(keys)} numbers, one for each label")
    numbers = [cost for row in costs for cost in row]
    if not all(math.isfinite(cost) and cost >= 0 for cost in numbers) or max(numbers) <= 0:
        raise PolicyError("costs must be finite numbers of 0 or more, and one of them above 0")
    if any(costs[i][i] != 0 for i in range(len(keys))):
        raise PolicyError("the cost of the same label must be 0")
    largest = max(numbers)
    return {a: {b: cost / largest for b, cost in zip(keys, row, strict=True)} for a, row in zip(keys, costs, strict=True)}
