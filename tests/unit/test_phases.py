"""The plan of a release: weights climb, end at all traffic, and nothing in it can be skipped."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.model.plane import ALL_TRAFFIC_BPS
from interlock.plan.phases import plan_bake, plan_phases, planned_seconds
from interlock.profile.schema import Canary, Step

WEIGHTS = st.lists(st.integers(1, ALL_TRAFFIC_BPS - 1), min_size=1, max_size=6, unique=True).map(sorted)


def canary(weights: list[int]) -> Canary:
    steps = tuple(Step(weight_bps=weight, bake_seconds=float(i)) for i, weight in enumerate(weights, 2))
    return Canary(shadow_seconds=3.0, steps=steps, bake_seconds=7.0, lease_seconds=10.0, max_evidence_gap_seconds=15.0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(WEIGHTS)
def test_weights_begin_at_nothing_climb_strictly_and_end_at_all_traffic(weights: list[int]) -> None:
    policy = canary(weights)
    phases = [*plan_phases(policy), plan_bake(policy)]
    climb = [phase.weight_bps for phase in phases]
    assert climb == [0, *weights, ALL_TRAFFIC_BPS]
    assert all(earlier < later for earlier, later in itertools.pairwise(climb))
    assert [phase.index for phase in phases] == list(range(len(phases)))
    assert len({phase.name for phase in phases}) == len(phases)


def test_the_planned_time_is_the_sum_of_all_phases() -> None:
    policy = canary([100, 5000])
    assert planned_seconds(policy) == sum(phase.bake_seconds for phase in [*plan_phases(policy), plan_bake(policy)])


def test_phases_are_named_for_people() -> None:
    assert [phase.name for phase in plan_phases(canary([50, 2500]))] == ["shadow", "canary 0.5 %", "canary 25 %"]
