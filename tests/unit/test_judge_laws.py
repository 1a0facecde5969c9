"""Laws of the judgement that hold for every table: no PASS out of little, no HALT taken back, no order, no surprise at the line."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.judge.comparators import probability_comparator
from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.pairs import Fate, PairResult
from interlock.judge.readings import JudgeOutcome
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from tests import judging
from tests.judging import BAD, CLEAN, mixed, reading, table

POLICY = dataclasses.replace(judging.POLICY, p50_slack_ms=5.0, p99_slack_ms=5.0)
GENTLE = settings(max_examples=40, deadline=None, derandomize=True)


PAIRS = st.builds(
    PairResult,
    fate=st.sampled_from([*[Fate.JUDGED] * 20, *Fate]),
    at_seconds=st.floats(0, 600),
    divergence=st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    signed=st.none() | st.floats(-1, 1),
    segment=st.sampled_from(["", "a", "b"]),
    key=st.sampled_from(["", "1", "2", "3"]),
    is_unreadable=st.booleans(),
    candidate_failed=st.booleans(),
    incumbent_failed=st.booleans(),
    live_arm=st.sampled_from(Arm),
    candidate_latency_ms=st.none() | st.floats(0, 1e6),
    incumbent_latency_ms=st.none() | st.floats(0, 1e6),
)


@GENTLE
@given(st.lists(PAIRS, max_size=60), st.booleans())
def test_nothing_that_small_ever_passes_and_every_answer_is_json(pairs: list[PairResult], is_binary: bool) -> None:
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    tally.add(pairs, 0)
    policy = dataclasses.replace(POLICY, divergence_is_binary=is_binary)
    tick, final = judge_tick(tally, policy), judge_final(tally, policy)
    assert tick.outcome in (JudgeOutcome.HALT, JudgeOutcome.CONTINUE, JudgeOutcome.INSUFFICIENT)
    assert final.outcome in (JudgeOutcome.HALT, JudgeOutcome.INSUFFICIENT)
    assert (tick.outcome is JudgeOutcome.HALT) == (final.outcome is JudgeOutcome.HALT)
    json.dumps([dataclasses.asdict(judgement) for judgement in (tick, final)], allow_nan=False)


@GENTLE
@given(st.integers(0, 300), st.integers(0, 60), st.integers(1, 200), st.floats(0, 599))
def test_more_bad_pairs_never_turn_a_halt_into_anything_else(clean: int, bad: int, more: int, at: float) -> None:
    tally = table(mixed(CLEAN, clean), mixed(BAD, bad))
    before = judge_tick(tally, POLICY)
    tally.add([pair._replace(at_seconds=at) for pair in mixed(BAD, more)], 0, is_settling=True)
    after = judge_tick(tally, POLICY)
    assert after.outcome is JudgeOutcome.HALT or before.outcome is not JudgeOutcome.HALT
    assert reading(after, "divergence").e_value >= reading(before, "divergence").e_value * (1 - 1e-9)


@GENTLE
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_judging_parts_merged_is_judging_the_union(a: int, b: int) -> None:
    parts = table(mixed(CLEAN, a)).merge(table(mixed(BAD, (b % 7)), mixed(CLEAN, b)))
    assert judge_final(parts, POLICY) == judge_final(table(mixed(BAD, (b % 7)), mixed(CLEAN, b), mixed(CLEAN, a)), POLICY)


@pytest.mark.parametrize("break_it", [lambda t: t.errors._counts.fill(-5), lambda t: setattr(t, "latency", None)])
def test_a_corrupted_table_never_passes(break_it: Callable[[Tally], None]) -> None:
    tally = table(mixed(CLEAN, 2000))
    break_it(tally)
    assert judge_final(tally, POLICY).outcome is not JudgeOutcome.PASS


def test_the_first_halt_is_the_first_look_at_which_the_sum_reaches_the_line() -> None:
    tally = table(mixed(CLEAN, 200))
    sums = []
    for _ in range(40):
        tally.add([CLEAN._replace(at_seconds=599.0, divergence=0.25)], 0, is_settling=True)
        judgement = judge_tick(tally, POLICY)
        sums.append(judgement.e_value)
        assert (judgement.outcome is JudgeOutcome.HALT) == (judgement.e_value >= judgement.halting_line)
        by_hand = [signal.e_value / signal.halting_e_value for signal in judgement.signals if signal.halting_e_value]
        assert math.fsum(by_hand) == pytest.approx(judgement.e_value / judgement.halting_line)
    assert sums[0] < 100 < sums[-1]
    assert any(100 <= total < 1000 for total in sums)


def _slower(latency_ms: float | None, by: float) -> float | None:
    """No answer at all is as slow as can be already."""
    return None if latency_ms is None else latency_ms * (1 + 4 * by) + 100 * by


WORSE: dict[str, Callable[[PairResult, float], PairResult]] = {
    "divergence": lambda pair, by: pair._replace(divergence=min(1.0, (pair.divergence or 0.0) + by)),
    "errors": lambda pair, by: pair._replace(candidate_failed=True),
    "p50": lambda pair, by: pair._replace(candidate_latency_ms=_slower(pair.candidate_latency_ms, by)),
    "p99": lambda pair, by: pair._replace(candidate_latency_ms=None),
}


@pytest.mark.parametrize("name", WORSE)
@GENTLE
@given(st.lists(PAIRS, min_size=1, max_size=80), st.data())
def test_a_pair_that_is_worse_never_weakens_the_evidence(name: str, pairs: list[PairResult], data: st.DataObject) -> None:
    """Monotone in the effect, pair by pair, and so in every effect size."""
    worse = [
        WORSE[name](pair, data.draw(st.floats(0, 1))) if pair.fate is Fate.JUDGED and data.draw(st.booleans()) else pair for pair in pairs
    ]
    readings = []
    for each in (pairs, worse):
        tally = Tally(start_seconds=0.0, window_seconds=5.0)
        tally.add([pair._replace(divergence=pair.divergence or 0.0) for pair in each], 0)
        readings.append(reading(judge_tick(tally, POLICY), name))
    assert readings[1].e_value >= readings[0].e_value * (1 - 1e-9)


@GENTLE
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0), st.sampled_from([(0.5, 0.5), (2.0, 5.0), (1.0, 1.0), (5.0, 2.0)]))
def test_permuted_predictions_are_found_whatever_they_are(seed: int, share: float, shape: tuple[float, float]) -> None:
    """Every marginal stays as it was: nothing that looks at one arm at a time can see it."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(*shape, 1500)
    served, moved = scores.copy(), rng.choice(1500, int(share * 1500), replace=False)
    served[moved] = served[rng.permutation(moved)]
    compare = probability_comparator()
    differences = [compare(json.dumps({"predictions": [a]}), json.dumps({"predictions": [b]})) for a, b in zip(scores, served, strict=True)]
    assert all(difference is not None for difference in differences)
    pairs = [pair._replace(divergence=d.divergence) for pair, d in zip(mixed(CLEAN, 1500), differences, strict=True) if d is not None]
    assert judge_tick(table(pairs), dataclasses.replace(POLICY, divergence_is_binary=False)).decided_by == "divergence"


@GENTLE
@given(
    st.lists(st.none() | st.floats() | st.text() | st.integers() | st.just({}), min_size=1, max_size=30), st.sampled_from(["both", "ours"])
)
def test_garbage_for_predictions_never_passes_and_leaves_the_other_signals_judged(values: list[Any], whose: str) -> None:
    """NaN, infinity, null, text, nothing: from the candidate it is divergence, from the incumbent it says nothing."""
    compare, good = probability_comparator(), '{"predictions": [0.25]}'
    bodies = [json.dumps({"predictions": value}) for value in values]
    found = [compare(good if whose == "ours" else body, body) for body in bodies]
    pairs = [
        pair._replace(divergence=d.divergence if d else None, is_unreadable=d is None)
        for pair, d in zip(mixed(CLEAN, len(found)), found, strict=True)
    ]
    policy = dataclasses.replace(POLICY, divergence_is_binary=False)
    judgement = judge_final(table(pairs), policy)
    assert judgement.outcome in (JudgeOutcome.INSUFFICIENT, JudgeOutcome.HALT)
    assert judgement.reason
    assert reading(judgement, "errors").sample_count == reading(judgement, "slo_error_share").sample_count == len(pairs)
    assert reading(judgement, "p50").is_usable
