"""Laws of the judgement that hold for every table: no PASS out of little, no HALT taken back, no order, no surprise at the line."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.pairs import Fate, PairResult
from interlock.judge.readings import Judgement, JudgeOutcome, SignalReading
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from tests import judging
from tests.judging import BAD, CLEAN, mixed

POLICY = dataclasses.replace(judging.POLICY, p50_slack_ms=5.0, p99_slack_ms=5.0)
GENTLE = settings(max_examples=40, deadline=None, derandomize=True)


def table(*groups: Iterable[PairResult], seconds: float = 600.0) -> Tally:
    """Pairs of each group spread evenly over the canary; the groups run side by side."""
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    for group in groups:
        pairs = list(group)
        tally.add([pair._replace(at_seconds=i * seconds / len(pairs)) for i, pair in enumerate(pairs)], 0)
    return tally


def reading(judgement: Judgement, name: str) -> SignalReading:
    return next(signal for signal in judgement.signals if signal.name == name)


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
