"""The count table: order-free, mergeable, and refusing what is not a count."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.errors import EvidenceError
from interlock.judge.grids import DIVERGENCE_NODES, LATENCY_LOWER_MS, LATENCY_UPPER_MS, UNITS_PER_PAIR, latency_cells, share_units
from interlock.judge.pairs import Fate, PairResult
from interlock.judge.tally import LatencyKey, Tally
from interlock.model.journal import Arm, Role

LATENCIES = st.none() | st.floats(0, 1e7)
PAIRS = st.builds(
    PairResult,
    fate=st.sampled_from(Fate),
    at_seconds=st.floats(-20, 500),
    divergence=st.none() | st.floats(0, 1) | st.sampled_from([0.0, 1.0]),
    signed=st.none() | st.floats(-1, 1),
    segment=st.sampled_from(["", "a", "b", "c"]),
    key=st.text(max_size=3),
    candidate_failed=st.booleans(),
    incumbent_failed=st.booleans(),
    live_arm=st.sampled_from(Arm),
    candidate_latency_ms=LATENCIES,
    incumbent_latency_ms=LATENCIES,
    is_unreadable=st.booleans(),
)
BATCHES = st.lists(st.tuples(st.lists(PAIRS, max_size=8), st.integers(0, 3)), max_size=6)
GENTLE = settings(max_examples=60, deadline=None, derandomize=True)


def tally(*batches: tuple[list[PairResult], int]) -> Tally:
    table = Tally(start_seconds=0.0, window_seconds=5.0, segments=("a", "b"))
    for pairs, step in batches:
        table.add(pairs, step)
    return table


@GENTLE
@given(BATCHES, BATCHES)
def test_merging_is_commutative_and_equals_the_union(a: list[Any], b: list[Any]) -> None:
    left, right = tally(*a), tally(*b)
    before = left.to_dict()
    assert left.merge(right) == right.merge(left) == tally(*a, *b)
    assert left.to_dict() == before, "merging changes neither part"


@GENTLE
@given(BATCHES)
def test_the_order_of_pairs_does_not_matter(batches: list[Any]) -> None:
    assert tally(*batches) == tally(*[(pairs[::-1], step) for pairs, step in batches[::-1]])


@GENTLE
@given(BATCHES)
def test_json_keeps_the_table(batches: list[Any]) -> None:
    table = tally(*batches)
    assert Tally.from_dict(json.loads(json.dumps(table.to_dict(), allow_nan=False))) == table


def test_a_table_with_other_windows_is_not_merged() -> None:
    with pytest.raises(EvidenceError, match="windows"):
        tally().merge(Tally(start_seconds=0.0, window_seconds=6.0))


def edited(path: list[Any], value: Any) -> dict[str, Any]:
    pair = PairResult(Fate.JUDGED, 1.0, 0.5, True, False, Arm.CANDIDATE, 5.0, 6.0)
    document = copy.deepcopy(tally(([pair] * 3, 0)).to_dict())
    target: Any = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(["format"], "judge-tally/v0", id="another format"),
        pytest.param(["start_seconds"], math.nan, id="nan as a start"),
        pytest.param(["window_seconds"], 0, id="windows without length"),
        pytest.param(["window_seconds"], "5", id="text as a length"),
        pytest.param(["grids", 0, 0, 2, 0, 1], -1, id="a negative count"),
        pytest.param(["grids", 0, 0, 2, 0, 1], math.nan, id="nan as a count"),
        pytest.param(["grids", 0, 0, 2, 0, 1], 4096.0, id="a float as a count"),
        pytest.param(["grids", 0, 0, 2, 0, 1], True, id="true as a count"),
        pytest.param(["grids", 0, 0, 2, 0, 1], 10**40, id="a count beyond 64 bits"),
        pytest.param(["grids", 0, 0, 2, 0, 0], 9999, id="a cell outside the grid"),
        pytest.param(["grids", 2, 0, 2, 0, 1], 2, id="an error count that was lowered"),
        pytest.param(["latency"], [], id="latencies that were cut"),
        pytest.param(["counters", "judged"], 2, id="a pair count that was lowered"),
        pytest.param(["counters", "broken?"], 1, id="an unknown counter"),
        pytest.param(["counters"], None, id="no counters"),
        pytest.param(["grids"], "boom", id="text instead of a table"),
    ],
)
def test_a_document_that_is_no_table_is_refused(path: list[Any], value: Any) -> None:
    with pytest.raises(EvidenceError):
        Tally.from_dict(edited(path, value))


@pytest.mark.parametrize("divergence", [math.nan, math.inf, -0.1, 1.1])
def test_a_divergence_that_is_none_is_refused_loudly(divergence: float) -> None:
    with pytest.raises(EvidenceError, match="divergence"):
        tally(([PairResult(Fate.JUDGED, 1.0, divergence)], 0))


def test_each_pair_gives_one_latency_to_each_arm_in_its_role_and_silence_is_slowest() -> None:
    table = tally(([PairResult(Fate.JUDGED, 1.0, 0.0, False, False, Arm.CANDIDATE, None, 10.0)], 2))
    assert set(table.latency) == {
        LatencyKey(2, 0, 0, Arm.CANDIDATE, Role.LIVE),
        LatencyKey(2, 0, 0, Arm.INCUMBENT, Role.MIRROR),
    }
    assert table.latency[LatencyKey(2, 0, 0, Arm.CANDIDATE, Role.LIVE)][-1] == 1


def test_missing_share_counts_dropped_lonely_and_unreadable_pairs() -> None:
    good = PairResult(Fate.JUDGED, 1.0, 0.0)
    unreadable = PairResult(Fate.JUDGED, 1.0, None, is_unreadable=True)
    results = [good] * 6 + [unreadable, PairResult(Fate.DROPPED, 1.0), PairResult(Fate.INCUMBENT_MISSING, 1.0), PairResult(Fate.LATE, 1.0)]
    assert tally((results, 0)).missing_share == pytest.approx(3 / 9)
    assert tally().missing_share == 0.0


@GENTLE
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.9))
def test_the_divergence_grid_never_overstates_the_evidence_of_a_bet(values: list[float], mean: float) -> None:
    data = np.array(values)
    lower, above = share_units(data)
    weights = np.bincount(lower, UNITS_PER_PAIR - above, DIVERGENCE_NODES.size) + np.bincount(
        np.minimum(lower + 1, DIVERGENCE_NODES.size - 1), above, DIVERGENCE_NODES.size
    )
    assert weights.sum() == UNITS_PER_PAIR * data.size
    for stake in (0.05 / mean, 0.98 / mean):
        from_table = weights @ np.log1p(stake * (DIVERGENCE_NODES - mean)) / UNITS_PER_PAIR
        assert from_table <= np.log1p(stake * (data - mean)).sum() + 1e-9


@GENTLE
@given(st.floats(0, 1e9))
def test_a_latency_lies_in_its_cell(latency_ms: float) -> None:
    cell = int(latency_cells(np.array([latency_ms]))[0])
    assert LATENCY_LOWER_MS[cell] <= latency_ms < LATENCY_UPPER_MS[cell]


def test_a_clock_set_back_or_far_ahead_costs_no_memory() -> None:
    table = tally(([PairResult(Fate.JUDGED, at, 0.0) for at in (-1e12, 0.0, 1e12)], 0))
    assert len(table.to_dict()["grids"][0]) == 2
