"""The traffic gate: a plan that cannot decide is held before it starts, and says what it would take."""

import dataclasses
import math

import pytest

from interlock.control.gates.traffic import judge_traffic
from interlock.judge.evaluate import judge_final
from interlock.judge.feasibility import judge_plan
from interlock.judge.policy import JudgePolicy, SignalPolicy, StepPlan
from interlock.judge.readings import JudgeOutcome
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from interlock.model.verdict import Outcome
from tests import judging
from tests.judging import CLEAN

PLAN = (StepPlan(0.0, 30.0), StepPlan(0.1, 60.0), StepPlan(0.5, 60.0), StepPlan(1.0, 600.0))
POLICY = dataclasses.replace(judging.POLICY, p50_slack_ms=5.0, p99_slack_ms=5.0, steps=PLAN)


def clean_canary(policy: JudgePolicy, requests_per_second: float) -> Tally:
    """What the plan promises: no difference, no error, a candidate as fast as the grid allows. The bake is not part of it."""
    tally, began = Tally.for_policy(policy, start_seconds=0.0), 0.0
    for step, planned in enumerate(policy.steps[:-1]):
        count = math.floor(requests_per_second * planned.seconds)
        on_candidate = round(planned.share * count)
        pair = CLEAN._replace(candidate_latency_ms=0.0, incumbent_latency_ms=1e9, at_seconds=began)
        tally.add([pair._replace(live_arm=Arm.CANDIDATE if i < on_candidate else Arm.INCUMBENT) for i in range(count)], step)
        began += planned.seconds
    return tally


def test_the_plan_and_the_judge_agree_on_what_clean_traffic_proves() -> None:
    """Found by bisection: the least traffic at which the plan holds passes, and a little less does not."""
    low, high = 1.0, 100.0
    while high - low > 0.05:
        middle = (low + high) / 2
        plan = judge_plan(POLICY, requests_per_second=middle)
        low, high = (low, middle) if all(need.is_enough for need in plan.signals) else (middle, high)
    assert judge_final(clean_canary(POLICY, high), POLICY).outcome is JudgeOutcome.PASS
    assert judge_final(clean_canary(POLICY, low - 0.05), POLICY).outcome is JudgeOutcome.INSUFFICIENT


def test_a_plan_too_short_is_inconclusive_and_names_the_window_it_needs() -> None:
    verdict = judge_traffic(POLICY, requests_per_second=3.0)
    plan = judge_plan(POLICY, requests_per_second=3.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert plan.planned_seconds == 150, "the bake comes after the look"
    assert plan.needed_seconds is not None
    assert f"{plan.needed_seconds:.0f} s would do" in verdict.reason
    stretched = tuple(StepPlan(step.share, step.seconds * plan.needed_seconds / plan.planned_seconds * 1.01) for step in PLAN)
    assert judge_traffic(dataclasses.replace(POLICY, steps=stretched), requests_per_second=3.0).outcome is Outcome.PASS


def test_what_a_signal_needs_does_not_grow_with_the_traffic_there_is() -> None:
    needed = [
        {need.name: need.needed_count or 0 for need in judge_plan(POLICY, requests_per_second=rate).signals} for rate in (50.0, 500.0)
    ]
    assert needed[0]["p99"] < 20 * 120
    for name, count in needed[0].items():
        assert needed[1][name] == pytest.approx(count, rel=0.12, abs=20), name


@pytest.mark.parametrize("rate", [0.0, math.nan])
def test_f24_no_traffic_is_inconclusive_and_no_length_would_help(rate: float) -> None:
    verdict = judge_traffic(POLICY, requests_per_second=rate)
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_a_canary_that_compares_no_latency_can_never_decide() -> None:
    shadow_only = dataclasses.replace(POLICY, steps=(StepPlan(0.0, 600.0), StepPlan(1.0, 600.0)))
    verdict = judge_traffic(shadow_only, requests_per_second=1000.0)
    assert (verdict.outcome, "no length of the canary would prove p50, p99" in verdict.reason) == (Outcome.INCONCLUSIVE, True)


def test_bias_and_segments_are_asked_for_their_pairs_too() -> None:
    policy = dataclasses.replace(
        POLICY,
        divergence_is_binary=False,
        divergence_weight=0.15,
        bias_tolerance=0.01,
        bias_weight=0.1,
        segments=(SignalPolicy("segment:JFK", 0.1, 0.001), SignalPolicy("segment:LGA", 0.0, 0.001)),
    )
    needed = {need.name: need.needed_count or 0 for need in judge_plan(policy, requests_per_second=50.0).signals}
    assert needed["bias"] > needed["divergence"]
    assert needed["segment:JFK"] > needed["divergence"]
    assert "segment:LGA" not in needed, "what is only shown does not hold a release"
