"""Keyed analysis: a customer who asks a hundred times is one witness, and a late fault is seen also in those who came early."""

import dataclasses
import json

import numpy as np
import pytest

from interlock.errors import EvidenceError
from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.keys import NOT_COUNTED, KeyMemory
from interlock.judge.pairs import PairResult
from interlock.judge.policy import StepPlan
from interlock.judge.readings import JudgeOutcome
from interlock.judge.tally import FRESH, Tally
from interlock.model.journal import Arm
from tests import judging
from tests.judging import CLEAN, mixed

ALPHA = 0.05
POLICY = dataclasses.replace(
    judging.POLICY, alpha=ALPHA, is_keyed=True, window_seconds=10.0, p50_slack_ms=5.0, p99_slack_ms=5.0, steps=(StepPlan(0.5, 600.0),)
)


def table() -> Tally:
    return Tally.for_policy(POLICY, start_seconds=0.0)


def visits(*visited: tuple[str, int]) -> list[int]:
    memory = KeyMemory()
    return [int(memory.visit([key], np.array([window]))[0]) for key, window in visited]


def test_a_key_is_fresh_once_a_window_and_only_for_processes_that_began_after_it_was_last_seen() -> None:
    assert visits(("a", 0), ("a", 0), ("b", 0), ("a", 1), ("a", 4), ("a", 3)) == [0, NOT_COUNTED, 0, 1, 2, NOT_COUNTED]


def test_beyond_its_limit_the_memory_keeps_a_fixed_part_of_all_keys() -> None:
    memory = KeyMemory(most_keys=1000)
    keys = [str(i) for i in range(20_000)]
    memory.visit(keys, np.zeros(len(keys), dtype=np.int64))
    assert len(memory) <= 1000
    assert 1 / 64 <= memory.sampled_share <= 1 / 16
    fresh = memory.visit(keys, np.ones(len(keys), dtype=np.int64))
    assert set(fresh.tolist()) == {NOT_COUNTED, 1}, "who is in the sample stays in it"
    assert (fresh == 1).mean() == pytest.approx(memory.sampled_share, rel=0.2)


def test_the_memory_survives_json_and_refuses_anything_else() -> None:
    memory = KeyMemory(most_keys=10)
    memory.visit([str(i) for i in range(100)], np.arange(100))
    restored = KeyMemory.from_dict(json.loads(json.dumps(memory.to_dict())))
    assert restored.to_dict() == memory.to_dict()
    for broken in ({}, {"format": "judge-keys/v0"}, memory.to_dict() | {"below": "many"}, memory.to_dict() | {"last_window": [1]}):
        with pytest.raises(EvidenceError):
            KeyMemory.from_dict(broken)


def sticky(rng: np.random.Generator, *, keys: int, requests: int) -> list[PairResult]:
    """Few keys ask most of the time; a key differs always or never, one in fifty of them, so the mean over keys is the tolerance."""
    share = rng.pareto(1.0, keys) + 0.01
    differs = rng.random(keys) < 0.02
    chosen = rng.choice(keys, requests, p=share / share.sum())
    arms = (Arm.CANDIDATE, Arm.INCUMBENT)
    return [
        CLEAN._replace(at_seconds=i * 600 / requests, divergence=float(differs[k]), key=str(k), live_arm=arms[i % 2])
        for i, k in enumerate(chosen)
    ]


def halts(pairs: list[PairResult], *, is_keyed: bool) -> bool:
    policy, memory = dataclasses.replace(POLICY, is_keyed=is_keyed), KeyMemory() if is_keyed else None
    tally = Tally.for_policy(policy, start_seconds=0.0)
    for first in range(0, len(pairs), 400):
        tally.add(pairs[first : first + 400], 0, keys=memory)
        if judge_tick(tally, policy).outcome is JudgeOutcome.HALT:
            return True
    return False


def test_sticky_traffic_halts_good_candidates_request_by_request_and_not_key_by_key() -> None:
    rng = np.random.default_rng(22)
    canaries = [sticky(rng, keys=600, requests=4000) for _ in range(40)]
    assert np.mean([halts(pairs, is_keyed=False) for pairs in canaries]) > 2 * ALPHA
    assert sum(halts(pairs, is_keyed=True) for pairs in canaries) <= ALPHA * len(canaries)


def test_a_late_fault_is_seen_in_keys_that_came_before() -> None:
    tally, memory = table(), KeyMemory()
    for window in range(40):
        bad = float(window >= 30)
        came = [pair._replace(at_seconds=window * 10.0, key=str(i), divergence=bad) for i, pair in enumerate(mixed(CLEAN, 100))]
        tally.add(came, 0, keys=memory)
        if window == 29:
            assert judge_tick(tally, POLICY).outcome is JudgeOutcome.CONTINUE
    assert judge_tick(tally, POLICY).decided_by == "divergence"
    assert tally.counters[FRESH] == 100
    assert Tally.from_dict(json.loads(json.dumps(tally.to_dict()))) == tally


def test_hundred_keys_are_hundred_witnesses_however_often_they_ask() -> None:
    tally, memory = table(), KeyMemory()
    for window in range(60):
        tally.add([pair._replace(at_seconds=window * 10.0, key=str(i)) for i, pair in enumerate(mixed(CLEAN, 100))], 0, keys=memory)
    judgement = judge_final(tally, POLICY)
    assert judgement.outcome is JudgeOutcome.INSUFFICIENT
    assert {signal.sample_count for signal in judgement.signals if signal.name in ("divergence", "errors", "slo_error_share")} == {100}


def test_pairs_without_a_key_are_lost_where_keys_are_the_unit() -> None:
    tally = table()
    tally.add([pair._replace(key="" if i % 9 else str(i)) for i, pair in enumerate(mixed(CLEAN, 900))], 0, keys=KeyMemory())
    assert tally.counters[FRESH] == 100, "and are evidence of nothing"
    assert "TELEMETRY_DEGRADED: 88.89% of the pairs are lost" in judge_final(tally, POLICY).reason
