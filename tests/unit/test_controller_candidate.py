"""The candidate as the controller has it: contained, held to its limits by the fuse, and set free when it is promoted."""

import dataclasses
from pathlib import Path

import pytest

from interlock.control.resume import FUSE_BLOWN
from interlock.errors import ConcurrencyError, ServiceUnavailable
from interlock.model.release import ModelVersion
from interlock.plane import candidate
from interlock.plane.envoy_admin import EnvoySplit
from interlock.plane.fuse_signs import BLOWN_FILE, Blown, write_blown
from interlock.plane.lease import Lost
from interlock.plane.stamp import Stamp, read_stamp
from tests.plane_fakes import LIMITS, FakePlane

ONE = ModelVersion("late", "1", "sha256:" + "1" * 64)
TWO = ModelVersion("late", "2", "sha256:" + "2" * 64)
SAFE = EnvoySplit(0, is_mirroring=False, is_quiet=True)


@pytest.fixture
def priorities(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the CPU priority of the candidate's server."""
    done: list[str] = []
    monkeypatch.setattr(candidate, "make_nice", lambda pid: done.append("nice"))

    def make_equal(pid: int) -> bool:
        done.append("equal")
        return True

    monkeypatch.setattr(candidate, "make_equal", make_equal)
    return done


@pytest.fixture
def plane(tmp_path: Path, priorities: list[str]) -> FakePlane:
    plane = FakePlane(tmp_path)
    plane.controller.adopt(ONE, server="interlock", thread_count=4)
    return plane


@pytest.fixture
def token(plane: FakePlane) -> int:
    """Of a release whose candidate is loaded."""
    token = plane.controller.begin("r1", lease_seconds=10)
    plane.controller.load_candidate(TWO, server="interlock", thread_count=4, limits=LIMITS, token=token)
    return token


def stamp(plane: FakePlane) -> Stamp:
    found = read_stamp(plane.state_file.with_name("lease.json"))
    assert found is not None
    return found


def test_the_fuse_is_told_the_limits_and_whom_they_are_for_and_both_stay_at_every_renewal(plane: FakePlane, token: int) -> None:
    before = stamp(plane)
    assert (before.limits, before.candidate is not None) == (LIMITS, True)
    plane.controller.set_mirroring(enabled=True, token=token)
    plane.controller.set_weight(500, lease_seconds=10, token=token)
    plane.clock.seconds += 1
    plane.controller.renew(lease_seconds=10, token=token)
    assert (stamp(plane).limits, stamp(plane).candidate) == (before.limits, before.candidate)


def test_the_next_release_does_not_inherit_the_guard(plane: FakePlane, token: int) -> None:
    plane.controller.restore_incumbent(reason="over")
    plane.controller.end(token=None)
    plane.controller.begin("r2", lease_seconds=10)
    assert (stamp(plane).limits, stamp(plane).candidate) == (None, None)


def test_a_candidate_waits_for_the_cpu_while_it_has_copies_only_and_no_longer(plane: FakePlane, token: int, priorities: list[str]) -> None:
    assert priorities == []
    plane.controller.set_mirroring(enabled=True, token=token)
    plane.controller.set_weight(0, lease_seconds=10, token=token)
    assert priorities == ["nice"]
    plane.controller.set_weight(500, lease_seconds=10, token=token)
    assert priorities == ["nice", "equal"]
    plane.controller.set_mirroring(enabled=True, token=token)
    assert priorities == ["nice", "equal"], "it has users: nothing is taken from it"


def test_no_user_waits_for_a_candidate_that_waits_for_the_cpu(plane: FakePlane, token: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "make_equal", lambda pid: False)
    plane.controller.set_mirroring(enabled=True, token=token)
    with pytest.raises(ServiceUnavailable, match="waits for the CPU"):
        plane.controller.set_weight(500, lease_seconds=10, token=token)
    assert plane.admin.split.candidate_weight_bps == 0


def test_the_memory_of_a_candidate_is_limited_until_it_is_the_incumbent(plane: FakePlane, token: int) -> None:
    assert plane.servers.memory_limits_mib == {ONE.label: None, TWO.label: LIMITS.resident_mib}
    plane.controller.set_mirroring(enabled=True, token=token)
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)
    plane.controller.promote(token=token)
    assert plane.servers.memory_limits_mib == {ONE.label: None, TWO.label: None}


@pytest.fixture
def blown(plane: FakePlane, token: int) -> Blown:
    plane.controller.set_mirroring(enabled=True, token=token)
    plane.controller.set_weight(5000, lease_seconds=10, token=token)
    blown = Blown("r1", token, "63 % errors, limit 50 %", "2026-01-01T00:00:00Z")
    write_blown(plane.state_file.with_name(BLOWN_FILE), blown)
    return blown


def test_a_release_whose_fuse_has_blown_and_whose_flow_hangs_is_ended_by_somebody_else(plane: FakePlane, blown: Blown) -> None:
    plane.controller.enforce_lease()
    plane.clock.seconds += 20  # what the background does takes time on this clock as well
    assert plane.controller.enforce_lease() is None
    plane.clock.seconds += 20
    assert plane.controller.enforce_lease() == Lost("r1", TWO)
    assert plane.controller.enforce_lease() is None


def test_a_release_whose_flow_has_ended_it_is_not_ended_again(plane: FakePlane, blown: Blown) -> None:
    plane.controller.enforce_lease()
    plane.controller.end(token=None)
    plane.clock.seconds += 60
    assert plane.controller.enforce_lease() is None


def test_a_promotion_that_was_cut_never_lets_the_new_incumbent_go(plane: FakePlane, token: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.controller.set_mirroring(enabled=True, token=token)
    plane.controller.set_weight(10_000, lease_seconds=10, token=token)

    def fail(version: ModelVersion) -> None:
        monkeypatch.undo()
        raise OSError("no file descriptor left")

    monkeypatch.setattr(plane.servers, "set_free", fail)
    with pytest.raises(OSError, match="descriptor"):
        plane.controller.promote(token=token)
    plane.controller.promote(token=token)
    for _ in range(5):
        plane.clock.seconds += 2
        plane.controller.enforce_lease()
    assert plane.controller.incumbent == TWO
    assert plane.servers.unloaded == [ONE.label]


def test_an_incumbent_that_is_taken_over_is_set_free(plane: FakePlane, token: int) -> None:
    """Its supervisor may have been killed between the promotion on disk and the lifting of what contained the candidate."""
    plane.servers.leftovers, plane.servers.memory_limits_mib = {ONE.label}, {ONE.label: 300.0}
    plane.restarted().start()
    assert plane.servers.memory_limits_mib[ONE.label] is None


def test_a_blown_fuse_ends_the_release_and_says_which_number_broke_which_limit(plane: FakePlane, token: int, blown: Blown) -> None:
    assert plane.controller.enforce_lease() is None, "its flow is alive and will say so: nobody else closes it"
    state = plane.controller.observe()
    assert (plane.admin.split, state.release_id) == (SAFE, None)
    assert state.last_restore_reason == f"{FUSE_BLOWN}{blown.reason}"
    with pytest.raises(ConcurrencyError, match="held by nobody"):
        plane.controller.set_weight(5000, lease_seconds=10, token=token)
    assert plane.admin.split == SAFE


@pytest.mark.parametrize(("release_id", "token_of_it"), [("r1", 7), ("r0", 1)], ids=["another token", "another release"])
def test_what_blew_for_another_release_ends_nothing(plane: FakePlane, blown: Blown, release_id: str, token_of_it: int) -> None:
    other = dataclasses.replace(blown, release_id=release_id, token=token_of_it)
    write_blown(plane.state_file.with_name(BLOWN_FILE), other)
    assert plane.controller.enforce_lease() is None
    assert plane.controller.release_id == "r1"
    assert plane.admin.split.candidate_weight_bps == 5000


def test_a_blown_fuse_is_asked_again_until_envoy_has_followed(plane: FakePlane, blown: Blown) -> None:
    plane.admin.down = True
    with pytest.raises(ServiceUnavailable):
        plane.controller.enforce_lease()
    with pytest.raises(ConcurrencyError, match="63 % errors"):
        plane.controller.set_weight(6000, lease_seconds=10, token=1)
    plane.admin.down = False
    plane.controller.enforce_lease()
    assert plane.controller.observe().release_id is None
    assert plane.admin.split == SAFE
