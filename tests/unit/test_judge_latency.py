"""Latency: a slowness that begins late is found, and servers that stall are not taken for slower ones."""

import dataclasses

import numpy as np
import pytest

from interlock.judge import latency
from interlock.judge.design_effect import design_effect
from interlock.judge.evaluate import judge_tick
from interlock.judge.latency import read_p50, read_p99
from interlock.judge.pairs import PairResult
from interlock.judge.policy import StepPlan
from interlock.judge.readings import JudgeOutcome
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from tests import judging
from tests.judging import CLEAN

ALPHA = 0.05
STEPS = (StepPlan(0.0, 300.0), StepPlan(0.5, 900.0))
POLICY = dataclasses.replace(judging.POLICY, alpha=ALPHA, slo_max_p99_ms=5000.0, steps=STEPS)


def canary(candidate_ms: np.ndarray, incumbent_ms: np.ndarray, *, per_second: float = 20.0) -> list[list[PairResult]]:
    """Pairs of the shadow and of the one step, by the policy's plan."""
    switch, arms = int(STEPS[0].seconds * per_second), (Arm.CANDIDATE, Arm.INCUMBENT)
    pairs = [
        CLEAN._replace(
            at_seconds=i / per_second,
            candidate_latency_ms=float(c),
            incumbent_latency_ms=float(b),
            live_arm=Arm.INCUMBENT if i < switch else arms[i % 2],
        )
        for i, (c, b) in enumerate(zip(candidate_ms, incumbent_ms, strict=True))
    ]
    return [pairs[:switch], pairs[switch:]]


def counted(parts: list[list[PairResult]]) -> Tally:
    tally = Tally.for_policy(POLICY, start_seconds=0.0)
    for step, pairs in enumerate(parts):
        tally.add(pairs, step)
    return tally


def lognormal(rng: np.random.Generator, count: int) -> np.ndarray:
    return 40 * np.exp(0.5 * rng.standard_normal(count))


def stalls(rng: np.random.Generator, count: int, *, share: float, length: int) -> np.ndarray:
    """Milliseconds added to each request: about `share` of them wait behind a stall of so many requests in a row."""
    added, starts = np.zeros(count), np.flatnonzero(rng.random(count) < share / length)
    for start in starts:
        added[start : start + length] += np.linspace(800, 200, length)[: count - start]
    return added


def test_a_median_that_turns_bad_after_an_hour_of_good_ones_is_found_by_the_restarts() -> None:
    rng, long = np.random.default_rng(1), 24_000
    candidate, incumbent = lognormal(rng, long), lognormal(rng, long)
    candidate[21_000:] *= 1.5
    parts = canary(candidate, incumbent)
    before = counted([parts[0], parts[1][:15_000]])
    assert judge_tick(before, POLICY).outcome is JudgeOutcome.CONTINUE
    assert read_p50(counted(parts), POLICY).e_value > 1 / (ALPHA * POLICY.p50.sum_weight)


def test_independent_answers_have_a_design_effect_of_about_one_also_when_load_drifts() -> None:
    rng = np.random.default_rng(2)
    drift = 1 + 0.8 * np.sin(2 * np.pi * np.arange(24_000) / 24_000)
    for load in (np.ones(24_000), drift):
        effect = design_effect(counted(canary(load * lognormal(rng, 24_000), load * lognormal(rng, 24_000))), 0.5)
        assert effect is not None
        assert effect < 1.8


def test_stalls_show_as_a_design_effect() -> None:
    rng = np.random.default_rng(3)
    incumbent = lognormal(rng, 24_000) + stalls(rng, 24_000, share=0.02, length=20)
    effect = design_effect(counted(canary(lognormal(rng, 24_000), incumbent)), 0.99)
    assert effect is not None
    assert effect > 4


def test_a_canary_that_has_seen_little_knows_nothing_of_clustering_and_says_so() -> None:
    rng = np.random.default_rng(4)
    tally = Tally.for_policy(POLICY, start_seconds=0.0)
    tally.add(canary(lognormal(rng, 24_000), lognormal(rng, 24_000))[1][:800], 1)
    assert design_effect(tally, 0.99) is None
    reading = read_p99(tally, POLICY)
    assert "not known" in reading.reason
    assert reading.design_effect == 1.0


def test_stalls_that_the_shadow_did_not_see_are_learned_in_the_canary() -> None:
    rng = np.random.default_rng(6)
    incumbent = lognormal(rng, 24_000)
    incumbent[6_000:] += stalls(rng, 18_000, share=0.02, length=20)
    shadow, step = canary(lognormal(rng, 24_000), incumbent)
    assert (design_effect(counted([shadow, []]), 0.99) or 1.0) < 2
    assert (design_effect(counted([shadow, step]), 0.99) or 1.0) > 3


def test_tempering_takes_from_the_proof_as_well_and_never_adds_to_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    tally = counted(canary(0.7 * lognormal(rng, 24_000), lognormal(rng, 24_000)))
    needed = []
    for effect in (1.0, 3.0, 60.0):
        monkeypatch.setattr(latency, "design_effect", lambda tally, quantile, effect=effect: effect)
        reading = read_p99(tally, POLICY)
        needed.append(reading.is_proved)
        assert reading.e_value <= 1.0
    assert needed == [True, True, False]


@pytest.mark.parametrize("is_tempered", [True, False])
def test_stalls_of_one_arm_at_a_time_halt_good_candidates_unless_the_evidence_is_tempered(
    monkeypatch: pytest.MonkeyPatch, is_tempered: bool
) -> None:
    """Both arms stall alike, but never together: a test that takes every slow answer for a witness of its own halts too often."""
    if not is_tempered:
        monkeypatch.setattr(latency, "design_effect", lambda tally, quantile: None)
    rng, halted = np.random.default_rng(5), 0
    for _ in range(24):
        candidate, incumbent = (lognormal(rng, 24_000) + stalls(rng, 24_000, share=0.009, length=20) for _ in range(2))
        parts = canary(candidate, incumbent)
        tally = counted([parts[0], []])
        line = 1 / ALPHA  # p99 read alone, so that the two can be told apart
        for first in range(0, len(parts[1]), 1200):
            tally.add(parts[1][first : first + 1200], 1)
            if read_p99(tally, POLICY).e_value >= line:
                halted += 1
                break
    assert (halted <= 2) if is_tempered else (halted >= 4), halted
