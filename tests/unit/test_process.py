"""Child processes: stopped with everything they started, also what ignores SIGTERM and what outlived its parent."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from interlock.errors import StateError
from interlock.plane import process as process_module
from interlock.plane.process import ManagedProcess, choose_port, family

PARENT = """
import subprocess, sys, time, pathlib
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
{then}
"""
SLEEPER = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ManagedProcess]]:
    started: list[ManagedProcess] = []

    def _start(*arguments: str) -> ManagedProcess:
        process = ManagedProcess("child", [sys.executable, "-c", *arguments], log_directory=tmp_path)
        process.start()
        started.append(process)
        return process

    yield _start
    for process in started:
        process.stop(grace_seconds=0.1)


def grandchild(noted: Path) -> psutil.Process:
    eventually(lambda: noted.exists() and noted.read_text().isdecimal())
    return psutil.Process(int(noted.read_text()))


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_stop_ends_what_the_child_started(start: Callable[..., ManagedProcess], tmp_path: Path) -> None:
    child = start(PARENT.format(then="time.sleep(600)"), str(tmp_path / "pid"), SLEEPER)
    below = grandchild(tmp_path / "pid")
    assert child.peak_resident_mib() >= child.resident_mib() > 0
    assert len(family(child.pid)) == 2
    child.stop(grace_seconds=5)
    child.stop(grace_seconds=5)
    assert not child.is_running
    assert has_ended(below)


def test_the_peak_remembers_what_was_given_back(start: Callable[..., ManagedProcess], tmp_path: Path) -> None:
    child = start(
        "import pathlib, sys, time\nheld = bytearray(64 * 2**20)\ndel held\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(600)",
        str(tmp_path / "given back"),
    )
    eventually(lambda: (tmp_path / "given back").exists())
    assert child.peak_resident_mib() - child.resident_mib() > 50


@pytest.mark.parametrize(
    "ending", [pytest.param("sys.exit(0)", id="it ended"), pytest.param("os.kill(os.getpid(), 9)", id="it was killed")]
)
def test_stop_ends_what_a_child_left_behind(start: Callable[..., ManagedProcess], tmp_path: Path, ending: str) -> None:
    """`kill -9` of the MLflow server leaves its worker, which holds the port."""
    child = start(PARENT.format(then=f"import os; {ending}"), str(tmp_path / "pid"), SLEEPER)
    below = grandchild(tmp_path / "pid")
    eventually(lambda: not child.is_running)
    assert not has_ended(below)
    child.stop(grace_seconds=5)
    assert has_ended(below)


def test_a_restart_ends_what_the_dead_child_left_behind(start: Callable[..., ManagedProcess], tmp_path: Path) -> None:
    child = start(PARENT.format(then="time.sleep(600)"), str(tmp_path / "pid"), SLEEPER)
    below = grandchild(tmp_path / "pid")
    (tmp_path / "pid").unlink()
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: not child.is_running)
    assert child.restart_if_dead()
    assert has_ended(below)
    assert child.is_running
    grandchild(tmp_path / "pid")


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(start: Callable[..., ManagedProcess]) -> None:
    child = start(DEAF)
    eventually(lambda: child.last_log_line() == "deaf")
    child.stop(grace_seconds=0.2)
    assert child.exit_code is not None
    assert not child.is_running


def test_a_child_that_was_stopped_by_a_signal_can_be_stopped(start: Callable[..., ManagedProcess]) -> None:
    child = start(SLEEPER)
    os.kill(child.pid, signal.SIGSTOP)
    child.stop(grace_seconds=5)
    assert not child.is_running


def test_a_dead_child_is_restarted_with_growing_pauses(start: Callable[..., ManagedProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    child = start("pass")
    now = [time.monotonic() + 1000]
    monkeypatch.setattr(process_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pauses: list[float] = []
    for _ in range(7):
        child._child.wait()  # type: ignore[union-attr]
        last = now[0]
        while not child.restart_if_dead():
            now[0] += 0.25
        pauses.append(now[0] - last)
    assert pauses == [0, 1, 2, 4, 8, 16, 30]
    assert child.restart_count == 7


def test_what_runs_or_was_never_started_is_not_restarted(start: Callable[..., ManagedProcess], tmp_path: Path) -> None:
    assert not start(SLEEPER).restart_if_dead()
    never = ManagedProcess("never", ["true"], log_directory=tmp_path)
    assert not never.restart_if_dead()
    assert (never.pid, never.exit_code, never.is_running, never.resident_mib(), never.peak_resident_mib()) == (0, None, False, 0.0, 0.0)
    never.stop(grace_seconds=1)


def test_a_program_or_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"child cannot be started .*no-such-program"):
        ManagedProcess("child", ["no-such-program"], log_directory=tmp_path).start()
    with pytest.raises(StateError, match="child cannot be started"):
        ManagedProcess("child", ["true"], log_directory=tmp_path / "gone").start()


def test_the_last_words_are_the_last_line_that_says_something(start: Callable[..., ManagedProcess]) -> None:
    child = start("import sys; print('first'); print('ModelError: no file'); print('  \\n\\n'); sys.exit(3)")
    eventually(lambda: child.exit_code is not None)
    assert (child.exit_code, child.last_log_line()) == (3, "ModelError: no file")


def test_a_port_that_is_taken_is_refused_and_zero_is_any_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StateError, match=f"port {port} for page is in use"):
            choose_port(port, name="page")
    assert choose_port(port, name="page") == port
    assert choose_port(0, name="page") > 0
    for nonsense in (-1, 70_000):
        with pytest.raises(StateError, match="not allowed"):
            choose_port(nonsense, name="page")
