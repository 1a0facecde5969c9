"""The judgement: HALT only on evidence, PASS only with proof, everything else says what is missing."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from interlock.judge import evaluate
from interlock.judge.comparators import label_comparator, probability_comparator
from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.feasibility import pairs_needed
from interlock.judge.pairs import Fate, PairJoiner
from interlock.judge.policy import JudgePolicy, StepPlan
from interlock.judge.readings import JudgeOutcome, SignalReading
from interlock.judge.signals import read_errors
from interlock.judge.tally import Tally
from interlock.model.journal import Arm, Leg, Role
from tests import judging
from tests.judging import BAD, CLEAN, mixed, reading, table

POLICY = dataclasses.replace(judging.POLICY, p50_slack_ms=5.0, p99_slack_ms=5.0)


def test_t02_no_pair_at_all_is_insufficient_and_says_how_many_are_needed() -> None:
    for judge in (judge_tick, judge_final):
        judgement = judge(table(), POLICY)
        assert judgement.outcome is JudgeOutcome.INSUFFICIENT
        assert f"n=0 of {pairs_needed(POLICY)}" in judgement.reason
        assert reading(judgement, "divergence").more_requests_needed == 149


def test_clean_pairs_pass_exactly_when_the_plan_said_so() -> None:
    needed = pairs_needed(POLICY, 0.5)
    assert judge_final(table(mixed(CLEAN, needed)), POLICY).outcome is JudgeOutcome.PASS
    assert judge_final(table(mixed(CLEAN, needed - 1)), POLICY).outcome is JudgeOutcome.INSUFFICIENT


def test_clean_scores_pass_exactly_when_the_plan_said_so() -> None:
    policy = dataclasses.replace(POLICY, divergence_is_binary=False, divergence_tolerance=0.005)
    needed = pairs_needed(policy, 0.5)
    assert judge_final(table(mixed(CLEAN, needed)), policy).outcome is JudgeOutcome.PASS
    assert judge_final(table(mixed(CLEAN, needed - 1)), policy).outcome is JudgeOutcome.INSUFFICIENT


def test_no_early_pass_a_tick_never_passes() -> None:
    assert judge_tick(table(mixed(CLEAN, 20_000)), POLICY).outcome is JudgeOutcome.CONTINUE


def test_one_pair_is_insufficient_at_the_end_and_keeps_watching_before() -> None:
    assert judge_final(table([CLEAN]), POLICY).outcome is JudgeOutcome.INSUFFICIENT
    assert judge_tick(table([CLEAN]), POLICY).outcome is JudgeOutcome.CONTINUE


def test_t03_one_failing_sample_among_three_halts_nothing() -> None:
    assert judge_tick(table([CLEAN, CLEAN, BAD]), POLICY).outcome is JudgeOutcome.CONTINUE


def test_a_diverging_candidate_halts_and_the_reason_carries_numbers() -> None:
    judgement = judge_tick(table(mixed(CLEAN, 90), mixed(CLEAN._replace(divergence=1.0), 20)), POLICY)
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "divergence")
    assert "0.1818" in judgement.reason
    assert "n=110" in judgement.reason
    assert judgement.e_value >= judgement.halting_line == 100.0


def test_t31_errors_that_go_from_none_to_one_in_three_minutes_are_caught_within_the_hour() -> None:
    policy = dataclasses.replace(POLICY, window_seconds=60.0, steps=(StepPlan(0.5, 7200.0),))
    tally = Tally(start_seconds=0.0, window_seconds=60.0)
    four_a_minute = [pair._replace(at_seconds=15.0 * i) for i, pair in enumerate(mixed(CLEAN, 480))]
    tally.add(four_a_minute[:240], 0)
    assert judge_tick(tally, policy).outcome is JudgeOutcome.CONTINUE
    second_hour = enumerate(four_a_minute[240:])
    tally.add([pair._replace(candidate_failed=True, divergence=None) if i % 13 == 0 else pair for i, pair in second_hour], 0)
    judgement = judge_tick(tally, policy)
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "errors")


def test_a_short_outage_that_both_arms_share_is_no_breach_of_the_ceiling() -> None:
    outage = CLEAN._replace(candidate_failed=True, incumbent_failed=True, divergence=None, at_seconds=300.0)
    tally = table(mixed(CLEAN, 2000))
    tally.add(mixed(outage, 40), 0)
    assert judge_tick(tally, POLICY).outcome is JudgeOutcome.CONTINUE


def test_errors_that_both_arms_share_halt_nothing() -> None:
    outage = CLEAN._replace(candidate_failed=True, incumbent_failed=True, divergence=None)
    judgement = judge_tick(table(mixed(CLEAN, 2000), mixed(outage, 60)), POLICY)
    assert judgement.outcome is JudgeOutcome.CONTINUE


def test_a_slower_median_halts() -> None:
    judgement = judge_tick(table(mixed(CLEAN._replace(candidate_latency_ms=40.0), 400)), POLICY)
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "p50")
    assert reading(judgement, "p50").e_value > (reading(judgement, "p50").halting_e_value or math.inf)


def test_a_slow_tail_halts_by_p99_alone() -> None:
    judgement = judge_tick(table(mixed(CLEAN, 3000), mixed(CLEAN._replace(candidate_latency_ms=200.0), 150)), POLICY)
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "p99")
    assert reading(judgement, "p50").e_value < 1


def test_each_role_is_compared_with_its_own() -> None:
    """Mirrors are five times slower on both arms: live against mirrored would halt."""
    live = CLEAN._replace(live_arm=Arm.CANDIDATE, candidate_latency_ms=10.0, incumbent_latency_ms=50.0)
    mirrored = CLEAN._replace(live_arm=Arm.INCUMBENT, candidate_latency_ms=50.0, incumbent_latency_ms=10.0)
    policy = dataclasses.replace(POLICY, steps=(StepPlan(1 / 11, 600.0),))
    assert judge_tick(table([live] * 200, [mirrored] * 2000), policy).outcome is JudgeOutcome.CONTINUE


def test_a_new_weight_step_starts_new_histograms() -> None:
    """Load doubles every latency while the weight goes from 10 % to 90 %: pooled, the candidate would look slower."""
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    for step, (candidate_count, latency) in enumerate([(100, 10.0), (900, 20.0)]):
        own = CLEAN._replace(candidate_latency_ms=latency, incumbent_latency_ms=latency)
        tally.add([own] * candidate_count + [own._replace(live_arm=Arm.INCUMBENT)] * (1000 - candidate_count), step)
    policy = dataclasses.replace(POLICY, steps=(StepPlan(0.1, 300.0), StepPlan(0.9, 300.0)))
    assert judge_tick(tally, policy).outcome is JudgeOutcome.CONTINUE


def test_a_breach_of_the_absolute_ceiling_halts_even_when_the_incumbent_is_as_bad() -> None:
    both = CLEAN._replace(candidate_failed=True, incumbent_failed=True, divergence=None)
    judgement = judge_tick(table(mixed(CLEAN, 140), mixed(both, 60)), POLICY)
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "slo")
    slow = CLEAN._replace(candidate_latency_ms=900.0, incumbent_latency_ms=900.0)
    judgement = judge_tick(table(mixed(CLEAN, 180), mixed(slow, 20)), POLICY)
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "slo")


def test_the_absolute_ceiling_does_not_fire_below_its_sample_count() -> None:
    both = CLEAN._replace(candidate_failed=True, incumbent_failed=True, divergence=None, candidate_latency_ms=10.0)
    assert judge_tick(table(mixed(both, 49)), POLICY).outcome is JudgeOutcome.CONTINUE
    assert judge_tick(table(mixed(both, 50)), POLICY).outcome is JudgeOutcome.HALT


def test_t01_lost_telemetry_is_no_verdict_before_the_end_and_insufficient_at_it() -> None:
    tally = table(mixed(CLEAN, 2000), mixed(CLEAN._replace(fate=Fate.DROPPED), 120))
    for judge, outcome in ((judge_tick, JudgeOutcome.CONTINUE), (judge_final, JudgeOutcome.INSUFFICIENT)):
        judgement = judge(tally, POLICY)
        assert judgement.outcome is outcome
        assert "TELEMETRY_DEGRADED" in judgement.reason
        assert "5.66%" in judgement.reason


def test_survivors_of_lost_telemetry_halt_nothing_but_the_ceiling_still_does() -> None:
    diverging = table(mixed(CLEAN._replace(divergence=1.0), 200), mixed(CLEAN._replace(fate=Fate.DROPPED), 100))
    assert judge_tick(diverging, POLICY).outcome is JudgeOutcome.CONTINUE
    failing = table(mixed(BAD, 200), mixed(CLEAN._replace(fate=Fate.DROPPED), 100))
    assert judge_tick(failing, POLICY).decided_by == "slo"


def test_a_broken_pair_makes_every_look_insufficient() -> None:
    tally = table(mixed(CLEAN, 2000), [CLEAN._replace(fate=Fate.BROKEN)])
    for judge in (judge_tick, judge_final):
        assert judge(tally, POLICY).outcome is JudgeOutcome.INSUFFICIENT
        assert "BAD_DATA" in judge(tally, POLICY).reason


def test_a_table_with_other_windows_than_the_policy_is_not_judged() -> None:
    assert judge_final(table(mixed(CLEAN, 2000)), dataclasses.replace(POLICY, window_seconds=6.0)).outcome is JudgeOutcome.INSUFFICIENT


def test_pairs_that_say_nothing_about_predictions_cannot_pass() -> None:
    judgement = judge_final(table(mixed(CLEAN._replace(divergence=None), 2000)), POLICY)
    assert judgement.outcome is JudgeOutcome.INSUFFICIENT
    assert "n=0 of 149" in judgement.reason


def replace_reader(monkeypatch: pytest.MonkeyPatch, name: str, reader: Callable[[Tally, JudgePolicy], SignalReading]) -> None:
    real = evaluate.readers_of
    monkeypatch.setattr(evaluate, "readers_of", lambda policy: real(policy) | {name: reader})


def explode(tally: Tally, policy: JudgePolicy) -> SignalReading:
    raise ZeroDivisionError("boom")


def test_t05_an_exception_in_one_signal_is_insufficient_and_the_others_are_still_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_reader(monkeypatch, "p99", explode)
    judgement = judge_final(table(mixed(CLEAN, 2000)), POLICY)
    assert judgement.outcome is JudgeOutcome.INSUFFICIENT
    assert "ZeroDivisionError: boom" in judgement.reason
    assert reading(judgement, "p99").e_value == 0.0
    assert judge_tick(table(mixed(CLEAN, 2000)), POLICY).outcome is JudgeOutcome.INSUFFICIENT
    assert judge_tick(table(mixed(BAD, 100)), POLICY).outcome is JudgeOutcome.HALT


@pytest.mark.parametrize("field", ["value", "limit", "e_value", "low", "high"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_t06_a_number_that_is_not_finite_is_insufficient_and_never_a_pass(
    monkeypatch: pytest.MonkeyPatch, field: str, number: float
) -> None:
    changes: dict[str, Any] = {field: number}
    replace_reader(monkeypatch, "errors", lambda tally, policy: dataclasses.replace(read_errors(tally, policy), **changes))
    for judge in (judge_tick, judge_final):
        judgement = judge(table(mixed(CLEAN, 2000)), POLICY)
        assert judgement.outcome is JudgeOutcome.INSUFFICIENT
        assert not reading(judgement, "errors").is_usable
        assert math.isfinite(judgement.e_value)
    assert judge_tick(table(mixed(BAD, 100)), POLICY).outcome is JudgeOutcome.HALT


@pytest.mark.parametrize("text", ['{"predictions": [NaN]}', "", "<html>", '{"predictions": []}', "null", None])
def test_t06_a_candidate_that_answers_nonsense_halts_and_an_incumbent_that_does_decides_nothing(text: str | None) -> None:
    def canary(incumbent: str | None, candidate: str | None) -> Tally:
        joiner = PairJoiner(deadline_seconds=5.0, judging_since_seconds=0.0, compare=label_comparator())
        for i in range(1000):
            half = Leg(f"r{i}", Arm.INCUMBENT, Role.LIVE, i / 10, 200, 5.0, "d", incumbent, "m/1")
            joiner.offer([half, dataclasses.replace(half, arm=Arm.CANDIDATE, role=Role.MIRROR, prediction=candidate)])
        tally = Tally(start_seconds=0.0, window_seconds=5.0)
        tally.add(joiner.collect(1000.0), 0, is_settling=True)
        return tally

    good = '{"predictions": [1]}'
    assert judge_tick(canary(good, text), POLICY).decided_by == "divergence"
    assert judge_final(canary(text, good), POLICY).outcome is JudgeOutcome.INSUFFICIENT
    assert "TELEMETRY_DEGRADED" in judge_final(canary(text, good), POLICY).reason


def test_t34_permuted_predictions_keep_every_marginal_and_halt() -> None:
    rng = np.random.default_rng(34)
    scores = rng.beta(2, 5, 1000)
    served = scores.copy()
    moved = rng.choice(1000, 200, replace=False)
    served[moved] = served[rng.permutation(moved)]
    assert sorted(served) == sorted(scores)
    joiner = PairJoiner(deadline_seconds=5.0, judging_since_seconds=0.0, compare=probability_comparator())
    for i, (ours, theirs) in enumerate(zip(scores, served, strict=True)):
        half = Leg(f"r{i}", Arm.INCUMBENT, Role.LIVE, i / 10, 200, 5.0, "d", json.dumps({"predictions": [ours]}), "m/1")
        joiner.offer(
            [half, dataclasses.replace(half, arm=Arm.CANDIDATE, role=Role.MIRROR, prediction=json.dumps({"predictions": [theirs]}))]
        )
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    tally.add(joiner.collect(1000.0), 0, is_settling=True)
    assert judge_tick(tally, dataclasses.replace(POLICY, divergence_is_binary=False)).decided_by == "divergence"


def test_t30_every_reading_shows_value_limit_count_interval_and_reason() -> None:
    judgement = judge_final(table(mixed(CLEAN, 1000), mixed(CLEAN._replace(divergence=1.0), 10)), POLICY)
    assert [signal.name for signal in judgement.signals] == [
        "divergence",
        "errors",
        "p50",
        "p99",
        "slo_error_share",
        "slo_p99",
        "sample_ratio",
    ]
    for signal in judgement.signals:
        assert signal.value is not None
        assert signal.limit is not None or signal.name == "sample_ratio"
        assert signal.low is not None
        assert signal.low <= signal.value <= (signal.high or 0)
        assert signal.sample_count == 1010
        assert signal.reason
    json.dumps([dataclasses.asdict(signal) for signal in judgement.signals], allow_nan=False)


def test_halting_lines_alone_and_together_agree() -> None:
    judgement = judge_tick(table([CLEAN]), POLICY)
    weights = [1 / (POLICY.alpha * signal.halting_e_value) for signal in judgement.signals if signal.halting_e_value]
    assert math.fsum(weights) == pytest.approx(1.0)
