"""Tokens grow and an older one changes nothing; the words of the plane that decide whether a release was decided; no wall clock."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.fakes import FakeClock
from interlock.adapters.mlflow_registry import TOKEN_TAG, MlflowRegistry
from interlock.control.adoption import adopt_incumbent
from interlock.control.plane_rollback import roll_back_plane
from interlock.control.resume import is_nobodys_decision
from interlock.control.rollback import roll_back
from interlock.control.session import open_session
from interlock.errors import ConcurrencyError
from interlock.plane.lease import Lease
from interlock.plane.stamp import read_stamp, seconds_since_boot
from interlock.wiring import is_alive, is_running, this_process
from tests.plane_fakes import FakePlane
from tests.worlds import CANDIDATE, INCUMBENT, World, read_test_profile


def serving_plane(directory: Path) -> FakePlane:
    plane = FakePlane(directory)
    plane.controller.adopt(INCUMBENT, server="interlock", thread_count=1)
    return plane


def test_a_release_claims_the_model_with_the_planes_token() -> None:
    world = World()
    session = open_session(world.services(), read_test_profile(), model_name="late", version="2")
    assert session.release.token == world.registry.read_token("late") == 1


def test_tokens_grow_although_the_plane_has_lost_its_memory() -> None:
    world = World()
    world.registry.claim("late", token=41)
    session = open_session(world.services(), read_test_profile(), model_name="late", version="2")
    assert session.release.token == world.registry.read_token("late") == 42


def test_a_claim_that_is_refused_gives_the_plane_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.registry.claim("late", token=41)
    begin = world.traffic.begin  # of a plane that does not know what the registry has seen
    monkeypatch.setattr(world.traffic, "begin", lambda release_id, *, lease_seconds, above: begin(release_id, lease_seconds=lease_seconds))
    with pytest.raises(ConcurrencyError, match=r"token 41\D*token 1"):
        open_session(world.services(), read_test_profile(), model_name="late", version="2")
    assert (world.traffic.release_id, world.registry.read_token("late")) == (None, 41)


def test_two_controllers_at_once_only_one_holds_the_plane_and_the_model() -> None:
    world = World()
    first = open_session(world.services(), read_test_profile(), model_name="late", version="2")
    world.while_time_passes = lambda: world.traffic.renew(lease_seconds=100, token=first.release.token)
    with pytest.raises(ConcurrencyError, match="holds the plane"):
        open_session(world.services(), read_test_profile(), model_name="late", version="2")
    assert (world.traffic.release_id, world.registry.read_token("late")) == (first.release.release_id, first.release.token)


def test_a_stale_rollback_moves_neither_traffic_nor_champion() -> None:
    world = World()
    stale = world.session().release.token
    world.traffic.restore_incumbent(reason="its lease")
    newer = world.traffic.begin("newer", lease_seconds=100)
    world.registry.claim("late", token=newer)
    world.registry.set_champion("late", "2", token=newer)
    before = (dict(world.registry.versions), dict(world.registry.champions))
    with pytest.raises(ConcurrencyError, match=rf"token {stale} is stale"):
        roll_back(world.traffic, world.registry, world.clock, reason="late", candidate=CANDIDATE, token=stale)
    assert (dict(world.registry.versions), dict(world.registry.champions)) == before
    assert world.traffic.release_id == "newer"


def test_a_person_takes_traffic_back_always_and_is_told_when_the_registry_belongs_to_a_newer_release() -> None:
    world = World()
    session = world.session()
    world.traffic.set_weight(5000, lease_seconds=10, token=session.release.token)
    world.registry.claim("late", token=99)  # of another plane
    before = dict(world.registry.versions)
    receipt = roll_back_plane(world.services(), reason="a person")
    assert [step.name for step in receipt.steps] == ["traffic", "registry", "capacity"]
    assert all(word in receipt.steps[1].observed for word in ("left alone", "99"))
    assert (world.traffic.weight_bps, world.traffic.candidate, dict(world.registry.versions)) == (0, None, before)


def test_a_person_without_a_release_brings_the_registry_in_line_with_the_planes_token() -> None:
    world = World()
    token = open_session(world.services(), read_test_profile(), model_name="late", version="2").release.token
    world.registry.set_champion("late", "2", token=token)
    receipt = roll_back_plane(world.services(), reason="a person")
    assert receipt.steps[1].observed == "champion and Production are version 1"
    assert world.registry.champions["late"] == "1"


def test_an_adoption_has_a_token_of_its_own_above_all_others() -> None:
    world = World()
    world.registry.claim("late", token=7)
    world.traffic.incumbent = None
    adopt_incumbent(world.services(), read_test_profile(), "late", "2", server="interlock", thread_count=1)
    assert (world.traffic.token, world.registry.read_token("late"), world.traffic.release_id) == (8, 8, None)
    assert world.registry.champions["late"] == "2"
    adopt_incumbent(world.services(), read_test_profile(), "late", "2", server="interlock", thread_count=1)
    assert world.registry.read_token("late") == 9


def test_an_adoption_of_a_model_with_a_blank_in_its_name_is_recorded(tmp_path: Path) -> None:
    world = World()
    world.registry.add("late flights", "1")
    world.traffic.incumbent = None
    world.artifact = replace(world.artifact, digest=INCUMBENT.digest)
    services = replace(world.services(), evidence=EvidenceFiles(tmp_path, world.clock))
    adopt_incumbent(services, read_test_profile(), "late flights", "1", server="interlock", thread_count=1)
    assert services.evidence.list_releases() == ["adoption-late-flights-1"]


def test_an_adoption_while_a_release_holds_the_plane_is_refused_and_changes_nothing() -> None:
    world = World()
    world.session()
    with pytest.raises(ConcurrencyError):
        adopt_incumbent(world.services(), read_test_profile(), "late", "1", server="interlock", thread_count=1)
    assert world.traffic.release_id == "late-2"


def test_a_lease_that_runs_out_and_a_plane_that_starts_anew_decide_nothing(tmp_path: Path) -> None:
    """The words are read by `is_nobodys_decision`."""
    assert is_nobodys_decision(None)
    plane = serving_plane(tmp_path)
    plane.controller.begin("r1", lease_seconds=10)
    plane.clock.seconds += 11
    plane.controller.enforce_lease()
    assert is_nobodys_decision(plane.controller.observe().last_restore_reason)
    source = (Path(__file__).parents[2] / "src" / "interlock" / "plane" / "supervisor.py").read_text()
    assert 'reason="interlock up is stopping"' in source
    assert is_nobodys_decision("interlock up is stopping")
    assert not any(is_nobodys_decision(reason) for reason in ("a person", "divergence", "the fuse has blown: 60 % errors", ""))


def test_the_plane_refuses_a_token_that_a_newer_release_overtook_and_begins_above_what_it_is_told(tmp_path: Path) -> None:
    controller = serving_plane(tmp_path).controller
    stale = controller.begin("r1", lease_seconds=10)
    controller.restore_incumbent(reason="its own", token=stale)
    assert controller.begin("r2", lease_seconds=10, above=40) == 41
    with pytest.raises(ConcurrencyError, match=r"token 1 is stale.*token 41"):
        controller.restore_incumbent(reason="late", token=stale)
    assert controller.release_id == "r2"
    controller.restore_incumbent(reason="a person")
    assert controller.release_id is None


def test_this_very_process_is_alive_and_no_other_is_taken_for_it() -> None:
    mark = this_process()
    assert is_alive(mark) is True
    assert is_alive(type(mark)(mark.host, mark.boot, mark.pid, "1")) is False
    assert is_alive(type(mark)(mark.host, "another boot", mark.pid, mark.started)) is False
    assert is_alive(type(mark)(mark.host, mark.boot, 2**22 + 1, mark.started)) is False
    assert is_alive(type(mark)("another machine", mark.boot, mark.pid, mark.started)) is None
    assert mark.namespace.startswith("pid:[")
    assert is_alive(replace(mark, namespace="pid:[1]", pid=2**22 + 1)) is None, "in another container it has another number"
    assert is_alive(replace(mark, namespace="")) is True, "of an older version"
    assert is_alive(replace(mark, started="")) is None, "it could not be read when it was written down"


def test_a_machine_without_a_free_descriptor_calls_nobody_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    mark, read_text = this_process(), Path.read_text

    def too_many(path: Path, *arguments: Any, **named: Any) -> str:
        if path.name == "stat":
            raise OSError(errno.EMFILE, "Too many open files")
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", too_many)
    assert is_alive(mark) is None
    assert is_running("any", os.getpid()) is None
    monkeypatch.setattr(Path, "readlink", lambda path: read_text(path / "gone"))
    assert is_alive(mark) is None, "its numbers may count in something else"


def test_only_a_process_that_prefect_started_for_the_run_is_taken_for_it() -> None:
    words, pipe = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "prefect"], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, env={"PREFECT__FLOW_RUN_ID": "run-1"}) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it is itself by now
        assert [is_running(run_id, child.pid) for run_id in ("run-1", "run-2", "run")] == [True, False, False]
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_running("run-1", child.pid) is False, "a zombie runs nothing"
    assert is_running("run-1", child.pid) is False
    assert is_running("run-1", os.getpid()) is False


@pytest.mark.parametrize(
    ("tag", "token"), [("7", 7), ("-5", 0), ("1e9", 0), ("42.0", 0), ("", 0), ("x", 0), ("٣", 0), ("9" * 4400, 0), ("1000000000", 10**9)]
)
def test_whatever_a_person_writes_as_the_token_stops_no_rollback(monkeypatch: pytest.MonkeyPatch, tag: str, token: int) -> None:
    registry = MlflowRegistry("http://nowhere")
    monkeypatch.setattr(registry, "_model", lambda name: {"tags": [{"key": TOKEN_TAG, "value": tag}]})
    assert registry.read_token("late") == token
    if token > 9:
        with pytest.raises(ConcurrencyError, match=f"delete the tag {TOKEN_TAG} of the registered model late"):
            registry.set_stage("late", "1", "Production", token=9)


JUMPS = pytest.mark.parametrize("seconds", [600.0, -600.0])


class JumpingClock(FakeClock):
    """Its wall clock jumps whenever somebody asks for it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._jump_seconds = seconds

    def utc_now(self) -> datetime:
        self.jumped_seconds += self._jump_seconds
        return super().utc_now()


@JUMPS
def test_a_jumping_wall_clock_moves_no_lease_and_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    clock = JumpingClock(seconds)
    lease, stamp = Lease(clock, tmp_path / "lease.json"), tmp_path / "lease.json"
    lease.hold("r", token=1, ends_at=lease.end_of(10))
    now: Callable[[], float] = __import__("time").time
    monkeypatch.setattr("time.time", lambda: now() + seconds)
    clock.utc_now()
    assert (lease.is_over, lease.remaining_seconds) == (False, 10)
    found = read_stamp(stamp)
    assert found is not None
    assert 5 < found.ends_at_seconds - seconds_since_boot() <= 10
    clock.seconds += 10
    assert lease.is_over


@JUMPS
def test_a_jumping_wall_clock_breaks_no_evidence(tmp_path: Path, seconds: float) -> None:
    evidence = EvidenceFiles(tmp_path, JumpingClock(seconds))
    for number in range(3):
        evidence.append("r", "tick", {"number": number})
    assert [(record["seq"], record["number"]) for record in evidence.read("r")] == [(0, 0), (1, 1), (2, 2)]


def test_a_release_id_is_no_order_and_two_of_one_moment_are_two_releases_for_the_plane() -> None:
    """A wall clock that is put back may name two releases alike but for the microsecond; the token tells them apart."""
    world = World()
    first = open_session(world.services(), read_test_profile(), model_name="late", version="2").release
    world.traffic.end(token=first.token)
    world.clock.jumped_seconds = -timedelta(minutes=10).total_seconds()
    second = open_session(world.services(), read_test_profile(), model_name="late", version="2").release
    assert second.release_id < first.release_id
    assert second.token > first.token
    assert world.clock.utc_now() < datetime(2026, 1, 1, 1, tzinfo=UTC)
