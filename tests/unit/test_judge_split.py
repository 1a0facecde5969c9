"""A split that is not the one asked for is no verdict; a true one is left alone, look after look."""

import dataclasses

import numpy as np
import pytest

from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.keys import KeyMemory
from interlock.judge.pairs import Fate, PairResult
from interlock.judge.policy import StepPlan
from interlock.judge.readings import JudgeOutcome
from interlock.judge.split import is_broken_split, read_sample_ratio
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from tests import judging
from tests.judging import BAD, CLEAN, mixed

SHARES = (0.0, 0.05, 0.5, 1.0)
POLICY = dataclasses.replace(judging.POLICY, p50_slack_ms=5.0, p99_slack_ms=5.0, steps=tuple(StepPlan(share, 150.0) for share in SHARES))


def served(step: int, candidate_count: int, incumbent_count: int, pair: PairResult = CLEAN) -> Tally:
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    pairs = [pair._replace(live_arm=Arm.CANDIDATE)] * candidate_count + [pair._replace(live_arm=Arm.INCUMBENT)] * incumbent_count
    tally.add(pairs, step)
    return tally


def test_a_true_split_is_almost_never_called_broken_however_often_one_looks() -> None:
    rng, broken = np.random.default_rng(5), 0
    for _ in range(150):
        tally = Tally(start_seconds=0.0, window_seconds=5.0)
        for step, share in enumerate(SHARES):
            for _ in range(10):
                hits = int(rng.binomial(200, share))
                tally.assigned.update({(step, step, Arm.CANDIDATE): hits, (step, step, Arm.INCUMBENT): 200 - hits})
                broken += is_broken_split(read_sample_ratio(tally, POLICY))
    assert broken == 0, "one canary in a thousand at most"


@pytest.mark.parametrize(
    ("step", "candidate_count", "incumbent_count"),
    [
        pytest.param(0, 20, 980, id="users on the candidate while it should have none"),
        pytest.param(1, 150, 850, id="three times the share"),
        pytest.param(1, 0, 1000, id="nobody where it should be one in twenty"),
        pytest.param(2, 700, 300, id="seven in ten instead of half"),
        pytest.param(2, 300, 700, id="three in ten instead of half"),
        pytest.param(3, 980, 20, id="users on the incumbent after the promotion"),
    ],
)
@pytest.mark.parametrize("pair", [CLEAN, CLEAN._replace(divergence=1.0)], ids=["clean", "diverging"])
def test_a_broken_split_is_never_a_verdict(step: int, candidate_count: int, incumbent_count: int, pair: PairResult) -> None:
    tally = served(step, candidate_count, incumbent_count, pair)
    for judge in (judge_tick, judge_final):
        judgement = judge(tally, POLICY)
        assert judgement.outcome is JudgeOutcome.INSUFFICIENT
        assert judgement.is_blind
        assert f"SPLIT_BROKEN: {candidate_count} of 1000" in judgement.reason


def test_the_hard_ceiling_halts_also_under_a_broken_split() -> None:
    assert judge_tick(served(2, 700, 300, BAD), POLICY).decided_by == "slo"


def test_the_few_requests_that_were_routed_before_the_step_break_nothing() -> None:
    late = served(3, 1999, 1)
    assert not is_broken_split(read_sample_ratio(late, POLICY))
    late.add([CLEAN._replace(live_arm=Arm.INCUMBENT)] * 100, 3, is_settling=True)
    assert not is_broken_split(read_sample_ratio(late, POLICY))


def test_lost_pairs_count_too_so_that_drops_on_one_arm_look_like_no_broken_split() -> None:
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    tally.add(mixed(CLEAN, 1000)[::2], 2)
    tally.add([PairResult(Fate.DROPPED, 1.0, live_arm=Arm.INCUMBENT)] * 250, 2)
    tally.add([PairResult(Fate.INCUMBENT_MISSING, 1.0, live_arm=Arm.INCUMBENT)] * 250, 2)
    assert not is_broken_split(read_sample_ratio(tally, POLICY))


@pytest.mark.parametrize("before", [0, 100_000], ids=["at once", "after a long good past"])
def test_a_split_that_breaks_late_is_found_about_as_soon_as_one_that_breaks_at_once(before: int) -> None:
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    tally.assigned.update({(0, 0, Arm.INCUMBENT): before, (2, 0, Arm.CANDIDATE): before // 2, (2, 0, Arm.INCUMBENT): before // 2})
    asked = 0
    while not is_broken_split(read_sample_ratio(tally, POLICY)):
        tally.assigned.update({(2, 3, Arm.CANDIDATE): 60, (2, 3, Arm.INCUMBENT): 40})
        asked += 100
        assert asked <= 1500
    assert asked >= 300


def test_where_keys_are_the_unit_each_key_counts_once_for_the_split() -> None:
    policy = dataclasses.replace(POLICY, is_keyed=True, window_seconds=10.0)
    tally, memory = Tally.for_policy(policy, start_seconds=0.0), KeyMemory()
    for window in range(20):
        asked = [CLEAN._replace(at_seconds=window * 10.0, key="one who asks a lot", live_arm=Arm.CANDIDATE)] * 50
        others = [pair._replace(at_seconds=window * 10.0, key=f"{window}-{i}") for i, pair in enumerate(mixed(CLEAN, 20))]
        tally.add(asked + others, 2, keys=memory)
    assert not is_broken_split(read_sample_ratio(tally, policy))


def test_without_a_single_live_request_seen_there_is_no_pass() -> None:
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    tally.add(mixed(CLEAN, 3000), 2, is_settling=True)
    judgement = judge_final(tally, POLICY)
    assert (judgement.outcome, "no live request has been seen" in judgement.reason) == (JudgeOutcome.INSUFFICIENT, True)


def test_a_step_that_nobody_planned_is_no_verdict() -> None:
    judgement = judge_final(served(4, 500, 500), POLICY)
    assert (judgement.outcome, "the policy plans 4" in judgement.reason) == (JudgeOutcome.INSUFFICIENT, True)
