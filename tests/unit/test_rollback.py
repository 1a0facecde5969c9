"""Rollback: traffic, then registry, then capacity; each observed, or RollbackFailed in time. Never a success that was not seen."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from interlock.adapters.fakes import FakeClock, FakeRegistry, FakeTraffic
from interlock.control.records import receipt_values
from interlock.control.rollback import AFTERWARDS_BUDGET_SECONDS, TRAFFIC_BUDGET_SECONDS, restore_registry, restore_traffic, roll_back
from interlock.control.traffic import finalise_promotion
from interlock.errors import RollbackFailed, ServiceUnavailable, TrafficNotConverged
from interlock.model.plane import PlaneState, RollbackReceipt
from interlock.model.release import ModelVersion
from tests.worlds import CANDIDATE, INCUMBENT, World


class Told:
    """Passes calls on to what it wraps, and notes the ones that change something."""

    def __init__(self, inner: object, name: str, order: list[str], watched: tuple[str, ...]) -> None:
        self._inner, self._name, self._order, self._watched = inner, name, order, watched

    def __getattr__(self, call: str) -> Any:
        if call in self._watched:
            self._order.append(f"{self._name} {call}")
        return getattr(self._inner, call)


@pytest.fixture
def world() -> World:
    """In mid-canary: half of the traffic on the candidate."""
    world = World()
    token = world.session().release.token
    world.traffic.set_weight(5000, lease_seconds=10, token=token)
    world.registry.set_champion("late", "2", token=token)
    return world


def rolled_back(world: World, candidate: ModelVersion | None = CANDIDATE, token: int | None = None) -> RollbackReceipt:
    return roll_back(world.traffic, world.registry, world.clock, reason="divergence", candidate=candidate, token=token)


def in_line(world: World) -> bool:
    stages = {version: world.registry.versions[("late", version)].stage for version in ("1", "2")}
    return world.registry.champions["late"] == "1" and stages == {"1": "Production", "2": "Archived"}


def test_t19_traffic_comes_first_then_the_registry_then_capacity(world: World) -> None:
    order: list[str] = []
    receipt = roll_back(
        Told(world.traffic, "traffic", order, ("restore_incumbent", "probe", "end")),
        Told(world.registry, "registry", order, ("set_champion", "set_stage")),
        world.clock,
        reason="divergence",
        candidate=CANDIDATE,
        token=world.traffic.token,
    )
    assert order == ["traffic restore_incumbent", "traffic probe", "registry set_champion", "registry set_stage", "traffic end"]
    assert [step.name for step in receipt.steps] == ["traffic", "registry", "capacity"]
    assert receipt.incumbent == INCUMBENT.label
    assert [step.elapsed_seconds for step in receipt.steps] == sorted(step.elapsed_seconds for step in receipt.steps)
    assert world.traffic.weight_bps == 0
    assert world.traffic.candidate is None
    assert in_line(world)
    assert receipt_values(receipt)["reason"] == "divergence"


def test_t20_a_plane_that_says_yes_and_does_nothing_is_never_reported_as_restored(world: World) -> None:
    world.traffic.deaf = True
    started = world.clock.monotonic()

    def stays_leased() -> None:
        world.traffic.lease_ends_at = world.clock.monotonic() + 100

    world.while_time_passes = stays_leased
    with pytest.raises(RollbackFailed, match=r"within 20 s \(candidate weight 5000 bps.*page the on-call"):
        rolled_back(world)
    assert world.clock.monotonic() - started <= TRAFFIC_BUDGET_SECONDS + 1
    assert world.registry.champions["late"] == "2", "the registry must not say what traffic does not do"


def test_t20_a_split_that_reads_back_right_is_not_believed_while_another_version_answers(world: World) -> None:
    def probe(count: int) -> Mapping[str, int]:
        return {INCUMBENT.label: count - 1, CANDIDATE.label: 1}

    world.traffic.probe = probe  # type: ignore[method-assign]
    with pytest.raises(RollbackFailed, match="late/2"):
        restore_traffic(world.traffic, world.clock, reason="x")


def test_a_plane_that_comes_back_within_the_budget_is_restored(world: World) -> None:
    world.traffic.down = True
    until = world.clock.monotonic() + 5

    def comes_back() -> None:
        world.traffic.down = world.clock.monotonic() < until

    world.while_time_passes = comes_back
    receipt = rolled_back(world)
    assert 5 <= receipt.steps[0].elapsed_seconds < TRAFFIC_BUDGET_SECONDS


def test_a_plane_that_stays_away_is_a_failed_rollback(world: World) -> None:
    world.traffic.down = True
    with pytest.raises(RollbackFailed, match="does not answer"):
        rolled_back(world)


def test_a_plane_without_an_incumbent_has_nothing_to_go_back_to(world: World) -> None:
    world.traffic.incumbent = None
    with pytest.raises(RollbackFailed, match="adopt"):
        rolled_back(world)


def test_an_incumbent_that_does_not_answer_is_a_failed_rollback_and_traffic_still_left_the_candidate(world: World) -> None:
    world.traffic.probe = lambda count: {"": count}  # type: ignore[method-assign]
    with pytest.raises(RollbackFailed):
        rolled_back(world)
    assert world.traffic.weight_bps == 0


def test_a_registry_that_restarts_costs_time_and_nothing_else(world: World) -> None:
    world.registry.down = True
    until = world.clock.monotonic() + 30

    def comes_back() -> None:
        world.registry.down = world.clock.monotonic() < until

    world.while_time_passes = comes_back
    receipt = rolled_back(world)
    assert receipt.steps[0].elapsed_seconds < 1
    assert receipt.steps[1].elapsed_seconds >= 30
    assert in_line(world)


def test_a_registry_that_stays_down_is_said_and_traffic_is_safe(world: World) -> None:
    world.registry.down = True
    started = world.clock.monotonic()
    with pytest.raises(RollbackFailed, match=r"traffic is on the incumbent .*run `interlock rollback` again"):
        rolled_back(world)
    assert world.clock.monotonic() - started <= AFTERWARDS_BUDGET_SECONDS + 2
    assert world.traffic.weight_bps == 0


def test_a_server_that_ends_slower_than_the_answer_is_waited_for_is_capacity_that_was_observed_to_go(world: World) -> None:
    end, calls = world.traffic.end, [0]

    def slow_end(*, token: int | None) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise ServiceUnavailable("ReadTimeout")
        end(token=token)

    world.traffic.end = slow_end  # type: ignore[method-assign]
    assert rolled_back(world).steps[-1].name == "capacity"
    assert world.traffic.candidate is None


def test_a_server_that_does_not_end_is_a_failed_rollback_that_says_what_is_safe(world: World) -> None:
    world.traffic.end = lambda *, token: None  # type: ignore[method-assign]
    with pytest.raises(RollbackFailed, match=r"traffic and registry are restored.*process 1"):
        rolled_back(world)
    assert in_line(world)


def test_a_rollback_twice_changes_nothing_the_second_time(world: World) -> None:
    rolled_back(world)
    before = (dict(world.registry.versions), dict(world.registry.champions))
    receipt = rolled_back(world)
    assert (dict(world.registry.versions), dict(world.registry.champions)) == before
    assert [step.name for step in receipt.steps] == ["traffic", "registry", "capacity"]


@pytest.mark.parametrize(
    "candidate",
    [
        pytest.param(None, id="nobody knows the candidate"),
        pytest.param(INCUMBENT, id="the candidate is the incumbent, after a promotion"),
    ],
)
def test_a_rollback_without_a_candidate_archives_nobody(candidate: ModelVersion | None) -> None:
    world = World()
    world.session()
    rolled_back(world, candidate)
    assert world.registry.versions[("late", "2")].stage == "Staging"
    assert world.registry.versions[("late", "1")].stage == "Production"


@pytest.mark.parametrize("candidate_stage", ["Archived", "Staging"])
def test_a_candidate_that_was_deleted_in_the_registry_keeps_the_champion_from_nothing(world: World, candidate_stage: str) -> None:
    started, deleted = world.clock.monotonic(), dataclasses.replace(CANDIDATE, version="9")
    state, token = world.traffic.observe(), world.traffic.token
    assert state.incumbent is not None
    restore_registry(
        world.registry, world.clock, incumbent=state.incumbent.version, candidate=deleted, token=token, candidate_stage=candidate_stage
    )
    assert world.registry.champions["late"] == "1"
    assert world.clock.monotonic() == started, "no is no: it is not asked again"
    assert [step.name for step in rolled_back(world, deleted).steps] == ["traffic", "registry", "capacity"]


def test_an_incumbent_that_was_deleted_in_the_registry_is_said_at_once_and_traffic_is_safe(world: World) -> None:
    del world.registry.versions[("late", "1")]
    started = world.clock.monotonic()
    with pytest.raises(RollbackFailed, match=r"refuses late/1 as champion.*serves all traffic: register it again"):
        rolled_back(world)
    assert (world.traffic.weight_bps, world.clock.monotonic() - started < 1) == (0, True)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda traffic: setattr(traffic, "deaf", True), id="a deaf plane"),
        pytest.param(lambda traffic: setattr(traffic, "down", True), id="a plane that is down"),
        pytest.param(lambda traffic: setattr(traffic, "incumbent", None), id="no incumbent"),
    ],
)
def test_restoring_either_observes_no_candidate_or_raises(spoil: Callable[[FakeTraffic], None]) -> None:
    clock = FakeClock()
    traffic = FakeTraffic(clock, INCUMBENT)
    traffic.weight_bps = 10_000
    spoil(traffic)
    with pytest.raises(RollbackFailed):
        roll_back(traffic, FakeRegistry(), clock, reason="x", candidate=None, token=None)


def test_a_promotion_whose_answer_got_lost_is_believed_when_it_is_observed() -> None:
    world = World()
    session = world.session()
    world.traffic.set_weight(10_000, lease_seconds=10, token=session.release.token)
    promote = world.traffic.promote

    def answers_too_late(*, token: int) -> None:
        promote(token=token)
        raise ServiceUnavailable("ReadTimeout")

    world.traffic.promote = answers_too_late  # type: ignore[method-assign]
    finalise_promotion(session)
    assert world.records("finalised")[0]["incumbent"] == CANDIDATE.label


def test_a_plane_that_does_not_answer_once_behind_a_promotion_is_asked_again() -> None:
    world = World()
    session = world.session()
    world.traffic.set_weight(10_000, lease_seconds=10, token=session.release.token)
    observe, calls = world.traffic.observe, [0]

    def blinks() -> PlaneState:
        calls[0] += 1
        if calls[0] == 1:
            raise ServiceUnavailable("the traffic plane does not answer")
        return observe()

    world.traffic.observe = blinks  # type: ignore[method-assign]
    finalise_promotion(session)
    assert world.records("finalised")[0]["incumbent"] == CANDIDATE.label
    world.traffic.down = True
    with pytest.raises(TrafficNotConverged, match=r"could not be observed.*does not answer"):
        finalise_promotion(session)


def test_a_promotion_that_is_not_observed_is_not_believed() -> None:
    world = World()
    session = world.session()
    world.traffic.set_weight(10_000, lease_seconds=100, token=session.release.token)
    world.traffic.promote = lambda *, token: None  # type: ignore[method-assign]
    with pytest.raises(TrafficNotConverged, match="the incumbent is late/1"):
        finalise_promotion(session)
    assert world.records("finalised") == []
