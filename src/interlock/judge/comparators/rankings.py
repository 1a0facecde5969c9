"""Rankings: lists of ids, the best first. A list that is shorter lacks what the other one has there, and that is a difference."""

import math
from collections.abc import Sequence
from typing import Any

from interlock.errors import PolicyError
from interlock.judge.comparators.answers import ONE_VALUE_A_ROW, Compare, Layout, Row, comparator_of, only_field

_ID_BITS = 64

Ids = Sequence[int | str]


def rank_biased_comparator(*, persistence: float, depth: int, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """
    D is 1 - rank-biased overlap of the first `depth` ids, scaled so that equal lists give exactly 0.

    persistence: how likely a user looks at the next rank, 0 < p < 1. The weight of rank d is p^(d - 1): .9 puts 65 % on the first ten.
    Raises PolicyError when the persistence is outside 0..1 or the depth below 1. Source: Webber, Moffat & Zobel 2010.
    """
    if not 0 < persistence < 1:
        raise PolicyError(f"persistence is {persistence!r}, needs a number between 0 and 1")
    _require_depth(depth)
    layout = layout._replace(row_is_list=True)
    return comparator_of(read_ids, lambda a, b: _rank_biased(a[:depth], b[:depth], persistence), layout=layout)


def overlap_comparator(*, depth: int, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """D is the share of the first `depth` ids that the other list does not have among its first. PolicyError when the depth is below 1."""
    _require_depth(depth)
    layout = layout._replace(row_is_list=True)
    return comparator_of(read_ids, lambda a, b: _missing_share(a[:depth], b[:depth]), layout=layout)


def read_ids(value: Any) -> Row | None:
    """A list of whole numbers of 64 bits or texts, none of them twice; it may be empty. Also as the only field of a record."""
    ids = only_field(value)
    if not isinstance(ids, list) or not all(map(_is_id, ids)):
        return None
    return Row("ids", ids) if len(set(ids)) == len(ids) else None


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and value.bit_length() <= _ID_BITS)


def _rank_biased(one: Ids, other: Ids, persistence: float) -> float:
    """Agreement at each depth is the overlap over the depth; both lists end at the longer one's length."""
    if one == other:
        return 0.0
    seen_one, seen_other = set[int | str](), set[int | str]()
    overlap_count, weight, weights, lacking = 0, 1.0, list[float](), list[float]()
    for depth in range(1, max(len(one), len(other)) + 1):
        for ids, seen, seen_there in ((one, seen_one, seen_other), (other, seen_other, seen_one)):
            if depth <= len(ids):
                seen.add(ids[depth - 1])
                overlap_count += ids[depth - 1] in seen_there
        weights.append(weight)
        lacking.append(weight * (1 - overlap_count / depth))
        weight *= persistence
    return math.fsum(lacking) / math.fsum(weights)


def _missing_share(one: Ids, other: Ids) -> float:
    longer = max(len(one), len(other))
    return 1 - len(set(one) & set(other)) / longer if longer else 0.0


def _require_depth(depth: int) -> None:
    if depth < 1:
        raise PolicyError(f"depth is {depth}, needs 1 or more")
