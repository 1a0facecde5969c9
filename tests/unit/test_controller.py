"""The plane's controller: who may move traffic, for how long, and that the way back to the incumbent is always open."""

import dataclasses
import errno
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.errors import ConcurrencyError, ServiceRefused, ServiceUnavailable, StateError, TrafficNotConverged
from interlock.model.release import ModelVersion
from interlock.plane import memory
from interlock.plane.controller import PlaneController
from interlock.plane.envoy_admin import EnvoySplit
from interlock.plane.envoy_settings import CANDIDATE, INCUMBENT
from interlock.plane.lease import Lost
from tests.plane_fakes import LIMITS, FakePlane

ONE = ModelVersion("late", "1", "sha256:" + "1" * 64)
TWO = ModelVersion("late", "2", "sha256:" + "2" * 64)
THREE = ModelVersion("late", "3", "sha256:" + "3" * 64)
SAFE = EnvoySplit(0, is_mirroring=False, is_quiet=True)


def adopt(controller: PlaneController, version: ModelVersion = ONE) -> None:
    controller.adopt(version, server="interlock", thread_count=4)


def load(controller: PlaneController, token: int, version: ModelVersion = TWO) -> None:
    controller.load_candidate(version, server="mlflow", thread_count=2, limits=LIMITS, token=token)


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


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def a_second_later(plane: FakePlane) -> Lost | None:
    plane.clock.seconds += 1
    return plane.controller.enforce_lease()


def cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(memory, "write_json", full)


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
    assert plane.controller.enforce_lease() == Lost("r1", TWO)
    assert plane.admin.split == SAFE


def test_a_lease_holds_until_it_is_over_and_then_everything_is_the_incumbents(plane: FakePlane, token: int) -> None:
    plane.clock.seconds += 9.9
    assert plane.controller.enforce_lease() is None
    plane.controller.renew(lease_seconds=10, token=token)
    plane.clock.seconds += 9.9
    assert plane.controller.enforce_lease() is None
    assert plane.admin.split.candidate_weight_bps == 5000
    plane.clock.seconds += 0.2
    assert plane.controller.enforce_lease() == Lost("r1", TWO)
    assert plane.controller.enforce_lease() is None
    state = plane.controller.observe()
    assert (plane.admin.split, state.candidate, state.release_id, state.lease_remaining_seconds) == (SAFE, None, None, None)
    assert plane.admin.labels(CANDIDATE) == [ONE.label]
    eventually(lambda: plane.servers.unloaded == [TWO.label])


def test_a_lease_is_enforced_while_a_dead_candidate_takes_its_time_to_stop(plane: FakePlane, token: int) -> None:
    plane.servers.on_unload = lambda: time.sleep(60)
    plane.clock.seconds += 11
    started = time.monotonic()
    assert plane.controller.enforce_lease() == Lost("r1", TWO)
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
    assert plane.controller.enforce_lease() == Lost("r1", TWO)
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
    assert plane.admin.labels(INCUMBENT) == [TWO.label]
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
    assert plane.admin.labels(INCUMBENT) == [ONE.label]


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
    assert plane.admin.labels(CANDIDATE) == [ONE.label]


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
    plane.controller.enforce_lease()
    eventually(lambda: plane.servers.unloaded == [TWO.label])
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


# What nobody who holds the plane will put right.


@pytest.mark.parametrize(
    "split",
    [
        pytest.param(EnvoySplit(2500, is_mirroring=True, is_quiet=False), id="a share that nobody leased"),
        pytest.param(EnvoySplit(0, is_mirroring=True, is_quiet=True), id="a mirror left on"),
        pytest.param(EnvoySplit(0, is_mirroring=False, is_quiet=False), id="captured for nobody"),
    ],
)
def test_a_split_that_no_release_holds_is_put_right(plane: FakePlane, split: EnvoySplit) -> None:
    plane.admin.split = split
    assert a_second_later(plane) is None
    assert plane.admin.split == SAFE


def test_a_split_that_interlock_did_not_write_is_put_right(plane: FakePlane) -> None:
    plane.admin.broken_split = True
    a_second_later(plane)
    assert plane.admin.observe_split() == SAFE


def test_a_restore_that_envoy_did_not_take_is_asked_again_by_the_lease_thread(plane: FakePlane, token: int) -> None:
    plane.admin.deaf = True
    plane.controller.restore_incumbent(reason="x")
    plane.admin.deaf = False
    assert a_second_later(plane) is None
    assert plane.admin.split == SAFE


def test_the_split_of_a_release_that_holds_the_plane_is_its_own(plane: FakePlane, token: int) -> None:
    a_second_later(plane)
    assert plane.admin.split == EnvoySplit(5000, is_mirroring=True, is_quiet=False)


def test_an_idle_plane_is_read_once_a_second(plane: FakePlane) -> None:
    plane.controller.enforce_lease()
    before = plane.admin.split_reads
    for _ in range(50):
        plane.clock.seconds += 0.2
        plane.controller.enforce_lease()
    assert 9 <= plane.admin.split_reads - before <= 10


def test_a_lease_is_lost_only_when_the_safe_split_was_read_back(plane: FakePlane, token: int) -> None:
    plane.clock.seconds += 11
    plane.admin.deaf = True
    for _ in range(3):
        with pytest.raises(TrafficNotConverged, match="asked again"):
            plane.controller.enforce_lease()
        assert plane.controller.release_id == "r1"
    plane.admin.deaf = False
    assert plane.controller.enforce_lease() == Lost("r1", TWO)
    assert (plane.admin.split, plane.controller.release_id) == (SAFE, None)


def test_the_candidate_of_a_lost_release_is_cleaned_up_however_slow_envoy_is(plane: FakePlane, token: int) -> None:
    plane.clock.seconds += 11
    plane.admin.blind = True
    before = plane.clock.seconds
    assert plane.controller.enforce_lease() == Lost("r1", TWO), "the release is lost whatever becomes of its server"
    for _ in range(3):
        assert a_second_later(plane) is None
    assert plane.clock.seconds - before == 3, "the lease thread does not wait for endpoints"
    assert plane.servers.unloaded == [], "Envoy may still send requests there"
    plane.admin.blind, plane.admin.down = False, True
    with pytest.raises(ServiceUnavailable):
        a_second_later(plane)
    plane.admin.down = False
    a_second_later(plane)
    assert plane.admin.labels(CANDIDATE) == [ONE.label]
    eventually(lambda: plane.servers.unloaded == [TWO.label])
    assert plane.controller.observe().candidate is None


def test_a_server_that_could_not_be_stopped_is_stopped_later(plane: FakePlane, token: int) -> None:
    def fail() -> None:
        raise OSError("no more file descriptors")

    plane.servers.on_unload = fail
    plane.clock.seconds += 11
    plane.controller.enforce_lease()
    plane.servers.on_unload = lambda: None

    def stopped() -> bool:
        a_second_later(plane)
        return plane.servers.unloaded == [TWO.label]

    eventually(stopped)


def test_the_next_release_of_the_same_version_gets_a_server_of_its_own(plane: FakePlane, token: int) -> None:
    """The server of the lost one is still stopping: what is loaded meanwhile must not be stopped with it."""
    stopping, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        stopping.set()
        may_end.wait(30)

    plane.servers.on_unload = wait
    plane.clock.seconds += 11
    plane.controller.enforce_lease()
    assert stopping.wait(30)
    token = plane.controller.begin("r2", lease_seconds=10)
    loading = threading.Thread(target=load, args=(plane.controller, token))
    loading.start()
    loading.join(0.1)
    assert loading.is_alive()
    may_end.set()
    loading.join(30)
    assert plane.servers.unloaded == [TWO.label]
    assert set(plane.servers.loaded) == {ONE.label, TWO.label}


def test_a_version_whose_earlier_server_cannot_be_stopped_yet_is_not_loaded(plane: FakePlane, token: int) -> None:
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    plane.admin.blind = True
    with pytest.raises(TrafficNotConverged):
        plane.controller.promote(token=token)
    plane.controller.restore_incumbent(reason="x")
    with pytest.raises(ServiceUnavailable, match="late/1 is still being stopped"):
        load(plane.controller, plane.controller.begin("r2", lease_seconds=10), ONE)


@pytest.mark.parametrize("fault", ["blind", "down", "deaf"])
def test_a_promotion_that_envoy_did_not_follow_is_finished_when_it_is_asked_for_again(plane: FakePlane, token: int, fault: str) -> None:
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    place = plane.controller._arms.place

    def fail_then(**arms: ModelVersion | None) -> None:
        setattr(plane.admin, fault, True)  # from here on: what comes before is on disk
        place(**arms)

    plane.controller._arms.place = fail_then  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises((TrafficNotConverged, ServiceUnavailable)):
            plane.controller.promote(token=token)
    plane.controller._arms.place = place  # type: ignore[method-assign]
    assert plane.controller.incumbent == TWO
    assert plane.servers.unloaded == [], "Envoy may still send requests to the former incumbent"
    setattr(plane.admin, fault, False)
    for _ in range(2):
        plane.controller.promote(token=token)
        assert (plane.admin.split, plane.controller.release_id, plane.servers.unloaded) == (SAFE, None, [ONE.label])
    assert plane.admin.labels(INCUMBENT) == [TWO.label]


def test_a_promotion_that_nobody_finishes_is_finished_by_the_lease_thread(plane: FakePlane, token: int) -> None:
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    plane.admin.blind = True
    with pytest.raises(TrafficNotConverged):
        plane.controller.promote(token=token)
    plane.clock.seconds += 11
    assert plane.controller.enforce_lease() == Lost("r1", None), "what was promoted is nobody's candidate any more"
    plane.admin.blind = False
    a_second_later(plane)
    eventually(lambda: plane.servers.unloaded == [ONE.label])
    assert plane.admin.labels(INCUMBENT) == [TWO.label]
    assert plane.admin.split == SAFE


def test_a_promotion_told_twice_moves_nothing_of_the_next_release(plane: FakePlane, token: int) -> None:
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    plane.controller.promote(token=token)
    again = plane.restarted()
    again.promote(token=token)
    later = again.begin("r2", lease_seconds=10)
    load(again, later, THREE)
    again.set_weight(5000, lease_seconds=10, token=later)
    again.promote(token=token)
    assert (again.incumbent, again.release_id, plane.admin.split.candidate_weight_bps) == (TWO, "r2", 5000)


def test_files_are_read_while_the_lease_can_be_enforced(plane: FakePlane) -> None:
    """A model of 10 GB takes half a minute to read; the lease of five seconds must not wait for it."""
    token = plane.controller.begin("r1", lease_seconds=10)
    enforced: list[Lost | None] = []

    def enforce_elsewhere() -> None:
        thread = threading.Thread(target=lambda: enforced.append(plane.controller.enforce_lease()))
        thread.start()
        thread.join(10)

    plane.servers.on_check = enforce_elsewhere
    load(plane.controller, token)
    adopt(plane.controller)
    assert enforced == [None, None]


def test_a_release_that_is_lost_while_its_files_are_read_gets_no_server(plane: FakePlane) -> None:
    token = plane.controller.begin("r1", lease_seconds=10)
    plane.servers.on_check = lambda: plane.controller.restore_incumbent(reason="a person")
    with pytest.raises(ConcurrencyError):
        load(plane.controller, token)
    assert set(plane.servers.loaded) == {ONE.label}


@pytest.fixture
def stuck(tmp_path: Path) -> FakePlane:
    """A first incumbent that never becomes ready."""
    plane = FakePlane(tmp_path)
    plane.servers.not_ready.add(ONE.label)
    adopt(plane.controller)
    return plane


@pytest.mark.parametrize(
    "other", [pytest.param(TWO, id="another version"), pytest.param(dataclasses.replace(ONE, digest=TWO.digest), id="the same, mended")]
)
def test_an_incumbent_that_was_never_ready_gives_way_to_another(stuck: FakePlane, other: ModelVersion) -> None:
    stuck.controller.watch_servers()
    again = stuck.restarted()
    again.start()
    adopt(again, other)
    assert (again.incumbent, stuck.servers.loaded) == (other, {other.label: other})
    assert stuck.servers.unloaded == [ONE.label]
    assert stuck.admin.labels(INCUMBENT) == [other.label]
    assert stuck.restarted().incumbent == other


def test_an_incumbent_that_was_ready_once_stays_whatever_it_does_later(stuck: FakePlane) -> None:
    stuck.servers.not_ready.clear()
    stuck.controller.watch_servers()
    assert json.loads(stuck.state_file.read_text())["proved"] is True
    stuck.servers.not_ready.add(ONE.label)
    for controller in (stuck.controller, stuck.restarted()):
        with pytest.raises(ServiceRefused, match="by a release only"):
            adopt(controller, TWO)
        assert controller.incumbent == ONE
    assert stuck.servers.unloaded == []


def test_an_incumbent_of_an_older_state_file_counts_as_proved(stuck: FakePlane) -> None:
    saved = json.loads(stuck.state_file.read_text())
    stuck.state_file.write_text(json.dumps({key: saved[key] for key in ("incumbent", "serving", "token")}))
    with pytest.raises(ServiceRefused, match="by a release only"):
        adopt(stuck.restarted(), TWO)


def test_a_mended_version_has_to_prove_itself_again(stuck: FakePlane) -> None:
    adopt(stuck.controller, TWO)
    stuck.controller.watch_servers()
    assert json.loads(stuck.state_file.read_text())["proved"] is True
    with pytest.raises(ServiceRefused, match="by a release only"):
        adopt(stuck.controller, THREE)


def test_why_the_incumbent_was_asked_for_last_is_told(plane: FakePlane, token: int) -> None:
    assert plane.controller.observe().last_restore_reason is None
    plane.controller.restore_incumbent(reason="prediction divergence e = 31.2")
    assert plane.controller.observe().last_restore_reason == "prediction divergence e = 31.2"
    plane.controller.begin("r2", lease_seconds=10)
    plane.clock.seconds += 11
    plane.controller.enforce_lease()
    assert plane.controller.observe().last_restore_reason == "the lease of release r2 expired"


def test_why_the_incumbent_does_not_run_is_told(plane: FakePlane) -> None:
    assert plane.controller.incumbent_failure() is None
    plane.servers.died[ONE.label] = "other files"
    assert plane.controller.incumbent_failure() == "other files"


def test_an_envoy_that_needs_a_moment_is_looked_at_again_at_the_next_tick(plane: FakePlane, token: int) -> None:
    plane.clock.seconds += 11
    plane.admin.blind = True
    plane.controller.enforce_lease()
    plane.admin.blind = False
    plane.clock.seconds += 0.2
    plane.controller.enforce_lease()
    eventually(lambda: plane.servers.unloaded == [TWO.label])


def test_an_incumbent_that_answers_gets_a_spare_and_envoy_has_it_behind_the_first_one(tmp_path: Path) -> None:
    plane = FakePlane(tmp_path)
    plane.servers.spares = set()
    plane.servers.not_ready = {ONE.label, f"{ONE.label} spare"}
    adopt(plane.controller)
    plane.controller.keep_spare()
    assert plane.servers.spares == set(), "it does not answer itself yet"
    plane.servers.not_ready.remove(ONE.label)
    plane.controller.keep_spare()
    assert plane.servers.spares == {ONE.label}
    plane.controller.watch_servers()
    primary, spare = plane.servers.ports[ONE.label], plane.servers.ports[ONE.label] + 10_000
    assert [at.port for at in plane.admin.endpoints(INCUMBENT)] == [primary], "it has not answered yet"
    plane.servers.not_ready.clear()
    plane.controller.watch_servers()
    assert [at.port for at in plane.admin.endpoints(INCUMBENT)] == [primary, spare]
    plane.servers.not_ready.add(f"{ONE.label} spare")
    plane.controller.watch_servers()
    assert [at.port for at in plane.admin.endpoints(INCUMBENT)] == [primary, spare], "one late answer does not take it away"


def test_nobody_is_released_beside_an_incumbent_whose_server_is_its_only_one(plane: FakePlane) -> None:
    plane.servers.not_ready.add(f"{ONE.label} spare")
    with pytest.raises(ServiceUnavailable, match="spare server does not answer yet"):
        plane.controller.begin("r1", lease_seconds=10)
    assert plane.controller.release_id is None
    plane.servers.not_ready.clear()
    plane.controller.begin("r1", lease_seconds=10)


def test_a_spare_that_cannot_be_started_is_not_tried_at_every_turn(plane: FakePlane) -> None:
    plane.servers.spares, checks = set(), []

    def refuse() -> None:
        checks.append(plane.clock.seconds)
        raise ServiceRefused("other files")

    plane.servers.on_check = refuse
    for _ in range(2):
        with pytest.raises(ServiceRefused, match="other files"):
            plane.controller.keep_spare()
        plane.controller.keep_spare()
        plane.clock.seconds += 11
    assert len(checks) == 2


@pytest.mark.parametrize("left", [{ONE.label}, {ONE.label, f"{ONE.label} spare"}], ids=["the first one only", "both"])
def test_a_plane_that_starts_again_goes_on_with_the_servers_that_run(plane: FakePlane, left: set[str]) -> None:
    """The supervisor was killed: reading the files again, or a new process, would only put an incumbent at risk that serves."""
    plane.servers.loaded.clear()
    plane.servers.leftovers, plane.servers.spares = left, set()
    plane.servers.on_check = lambda: pytest.fail("its files were read when it was started")
    plane.restarted().start()
    assert set(plane.servers.loaded) == {ONE.label}
    assert plane.servers.spares == ({ONE.label} if len(left) == 2 else set())
    assert len(plane.admin.endpoints(INCUMBENT)) == len(left)
