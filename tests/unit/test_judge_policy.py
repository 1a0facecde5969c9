"""The judge's policy refuses numbers that would void its guarantees; the need of clean traffic follows from it."""

import dataclasses
import math
from typing import Any

import pytest

from interlock.errors import PolicyError
from interlock.judge.feasibility import needs, pairs_needed
from interlock.judge.policy import SignalPolicy, StepPlan
from tests.judging import POLICY


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"alpha": math.nan}, id="nan is not an alpha"),
        pytest.param({"alpha": 0.0}, id="an alpha of 0 can never halt"),
        pytest.param({"beta": 0.9}, id="a beta of 0.9 proves nothing"),
        pytest.param({"beta": True}, id="true is not a number"),
        pytest.param({"divergence_tolerance": 0.0}, id="a tolerance of 0 cannot be proved"),
        pytest.param({"divergence_tolerance": math.inf}, id="infinity is not a tolerance"),
        pytest.param({"divergence_is_binary": 1}, id="1 is not a yes"),
        pytest.param({"error_weight": 0.36}, id="weights above 1 break the bound on false halts"),
        pytest.param({"error_weight": 0.34}, id="weights below 1 were not meant"),
        pytest.param({"error_weight": 0.0, "divergence_weight": 0.7}, id="a signal without weight can never halt"),
        pytest.param({"p50_tolerance_ratio": 0.0}, id="no latency tolerance at all cannot be proved"),
        pytest.param({"steps": (StepPlan(0.5, 4.0),)}, id="a plan shorter than one window"),
        pytest.param({"window_seconds": 0.1, "steps": (StepPlan(0.5, 2001.0),)}, id="more windows than a day has"),
        pytest.param({"is_keyed": True}, id="keyed windows that are too many to keep in pairs"),
        pytest.param({"steps": (StepPlan(1.5, 600.0),)}, id="more than all traffic"),
        pytest.param({"steps": (StepPlan(0.5, math.nan),)}, id="nan is not a time"),
        pytest.param({"bias_weight": 0.1, "divergence_weight": 0.25}, id="a bias without tolerance"),
        pytest.param({"bias_tolerance": 0.1}, id="a bias without weight"),
        pytest.param({"bias_tolerance": math.nan, "bias_weight": 0.1, "divergence_weight": 0.25}, id="nan is not a bias"),
        pytest.param({"segments": (SignalPolicy("JFK", 0.0, 0.1),)}, id="a segment without its prefix"),
        pytest.param({"segments": (SignalPolicy("segment:(other)", 0.0, 0.1),)}, id="the name of all other pairs"),
        pytest.param({"segments": (SignalPolicy("segment:JFK", 0.0, 0.1),) * 2}, id="a segment twice"),
        pytest.param({"segments": (SignalPolicy("segment:JFK", -0.1, 0.1),), "divergence_weight": 0.45}, id="a weight below 0"),
        pytest.param({"segments": (SignalPolicy("segment:JFK", 0.0, 0.0),)}, id="a segment that tolerates nothing"),
        pytest.param({"max_missing_share": 1.0}, id="all pairs may not be missing"),
        pytest.param({"slo_min_sample_count": 0}, id="a ceiling needs a sample"),
        pytest.param({"slo_min_sample_count": 2.5}, id="half a sample"),
        pytest.param({"slo_max_p99_ms": 1e7}, id="a ceiling above the latency grid"),
        pytest.param({"alpha": "0.01"}, id="text is not a number"),
    ],
)
def test_policy_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="judge policy"):
        dataclasses.replace(POLICY, **change)


def test_weights_may_miss_one_by_rounding_only() -> None:
    dataclasses.replace(POLICY, error_weight=0.35 + 5e-10)
    with pytest.raises(PolicyError, match="sum to"):
        dataclasses.replace(POLICY, error_weight=0.35 + 2e-9)


def test_the_relative_signals_and_the_ceilings_share_one_alpha() -> None:
    signals = (POLICY.divergence, POLICY.errors, POLICY.p50, POLICY.p99)
    assert math.fsum(signal.sum_weight for signal in signals) == pytest.approx(0.98)


def test_pairs_needed_is_the_largest_need_of_any_signal() -> None:
    assert pairs_needed(POLICY) == max(count for _, count in needs(POLICY)) == dict(needs(POLICY))["errors"]


def test_a_tighter_tolerance_needs_more_pairs() -> None:
    counts = [dict(needs(dataclasses.replace(POLICY, error_tolerance=t)))["errors"] for t in (0.02, 0.01, 0.005, 0.002)]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)
