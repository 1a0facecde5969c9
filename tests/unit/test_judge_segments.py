"""Segments and bias: a fault in a part of the traffic, and a shift too small to be seen in any single answer."""

import dataclasses

import numpy as np
import pytest

from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.pairs import PairResult
from interlock.judge.policy import JudgePolicy, SignalPolicy
from interlock.judge.readings import Judgement, JudgeOutcome
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from tests import judging
from tests.judging import CLEAN, reading

CALM = dataclasses.replace(judging.POLICY, p50_slack_ms=5.0, p99_slack_ms=5.0)
GATING = dataclasses.replace(CALM, divergence_weight=0.25, segments=(SignalPolicy("segment:JFK", 0.1, 0.05),))
SHOWN = dataclasses.replace(CALM, segments=(SignalPolicy("segment:JFK", 0.0, 0.05),))
BIASED = dataclasses.replace(
    CALM, divergence_is_binary=False, divergence_tolerance=0.2, divergence_weight=0.2, bias_tolerance=0.05, bias_weight=0.15
)


def judged(policy: JudgePolicy, pairs: list[PairResult], *, final: bool = False) -> Judgement:
    tally = Tally.for_policy(policy, start_seconds=0.0)
    arms = (Arm.CANDIDATE, Arm.INCUMBENT)
    tally.add([pair._replace(at_seconds=i * 600 / len(pairs), live_arm=arms[i % 2]) for i, pair in enumerate(pairs)], 0)
    return (judge_final if final else judge_tick)(tally, policy)


def traffic(jfk_differing: int) -> list[PairResult]:
    """10,000 pairs, one in twenty from JFK, of which so many differ."""
    pairs = [CLEAN._replace(segment="JFK" if i % 20 == 0 else ("EWR" if i % 3 else "")) for i in range(10_000)]
    for i in np.linspace(0, 499, jfk_differing).astype(int):
        pairs[20 * i] = pairs[20 * i]._replace(divergence=1.0)
    return pairs


def test_a_fault_in_one_segment_halts_although_the_whole_is_within_tolerance() -> None:
    judgement = judged(GATING, traffic(120))
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "segment:JFK")
    assert reading(judgement, "divergence").value == pytest.approx(0.012)
    assert reading(judgement, "segment:JFK").value == pytest.approx(0.24)
    assert reading(judgement, "segment:(other)").value == 0.0


def test_a_segment_without_weight_is_shown_and_decides_nothing() -> None:
    judgement = judged(SHOWN, traffic(120))
    assert judgement.outcome is JudgeOutcome.CONTINUE
    shown = reading(judgement, "segment:JFK")
    assert (shown.decides, shown.halting_e_value, shown.sample_count) == (False, None, 500)
    assert judged(SHOWN, traffic(0)[1:40] * 100, final=True).outcome is JudgeOutcome.PASS, "also with few of the segment"


def test_a_pass_needs_proof_for_every_segment_that_decides() -> None:
    assert judged(GATING, traffic(0), final=True).outcome is JudgeOutcome.PASS
    without = judged(GATING, [pair._replace(segment="") for pair in traffic(0)], final=True)
    assert (without.outcome, "segment:JFK: INSUFFICIENT_EVIDENCE n=0" in without.reason) == (JudgeOutcome.INSUFFICIENT, True)


def shifted(mean: float) -> list[PairResult]:
    """Answers that differ by .1 of the scale either way, and by `mean` on average."""
    rng = np.random.default_rng(3)
    signed = np.clip(rng.normal(mean, 0.1, 8000), -1, 1)
    return [CLEAN._replace(divergence=float(abs(s)), signed=float(s)) for s in signed]


@pytest.mark.parametrize("mean", [0.1, -0.1], ids=["upwards", "downwards"])
def test_a_shift_either_way_halts_by_bias(mean: float) -> None:
    judgement = judged(BIASED, shifted(mean))
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "bias")
    assert reading(judgement, "bias").value == pytest.approx(mean, abs=0.01)
    assert "at most, either way, 0.05" in judgement.reason


def test_noise_both_ways_is_no_bias_and_passes() -> None:
    assert judged(BIASED, shifted(0.0), final=True).outcome is JudgeOutcome.PASS
    assert judged(BIASED, shifted(0.0495), final=True).outcome is JudgeOutcome.INSUFFICIENT, "too near to the tolerance for 8,000 pairs"


def test_without_a_single_signed_difference_bias_is_not_proved() -> None:
    judgement = judged(BIASED, [CLEAN] * 8000, final=True)
    assert reading(judgement, "bias").e_value == pytest.approx(1.0), "both sides together have one capital"
    assert (judgement.outcome, "bias: INSUFFICIENT_EVIDENCE n=0" in judgement.reason) == (JudgeOutcome.INSUFFICIENT, True)
