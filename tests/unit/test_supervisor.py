"""The supervisor with real threads and real child processes that do nothing, over an Envoy and model servers in memory."""

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from interlock.adapters.clock import SystemClock
from interlock.errors import ReleaseError, ServiceUnavailable, StateError
from interlock.model.release import ModelVersion
from interlock.plane import stack
from interlock.plane import supervisor as supervisor_module
from interlock.plane.addresses import UpOptions
from interlock.plane.controller import PlaneController
from interlock.plane.envoy_admin import EnvoySplit
from interlock.plane.leftovers import Leftovers, ProcessNotes
from interlock.plane.process import ManagedProcess, Note
from interlock.plane.stack import Part, Ports
from interlock.plane.state_directory import StateDirectory
from interlock.plane.supervisor import Supervisor
from tests.plane_fakes import LIMITS, FakeAdmin, FakeServers

ONE = ModelVersion("late", "1", "sha256:" + "1" * 64)
TWO = ModelVersion("late", "2", "sha256:" + "2" * 64)
SAFE = EnvoySplit(0, is_mirroring=False, is_quiet=True)
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


class AnsweringPart(Part):
    def is_ready(self) -> bool:
        return True


def idle(name: str) -> Callable[[StateDirectory, Ports], Part]:
    return lambda state, ports, **_: AnsweringPart(name, ManagedProcess(name, SLEEPER, log_directory=state / "logs"), "")


class NotedServers(FakeServers):
    """Takes the arguments of the real ones. None has a process."""

    def __init__(self, **_: object) -> None:
        super().__init__()

    def notes(self) -> list[Note]:
        return []

    def stop_all(self) -> None:
        self.unloaded += [*self.loaded]


@dataclass
class Rig:
    """One `interlock up`; `while_up` runs in a thread of its own and the stack stops after it."""

    root: Path
    said: list[tuple[str, threading.Thread]] = field(default_factory=list)
    lost: list[tuple[str, ModelVersion | None]] = field(default_factory=list)
    started: list[ModelVersion | None] = field(default_factory=list)
    hook_threads: list[str] = field(default_factory=list)
    poll_registry: Callable[[], object] = lambda: None
    fail_hooks: bool = False
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.root / "envoy").mkdir()
        self.admin = FakeAdmin(self.root / "envoy")
        state = StateDirectory(self.root)
        options = UpOptions("late", ("standard",), self.root, self.root)
        self.supervisor = Supervisor(
            state, options, clock=SystemClock(), say=self.say, poll_registry=self.poll, on_lost=self.on_lost, on_start=self.on_start
        )

    def say(self, text: str) -> None:
        self.said.append((text, threading.current_thread()))

    def poll(self) -> None:
        self.poll_registry()

    def on_lost(self, release_id: str, candidate: ModelVersion | None) -> None:
        self._hooked()
        self.lost.append((release_id, candidate))
        if self.fail_hooks:
            raise RuntimeError("on lost")

    def on_start(self, incumbent: ModelVersion | None) -> None:
        self._hooked()
        self.started.append(incumbent)
        if self.fail_hooks:
            raise RuntimeError("on start")

    def _hooked(self) -> None:
        assert StateDirectory(self.root).read_addresses(), "everything is up"
        self.hook_threads.append(threading.current_thread().name)

    def up(self, while_up: Callable[[], object]) -> None:
        def act() -> None:
            try:
                while_up()
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  it is raised again in the test's own thread
                self.errors.append(error)
            finally:
                self.supervisor._stopping.set()

        self.supervisor.run(on_ready=lambda _: threading.Thread(target=act).start())
        assert self.errors == []

    @property
    def controller(self) -> PlaneController:
        assert self.supervisor._controller is not None
        return self.supervisor._controller

    def hold(self, lease_seconds: float) -> int:
        """A release in mid-canary."""
        self.controller.adopt(ONE, server="interlock", thread_count=1)
        token = self.controller.begin("r1", lease_seconds=60)
        self.controller.load_candidate(TWO, server="interlock", thread_count=1, limits=LIMITS, token=token)
        self.controller.set_weight(5000, lease_seconds=lease_seconds, token=token)
        return token


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.02)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    rig = Rig(tmp_path)
    for part in ("envoy", "collector", "mlflow", "prefect"):
        monkeypatch.setattr(stack, f"{part}_part", idle(part))
    monkeypatch.setattr(supervisor_module, "EnvoyAdmin", lambda _: rig.admin)
    monkeypatch.setattr(supervisor_module, "ModelServers", NotedServers)
    monkeypatch.setattr(Supervisor, "_start_worker", lambda *_: None)
    monkeypatch.setattr(supervisor_module, "INTAKE_TICK_SECONDS", 0.05)
    yield rig
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_lost_release_is_told_once_in_a_thread_of_its_own(rig: Rig) -> None:
    def lose() -> None:
        rig.hold(0.3)
        eventually(lambda: rig.lost)
        time.sleep(0.5)

    rig.up(lose)
    assert rig.lost == [("r1", TWO)]
    assert rig.admin.split == SAFE
    assert "the lease of release r1 expired: all traffic is back on the incumbent" in [text for text, _ in rig.said]
    assert "lease" not in rig.hook_threads


def test_the_start_is_told_once_with_the_incumbent_of_the_last_time(rig: Rig, tmp_path: Path) -> None:
    saved = {"incumbent": {"name": "late", "version": "1", "digest": ONE.digest}, "serving": ["interlock", 1], "token": 3, "proved": True}
    (tmp_path / "plane.json").write_text(json.dumps(saved))
    rig.up(lambda: eventually(lambda: rig.started))
    assert rig.started == [ONE]


def test_a_plane_without_an_incumbent_says_so_at_the_start(rig: Rig) -> None:
    rig.up(lambda: eventually(lambda: rig.started))
    assert rig.started == [None]


def test_a_hook_that_fails_is_logged_and_stops_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.fail_hooks = True

    def lose() -> None:
        rig.hold(0.3)
        eventually(lambda: rig.lost)
        rig.controller.begin("r2", lease_seconds=0.3)
        eventually(lambda: len(rig.lost) == 2)

    rig.up(lose)
    logged = [record.message for record in caplog.records]
    assert "on start failed" in logged
    assert "on lost failed" in logged


def test_a_terminal_that_takes_no_output_does_not_hold_up_the_lease(rig: Rig) -> None:
    """Ctrl-S: whoever prints waits, and the lease thread must not be among them."""
    blocked, may_go_on = threading.Event(), threading.Event()

    def say(text: str) -> None:
        rig.said.append((text, threading.current_thread()))
        if "expired" in text:
            blocked.set()
            may_go_on.wait(30)

    rig.supervisor._announcements._say = say

    def lose_twice() -> None:
        rig.hold(0.2)
        assert blocked.wait(30)
        rig.controller.begin("r2", lease_seconds=0.2)
        try:
            eventually(lambda: [release_id for release_id, _ in rig.lost] == ["r1", "r2"])
        finally:
            may_go_on.set()

    rig.up(lose_twice)
    assert {thread for _, thread in rig.said} == {threading.main_thread()}


def test_what_fails_in_a_thread_is_logged_by_the_main_thread(rig: Rig) -> None:
    logged_by: set[threading.Thread] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "registry is down" in record.getMessage():
                logged_by.add(threading.current_thread())

    def fail() -> None:
        raise ServiceUnavailable("the registry is down")

    rig.poll_registry = fail
    handler = Handler()
    logging.getLogger().addHandler(handler)
    try:
        rig.up(lambda: eventually(lambda: logged_by))
    finally:
        logging.getLogger().removeHandler(handler)
    assert logged_by == {threading.main_thread()}


def test_a_release_under_way_loses_its_traffic_before_anything_is_stopped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[EnvoySplit] = []
    stop = ManagedProcess.stop

    def noted_stop(process: ManagedProcess, *, grace_seconds: float) -> None:
        splits.append(rig.admin.split)
        stop(process, grace_seconds=grace_seconds)

    monkeypatch.setattr(ManagedProcess, "stop", noted_stop)
    rig.up(lambda: rig.hold(60))
    assert splits == [SAFE] * 5
    assert rig.controller.observe().last_restore_reason == "interlock up is stopping"
    assert rig.lost == []


def test_an_envoy_that_is_gone_does_not_keep_the_rest_from_stopping(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def lose_envoy() -> None:
        rig.hold(60)
        rig.admin.down = True

    rig.up(lose_envoy)
    assert "could not be asked for before stopping" in caplog.text
    assert not any(note.is_running for note in rig.supervisor._fleet.notes())


def test_an_incumbent_that_is_not_started_again_is_told_once(rig: Rig) -> None:
    def fail() -> None:
        rig.controller.adopt(ONE, server="interlock", thread_count=1)
        assert isinstance(rig.supervisor._servers, FakeServers)
        rig.supervisor._servers.died[ONE.label] = "late/1 is not started again: other files"
        time.sleep(1.5)

    rig.up(fail)
    assert [text for text, _ in rig.said].count("late/1 is not started again: other files") == 1


def test_processes_are_noted_while_they_run_and_forgotten_when_they_were_stopped(rig: Rig, tmp_path: Path) -> None:
    noted: list[int] = []

    def look() -> None:
        noted.extend(entry["pid"] for entry in json.loads((tmp_path / "processes.json").read_text())["processes"])

    rig.up(look)
    assert sorted(noted) == sorted(note.pid for note in rig.supervisor._fleet.notes())
    assert not (tmp_path / "processes.json").exists()
    assert not (tmp_path / "stack.json").exists()


@pytest.fixture
def left_running(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedProcess]:
    """The Envoy of a supervisor that was killed, as its notes say; it answers."""
    (tmp_path / "logs").mkdir()
    envoy = ManagedProcess("envoy", SLEEPER, log_directory=tmp_path / "logs")
    envoy.start()
    ProcessNotes(tmp_path / "processes.json", read=lambda: [note] if (note := envoy.note) else []).note()
    monkeypatch.setattr(stack, "EnvoyLook", lambda _: lambda: True)
    yield envoy
    envoy.stop(grace_seconds=0.1)


def test_what_a_killed_supervisor_left_is_taken_over_and_stopped_with_the_rest(rig: Rig, left_running: ManagedProcess) -> None:
    rig.up(lambda: None)
    assert any("was taken over" in text for text, _ in rig.said)
    assert not left_running.is_running


@pytest.mark.parametrize("trouble", ["Envoy's admin is silent", "a port is taken"])
def test_a_start_that_fails_leaves_what_serves_users_running_and_noted(
    rig: Rig, left_running: ManagedProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "a port is taken":
        monkeypatch.setattr(supervisor_module, "choose_ports", lambda *_: (_ for _ in ()).throw(StateError("port 80 is in use")))
    else:
        rig.admin.down = True
    with pytest.raises(ReleaseError):
        rig.up(lambda: None)
    assert left_running.is_running
    left = Leftovers(tmp_path / "processes.json", log_directory=tmp_path / "logs")
    assert left.find("envoy") == left_running.note


def test_a_signal_during_the_start_stops_also_what_was_left(rig: Rig, left_running: ManagedProcess) -> None:
    rig.supervisor._stopping.set()
    rig.supervisor.run(on_ready=lambda _: None)
    assert not left_running.is_running
