"""What the supervisor is made of: who speaks for its threads, and how the next one finds what a killed one left behind."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from interlock.plane import announcements, leftovers
from interlock.plane.announcements import Announcements
from interlock.plane.leftovers import ProcessNotes
from interlock.plane.process import ManagedProcess

PARENT = """
import subprocess, sys, time, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.02)


def elsewhere(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


class Terminal(logging.Handler):
    """Remembers what was printed and by which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: list[str] = []
        self.threads: set[threading.Thread] = set()

    def say(self, text: str) -> None:
        self.printed.append(text)
        self.threads.add(threading.current_thread())

    def emit(self, record: logging.LogRecord) -> None:
        self.say(record.getMessage())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    logging.getLogger().addHandler(terminal)
    yield terminal
    logging.getLogger().removeHandler(terminal)


def test_what_threads_say_and_log_is_printed_by_the_main_thread_in_order(terminal: Terminal) -> None:
    announcements = Announcements(terminal.say)
    log = logging.getLogger("interlock.supervisor")
    with announcements.instead_of_logging():
        elsewhere(lambda: announcements.say("one"))
        elsewhere(lambda: log.warning("%s: %s", "two", 2))
        elsewhere(lambda: announcements.say("three"))
        assert terminal.printed == []
        announcements.print_all()
        log.warning("four")
    assert terminal.printed == ["one", "two: 2", "three", "four"]
    assert terminal.threads == {threading.main_thread()}
    elsewhere(lambda: log.warning("five"))
    assert terminal.printed[-1] == "five", "as before, when nobody prints any more"


def test_a_terminal_that_prints_nothing_for_a_while_fills_no_memory(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "LONGEST_QUEUE", 3)
    said = Announcements(terminal.say)
    for number in range(10):
        said.say(str(number))
    said.print_all()
    said.say("later")
    said.print_all()
    assert terminal.printed == ["0", "1", "2", "7 messages were dropped: nothing could be printed for a while", "later"]


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1)], ids=["a closed pipe", "what rich makes of it"])
def test_a_terminal_that_is_gone_ends_nothing(error: BaseException) -> None:
    def say(text: str) -> None:
        raise error

    said = Announcements(say)
    said.say("one")
    said.print_all()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@pytest.fixture
def parent(logs: Path) -> Iterator[ManagedProcess]:
    process = ManagedProcess("parent", [sys.executable, "-c", PARENT, str(logs / "pid")], log_directory=logs)
    process.start()
    yield process
    process.stop(grace_seconds=0.1)


def notes(logs: Path, *pids: int) -> ProcessNotes:
    return ProcessNotes(logs.parent / "processes.json", log_directory=logs, pids=lambda: pids)


def child_of(logs: Path) -> psutil.Process:
    eventually(lambda: (logs / "pid").exists() and (logs / "pid").read_text())
    return psutil.Process(int((logs / "pid").read_text()))


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_everything_in_a_noted_session_is_ended(logs: Path, parent: ManagedProcess) -> None:
    child = child_of(logs)
    notes(logs, parent.pid).note()
    notes(logs).stop_leftovers(grace_seconds=5)
    assert has_ended(child)
    assert not parent.is_running


def test_what_outlived_the_noted_process_is_ended_too(logs: Path, parent: ManagedProcess) -> None:
    """The supervisor and the launcher of MLflow were killed; its worker still has the port and the database."""
    child = child_of(logs)
    noted = notes(logs, parent.pid)
    noted.note()
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not parent.is_running)
    assert not has_ended(child)
    notes(logs).stop_leftovers(grace_seconds=5)
    assert has_ended(child)


def test_a_process_that_ended_before_the_next_note_stays_noted(logs: Path, parent: ManagedProcess) -> None:
    child = child_of(logs)
    pids = [parent.pid]
    noted = ProcessNotes(logs.parent / "processes.json", log_directory=logs, pids=lambda: pids)
    noted.note()
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not parent.is_running)
    pids.append(os.getpid())
    noted.note()
    assert child in notes(logs).leftovers()


def test_strangers_are_left_alone(logs: Path, parent: ManagedProcess) -> None:
    child = child_of(logs)
    file = logs.parent / "processes.json"
    file.write_text(json.dumps([{"pid": parent.pid, "created_at": psutil.Process(parent.pid).create_time() - 60}]))
    assert notes(logs).leftovers() == [], "the number was given to somebody else"
    file.write_text(json.dumps([{"pid": parent.pid, "created_at": 0.0}]))
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not parent.is_running)
    other = ProcessNotes(file, log_directory=logs / "of another stack", pids=list)
    assert other.leftovers() == [], "a session without a leader that another supervisor started"
    assert notes(logs).leftovers() == [child]


@pytest.mark.parametrize("text", ["", "{", "{}", "3", "null", '[{"pid": "x"}]', "[1]", '[{"pid": 1}]'])
def test_notes_that_cannot_be_read_are_nobodys(logs: Path, text: str) -> None:
    (logs.parent / "processes.json").write_text(text)
    assert notes(logs).leftovers() == []


def test_a_process_is_noted_by_when_it_was_started_not_by_who_has_its_number_later(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = [os.getpid()]
    noted = ProcessNotes(logs.parent / "processes.json", log_directory=logs, pids=lambda: pids)
    noted.note()
    monkeypatch.setattr(leftovers, "_created_at", lambda pid: 5.0)
    pids.append(os.getppid())
    noted.note()
    created = {entry["pid"]: entry["created_at"] for entry in json.loads((logs.parent / "processes.json").read_text())}
    assert created == {os.getpid(): pytest.approx(psutil.Process().create_time()), os.getppid(): 5.0}
