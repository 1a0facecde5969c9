"""The plane's controller: who may move traffic, for how long, and that the way back to the incumbent is always open."""

import dataclasses
import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.errors import ConcurrencyError, ServiceRefused, ServiceUnavailable, StateError, TrafficNotConverged
from interlock.model.release import ModelVersion
from interlock.plane import controller as controller_module
from interlock.plane.controller import PlaneController
from interlock.plane.envoy_admin import EnvoySplit
from interlock.plane.envoy_settings import CANDIDATE, INCUMBENT
from tests.plane_fakes import FakePlane

ONE = ModelVersion("late", "1", "sha256:" + "1" * 64)
TWO = ModelVersion("late", "2", "sha256:" + "2" * 64)
THREE = ModelVersion("late", "3", "sha256:" + "3" * 64)
SAFE = EnvoySplit(0, is_mirroring=False, is_quiet=True)


def adopt(controller: PlaneController, version: ModelVersion = ONE) -> None:
    controller.adopt(version, server="interlock", thread_count=4)


def load(controller: PlaneController, token: int, version: ModelVersion = TWO) -> None:
    controller.load_candidate(version, server="mlflow", thread_count=2, token=token)


@pytest.fixture
def plane(tmp_path: Path) -> FakePlane:
    plane = FakePlane(tmp_path)
    adopt(plane.controller)
    return plane


@pytest.fixture
def token(plane: FakePlane) -> int:
    """Of a release in mid-canary, half of the traffic on its candidate."""
    token = plane.controller.begin("r1", lease_seconds=10)
    load(plane.controller, token)
    plane.controller.set_mirroring(enabled=True, token=token)
    plane.controller.set_weight(5000, lease_seconds=10, token=token)
    return token


def cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(controller_module, "write_json", full)


MOVES: dict[str, Callable[[PlaneController, int], object]] = {
    "load": load,
    "mirror": lambda c, t: c.set_mirroring(enabled=True, token=t),
    "stop mirroring": lambda c, t: c.set_mirroring(enabled=False, token=t),
    "weight": lambda c, t: c.set_weight(6000, lease_seconds=10, token=t),
    "weight 0": lambda c, t: c.set_weight(0, lease_seconds=10, token=t),
    "renew": lambda c, t: c.renew(lease_seconds=10, token=t),
    "promote": lambda c, t: c.promote(token=t),
    "end": lambda c, t: c.end(token=t),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_t15_a_stale_token_is_refused_everywhere_and_moves_nothing(
    plane: FakePlane, token: int, move: Callable[[PlaneController, int], object]
) -> None:
    before = plane.controller.observe()
    for stale in (token - 1, token + 1, 0, -1):
        with pytest.raises(ConcurrencyError, match=f"token {stale} is stale.*held by r1"):
            move(plane.controller, stale)
    assert plane.controller.observe() == before


@pytest.mark.parametrize("move", [pytest.param(move, id=name) for name, move in MOVES.items() if name != "end"])
def test_t15_a_token_is_worth_nothing_once_the_plane_was_restored(
    plane: FakePlane, token: int, move: Callable[[PlaneController, int], object]
) -> None:
    plane.controller.restore_incumbent(reason="a person")
    with pytest.raises(ConcurrencyError, match="held by nobody"):
        move(plane.controller, token)
    assert plane.admin.split == SAFE


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_t36_a_lease_that_is_over_cannot_be_renewed_even_before_anybody_has_enforced_it(
    plane: FakePlane, token: int, move: Callable[[PlaneController, int], object]
) -> None:
    """A supervisor that was stopped for a while wakes up to a renewal before its lease thread has had a turn."""
    plane.clock.seconds += 10
    with pytest.raises(ConcurrencyError):
        move(plane.controller, token)
    assert plane.controller.enforce_lease() == "r1"
    assert plane.admin.split == SAFE


def test_a_lease_holds_until_it_is_over_and_then_everything_is_the_incumbents(plane: FakePlane, token: int) -> None:
    plane.clock.seconds += 9.9
    assert plane.controller.enforce_lease() is None
    plane.controller.renew(lease_seconds=10, token=token)
    plane.clock.seconds += 9.9
    assert plane.controller.enforce_lease() is None
    assert plane.admin.split.candidate_weight_bps == 5000
    plane.clock.seconds += 0.2
    assert plane.controller.enforce_lease() == "r1"
    assert plane.controller.enforce_lease() is None
    state = plane.controller.observe()
    assert (plane.admin.split, state.candidate, state.release_id, state.lease_remaining_seconds) == (SAFE, None, None, None)
    assert [at.label for at in plane.admin.endpoints(CANDIDATE)] == [ONE.label]
    deadline = time.monotonic() + 30
    while plane.servers.unloaded != [TWO.label]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_is_enforced_while_a_dead_candidate_takes_its_time_to_stop(plane: FakePlane, token: int) -> None:
    plane.servers.unload = lambda version: time.sleep(60)  # type: ignore[method-assign]
    plane.clock.seconds += 11
    started = time.monotonic()
    assert plane.controller.enforce_lease() == "r1"
    plane.controller.restore_incumbent(reason="a person, meanwhile")
    plane.controller.begin("r2", lease_seconds=10)
    assert time.monotonic() - started < 30


def test_an_envoy_that_does_not_answer_is_asked_again_until_the_lease_was_enforced(plane: FakePlane, token: int) -> None:
    plane.clock.seconds += 11
    plane.admin.down = True
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            plane.controller.enforce_lease()
    plane.admin.down = False
    assert plane.controller.enforce_lease() == "r1"
    assert plane.admin.split == SAFE


@pytest.mark.parametrize("lease_seconds", [0, -1, 121, 1e9, float("inf"), float("nan")])
def test_a_lease_that_would_protect_nobody_is_refused(plane: FakePlane, lease_seconds: float) -> None:
    with pytest.raises(ServiceRefused, match="lease"):
        plane.controller.begin("r0", lease_seconds=lease_seconds)
    token = plane.controller.begin("r1", lease_seconds=10)
    load(plane.controller, token)
    with pytest.raises(ServiceRefused, match="lease"):
        plane.controller.renew(lease_seconds=lease_seconds, token=token)
    with pytest.raises(ServiceRefused, match="lease"):
        plane.controller.set_weight(100, lease_seconds=lease_seconds, token=token)
    assert plane.controller.observe().lease_remaining_seconds == 10
    assert plane.admin.split.candidate_weight_bps == 0


def test_the_plane_is_one_releases_at_a_time(plane: FakePlane, token: int) -> None:
    with pytest.raises(ConcurrencyError, match="r1 holds the traffic plane"):
        plane.controller.begin("r2", lease_seconds=10)
    plane.controller.restore_incumbent(reason="x")
    assert plane.controller.begin("r2", lease_seconds=10) == token + 1


@pytest.mark.parametrize("spoil", ["not ready", "gone"])
def test_t17_no_release_begins_while_the_incumbent_is_unhealthy(plane: FakePlane, spoil: str) -> None:
    if spoil == "gone":
        plane.servers.unload(ONE)
    plane.servers.not_ready.add(ONE.label)
    with pytest.raises(ServiceRefused, match="INCUMBENT_UNHEALTHY"):
        plane.controller.begin("r1", lease_seconds=10)
    assert plane.controller.observe().release_id is None
    plane.controller.restore_incumbent(reason="the repair path stays open")


def test_a_plane_without_an_incumbent_takes_no_release(tmp_path: Path) -> None:
    with pytest.raises(ServiceRefused, match="INCUMBENT_UNHEALTHY"):
        FakePlane(tmp_path).controller.begin("r1", lease_seconds=10)


def test_a_candidate_that_is_not_ready_gets_neither_traffic_nor_copies(plane: FakePlane) -> None:
    token = plane.controller.begin("r1", lease_seconds=10)
    moves: list[Callable[[], object]] = [
        lambda: plane.controller.set_weight(1, lease_seconds=10, token=token),
        lambda: plane.controller.set_mirroring(enabled=True, token=token),
        lambda: plane.controller.promote(token=token),
    ]
    for move in moves:
        with pytest.raises(ServiceRefused, match="not ready"):
            move()
    plane.servers.not_ready.add(TWO.label)
    load(plane.controller, token)
    for move in moves:
        with pytest.raises(ServiceRefused, match="not ready"):
            move()
    assert plane.admin.split == SAFE


@pytest.mark.parametrize("weight_bps", [-1, 10_001, 1_000_000])
def test_a_weight_that_is_none_is_refused(plane: FakePlane, token: int, weight_bps: int) -> None:
    with pytest.raises(ServiceRefused, match="outside"):
        plane.controller.set_weight(weight_bps, lease_seconds=10, token=token)


def test_mirroring_cannot_be_switched_off_while_the_candidate_has_traffic(plane: FakePlane, token: int) -> None:
    with pytest.raises(ServiceRefused, match="must stay compared"):
        plane.controller.set_mirroring(enabled=False, token=token)
    assert plane.admin.split.is_mirroring
    plane.controller.set_weight(0, lease_seconds=10, token=token)
    assert plane.admin.split.is_mirroring, "the shadow is mirrored too"
    plane.controller.set_mirroring(enabled=False, token=token)
    assert plane.admin.split == SAFE


@pytest.mark.parametrize("weight_bps", [0, 5000, 9999])
def test_nobody_is_promoted_below_all_traffic(plane: FakePlane, token: int, weight_bps: int) -> None:
    plane.controller.set_weight(weight_bps, lease_seconds=10, token=token)
    with pytest.raises(ServiceRefused, match="at all traffic only"):
        plane.controller.promote(token=token)
    assert plane.controller.incumbent == ONE


def test_a_promotion_makes_the_candidate_the_incumbent_also_after_a_restart(plane: FakePlane, token: int) -> None:
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    plane.controller.promote(token=token)
    state = plane.controller.observe()
    assert (plane.controller.incumbent, state.candidate, state.release_id) == (TWO, None, None)
    assert plane.admin.split == SAFE
    assert [at.label for at in plane.admin.endpoints(INCUMBENT)] == [TWO.label]
    assert plane.servers.unloaded == [ONE.label]
    again = plane.restarted()
    again.start()
    assert again.incumbent == TWO
    assert json.loads(plane.state_file.read_text())["serving"] == ["mlflow", 2]


def test_a_promotion_that_cannot_be_remembered_changes_nothing(plane: FakePlane, token: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: a plane that believes one version while Envoy serves the other could never be rolled back."""
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    cannot_write(monkeypatch)
    with pytest.raises(StateError, match="No space left"):
        plane.controller.promote(token=token)
    state = plane.controller.observe()
    assert (plane.controller.incumbent, state.candidate_weight_bps) == (ONE, 10_000)
    assert state.candidate is not None
    plane.controller.restore_incumbent(reason="x")
    assert plane.admin.split == SAFE
    assert [at.label for at in plane.admin.endpoints(INCUMBENT)] == [ONE.label]


def test_a_release_that_cannot_be_remembered_does_not_begin(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot_write(monkeypatch)
    with pytest.raises(StateError, match="cannot be written"):
        plane.controller.begin("r1", lease_seconds=10)
    assert plane.controller.observe().release_id is None
    monkeypatch.undo()
    assert plane.controller.begin("r2", lease_seconds=10) == 1


def test_the_way_back_needs_no_token_no_disk_and_works_twice(plane: FakePlane, token: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot_write(monkeypatch)
    for _ in range(2):
        plane.controller.restore_incumbent(reason="a person")
        assert plane.admin.split == SAFE
        assert plane.controller.observe().release_id is None


def test_the_end_stops_the_candidate_and_frees_the_plane(plane: FakePlane, token: int) -> None:
    with pytest.raises(ServiceRefused, match="still has traffic"):
        plane.controller.end(token=token)
    plane.controller.restore_incumbent(reason="x")
    plane.controller.end(token=token)
    plane.controller.end(token=None)
    assert plane.servers.unloaded == [TWO.label]
    assert plane.controller.observe().candidate is None
    assert [at.label for at in plane.admin.endpoints(CANDIDATE)] == [ONE.label]


def test_a_candidate_that_envoy_still_has_is_not_forgotten(plane: FakePlane, token: int) -> None:
    plane.controller.restore_incumbent(reason="x")
    plane.admin.blind = True
    with pytest.raises(TrafficNotConverged):
        plane.controller.end(token=None)
    assert plane.controller.observe().candidate is not None
    assert plane.servers.unloaded == []
    plane.admin.blind = False
    plane.controller.end(token=None)
    assert plane.servers.unloaded == [TWO.label]


def test_a_left_over_candidate_is_stopped_when_the_next_one_is_loaded(plane: FakePlane, token: int) -> None:
    plane.controller.restore_incumbent(reason="lost, and nobody cleaned up")
    load(plane.controller, plane.controller.begin("r2", lease_seconds=10), THREE)
    assert plane.servers.unloaded == [TWO.label]
    assert set(plane.servers.loaded) == {ONE.label, THREE.label}


def test_the_incumbent_is_no_candidate(plane: FakePlane) -> None:
    with pytest.raises(ServiceRefused, match="incumbent already"):
        load(plane.controller, plane.controller.begin("r1", lease_seconds=10), ONE)


def test_an_incumbent_is_adopted_once(plane: FakePlane) -> None:
    adopt(plane.controller)
    for other in (TWO, dataclasses.replace(ONE, digest=TWO.digest)):
        with pytest.raises(ServiceRefused, match="by a release only"):
            adopt(plane.controller, other)
    assert plane.controller.incumbent == ONE


def test_a_restart_remembers_incumbent_digest_and_token_and_forgets_the_release(plane: FakePlane, token: int) -> None:
    again = plane.restarted()
    again.start()
    state = again.observe()
    assert plane.admin.split == SAFE, "whatever was under way is over"
    assert state.incumbent is not None
    assert state.incumbent.version == ONE
    assert (state.release_id, state.token) == (None, token)
    assert again.begin("r2", lease_seconds=10) == token + 1
    with pytest.raises(ConcurrencyError):
        again.renew(lease_seconds=10, token=token)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"token": "x"}', '{"token": 1, "serving": [], "incumbent": null}', "\xff"])
def test_a_memory_that_cannot_be_read_is_said_in_one_sentence(plane: FakePlane, text: str) -> None:
    plane.state_file.write_text(text, encoding="latin-1")
    with pytest.raises(StateError, match=r"plane\.json does not say who the incumbent is"):
        plane.restarted()


def test_an_envoy_that_does_not_take_endpoints_over_is_not_converged(tmp_path: Path) -> None:
    plane = FakePlane(tmp_path)
    plane.admin.blind = True
    with pytest.raises(TrafficNotConverged, match="after 5 s"):
        adopt(plane.controller)


def test_a_deaf_envoy_is_seen_in_what_is_observed(plane: FakePlane, token: int) -> None:
    plane.admin.deaf = True
    plane.controller.restore_incumbent(reason="x")
    assert plane.controller.observe().candidate_weight_bps == 5000


def test_only_the_incumbent_is_ever_restarted(plane: FakePlane, token: int) -> None:
    plane.servers.died = {ONE.label: "killed", TWO.label: "killed"}
    plane.controller.watch_servers()
    assert plane.servers.restarted == [ONE.label]
    assert plane.controller.candidate_failure() == "killed"
    plane.controller.restore_incumbent(reason="x")
    plane.controller.end(token=None)
    assert plane.controller.candidate_failure() is None
