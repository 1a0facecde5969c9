"""What the supervisor is made of: who speaks for its threads, and how the next one finds what a killed one left behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from interlock.plane import announcements
from interlock.plane import fleet as fleet_module
from interlock.plane.announcements import Announcements
from interlock.plane.fleet import Fleet, Member
from interlock.plane.leftovers import Leftovers, ProcessNotes
from interlock.plane.look import CannotLook
from interlock.plane.process import SUPERVISED, ManagedProcess, supervised
from interlock.plane.stamp import boot_id

PARENT = """
import subprocess, sys, time, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


STARTER = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"


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


def notes(logs: Path, *processes: ManagedProcess) -> ProcessNotes:
    return ProcessNotes(logs.parent / "processes.json", read=lambda: [note for process in processes if (note := process.note)])


def leftovers_of(logs: Path, *, supervised: Path | None = None) -> Leftovers:
    return Leftovers(logs.parent / "processes.json", log_directory=supervised or logs)


def child_of(logs: Path) -> psutil.Process:
    eventually(lambda: (logs / "pid").exists() and (logs / "pid").read_text())
    return psutil.Process(int((logs / "pid").read_text()))


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_everything_in_a_noted_session_is_ended(logs: Path, parent: ManagedProcess) -> None:
    child = child_of(logs)
    notes(logs, parent).note()
    leftovers_of(logs).stop(grace_seconds=5)
    assert has_ended(child)
    assert not parent.is_running


def test_what_outlived_the_noted_process_is_ended_too(logs: Path, parent: ManagedProcess) -> None:
    """The supervisor and the launcher of MLflow were killed; its worker still has the port and the database."""
    child = child_of(logs)
    noted = notes(logs, parent)
    noted.note()
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not parent.is_running)
    noted.note()
    assert not has_ended(child)
    leftovers_of(logs).stop(grace_seconds=5)
    assert has_ended(child)


def test_strangers_are_left_alone(logs: Path, parent: ManagedProcess) -> None:
    child, note = child_of(logs), parent.note
    assert note is not None

    entry = {**asdict(note), "started_ticks": note.started_ticks - 60}
    head = {"version": "1", "boot": boot_id(), "ports": {}}
    file = logs.parent / "processes.json"
    file.write_text(json.dumps({**head, "processes": [entry]}))
    leftovers_of(logs).stop(grace_seconds=5)
    assert parent.is_running, "the number was given to somebody else"
    file.write_text(json.dumps({**head, "boot": "another", "processes": [asdict(note)]}))
    leftovers_of(logs).stop(grace_seconds=5)
    assert parent.is_running, "of another boot: the same ticks mean nothing"
    file.write_text(json.dumps({**head, "processes": [asdict(note)]}))
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not parent.is_running)
    leftovers_of(logs, supervised=logs / "of another stack").stop(grace_seconds=5)
    assert not has_ended(child), "a session without a leader that another supervisor started"
    leftovers_of(logs).stop(grace_seconds=5)
    assert has_ended(child)


UNREADABLE = [
    "",
    "{",
    "{}",
    "3",
    "null",
    "[]",
    '{"version": "1", "ports": {}, "processes": [{"pid": 1}]}',
    '{"version": 1, "ports": [], "processes": []}',
]


@pytest.mark.parametrize("text", UNREADABLE)
def test_notes_that_cannot_be_read_are_nobodys(logs: Path, text: str) -> None:
    (logs.parent / "processes.json").write_text(text)
    left = leftovers_of(logs)
    assert (left.ports, left.find("envoy")) == ({}, None)
    left.stop(grace_seconds=0.1)


def as_started(process: ManagedProcess, logs: Path, *, command: list[str] | None = None, name: str = "") -> ManagedProcess:
    """What the next supervisor would start."""
    return ManagedProcess(name or process.name, command or process.command, log_directory=logs)


def test_what_runs_on_is_taken_over_with_its_ports_and_is_not_ended(logs: Path, parent: ManagedProcess) -> None:
    notes(logs, parent).note_ports({"live": 8080})
    left, again = leftovers_of(logs), as_started(parent, logs)
    assert left.ports == {"live": 8080}
    assert left.take_over(again)
    left.stop(grace_seconds=0.1)
    assert (again.pid, again.is_running, again.note) == (parent.pid, True, parent.note)
    again.stop(grace_seconds=5)
    assert not again.is_running
    assert again.exit_code is not None
    assert again.restart_if_dead()
    assert again.pid != parent.pid
    again.stop(grace_seconds=0.1)


@pytest.mark.parametrize(
    "changes",
    [pytest.param({"command": ["other"]}, id="another command"), pytest.param({"name": "other"}, id="another name")],
)
def test_what_was_started_otherwise_is_ended_instead(logs: Path, parent: ManagedProcess, changes: dict[str, Any]) -> None:
    notes(logs, parent).note()
    left = leftovers_of(logs)
    assert not left.take_over(as_started(parent, logs, **changes))
    left.stop(grace_seconds=5)
    assert not parent.is_running


def test_another_version_takes_over_what_serves_users_and_nothing_else(logs: Path) -> None:
    kept = [
        ManagedProcess(name, [sys.executable, "-c", "import time; time.sleep(600)"], log_directory=logs)
        for name in ("envoy", "model-x-1", "mlflow")
    ]
    try:
        for process in kept:
            process.start()
        notes(logs, *kept).note()
        file = logs.parent / "processes.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "version": "0.0.0"}))
        left = leftovers_of(logs)
        assert [name for name in ("envoy", "model-x-1", "mlflow") if left.find(name)] == ["envoy", "model-x-1"]
        left.stop(grace_seconds=0.1, but=lambda name: name.startswith("model-"))
        assert [process.name for process in kept if process.is_running] == ["model-x-1"]
    finally:
        for process in kept:
            process.stop(grace_seconds=0.1)


def test_where_nothing_runs_any_more_the_ports_are_chosen_anew(logs: Path, parent: ManagedProcess) -> None:
    notes(logs, parent).note_ports({"live": 8080})
    parent.stop(grace_seconds=0.1)
    assert leftovers_of(logs).ports == {}


def test_a_clock_that_is_set_makes_nobody_a_stranger(logs: Path, parent: ManagedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's time of creation moves with the system's clock: NTP at boot, a machine that was resumed."""
    child, again = child_of(logs), as_started(parent, logs)
    notes(logs, parent).note()
    created_at = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created_at(self) + 1.0)
    assert leftovers_of(logs).take_over(again)
    assert again.is_running
    again.kill()
    assert has_ended(child)
    assert not again.is_running


def test_who_is_neither_taken_over_nor_ended_stays_noted_for_the_one_after_next(logs: Path, parent: ManagedProcess) -> None:
    """A second kill right after the first: what the first successor had not come to yet must not be forgotten."""
    notes(logs, parent).note()
    left = leftovers_of(logs)
    assert left.pending() == [parent.note]
    ProcessNotes(logs.parent / "processes.json", read=left.pending).note_ports({"live": 1})
    assert leftovers_of(logs).take_over(as_started(parent, logs))
    left.stop(grace_seconds=0.1)
    assert left.pending() == []


def test_what_nobody_had_the_time_to_note_is_ended(logs: Path, parent: ManagedProcess) -> None:
    stray = ManagedProcess("stray", parent.command, log_directory=logs)
    elsewhere = ManagedProcess("elsewhere", [sys.executable, "-c", "import time; time.sleep(600)"], log_directory=logs / "other")
    (logs / "other").mkdir()
    notes(logs, parent).note()
    command = [sys.executable, "-c", STARTER, *stray.command]
    subprocess.run(command, env={**os.environ, SUPERVISED: str(logs)}, check=True)  # its starter has ended: it is nobody's child
    eventually(lambda: len(supervised(logs)) >= 2)
    elsewhere.start()
    try:
        left = leftovers_of(logs)
        assert left.take_over(as_started(parent, logs))
        left.stop_unnoted(grace_seconds=5)
        assert supervised(logs) == []
        assert parent.is_running
        assert elsewhere.is_running
    finally:
        elsewhere.stop(grace_seconds=0.1)


class Answers:
    """Whether a process says something, as the test wants it."""

    def __init__(self) -> None:
        self.says = True

    def __call__(self) -> bool:
        return self.says


@dataclass
class Fleeted:
    fleet: Fleet
    member: Member
    answers: Answers
    said: list[str]

    @property
    def pid(self) -> int:
        return self.member.process.pid


@pytest.fixture
def fleeted(logs: Path) -> Iterator[Fleeted]:
    said: list[str] = []
    process = ManagedProcess("part", [sys.executable, "-c", "import time; time.sleep(600)"], log_directory=logs)
    answers = Answers()
    one = Fleeted(Fleet(say=said.append, on_change=lambda: None), Member(process, answers, silent_limit_seconds=0.0), answers, said)
    one.fleet.launch(one.member)
    yield one
    one.fleet.stop_all(grace_seconds=0.1)


def test_a_part_that_ended_is_started_again(fleeted: Fleeted) -> None:
    before = fleeted.pid
    fleeted.fleet.look(fleeted.member)
    assert fleeted.pid == before
    os.kill(before, signal.SIGKILL)

    def is_new() -> bool:
        fleeted.fleet.look(fleeted.member)
        return fleeted.pid != before

    eventually(is_new)
    assert fleeted.said == ["part had ended and was restarted (restart 1)"]


def test_a_part_that_hangs_is_ended_and_started_again(fleeted: Fleeted) -> None:
    before = fleeted.pid
    fleeted.fleet.look(fleeted.member)
    os.kill(before, signal.SIGSTOP)
    fleeted.answers.says = False
    fleeted.fleet.look(fleeted.member)
    assert psutil.Process(before).is_running(), "one late answer is no hang"
    fleeted.fleet.look(fleeted.member)
    assert "part has not answered for" in fleeted.said[0]
    assert fleeted.pid != before
    assert fleeted.member.process.is_running


def test_a_part_that_has_never_answered_may_still_be_starting_but_not_for_ever(fleeted: Fleeted) -> None:
    fleeted.answers.says = False
    before = fleeted.pid
    for _ in range(5):
        fleeted.fleet.look(fleeted.member)
    assert (fleeted.pid, fleeted.said) == (before, [])
    fleeted.member.start_limit_seconds = 0.0
    fleeted.fleet.look(fleeted.member)
    assert fleeted.pid != before


def test_a_look_that_was_not_possible_says_nothing(fleeted: Fleeted) -> None:
    """A supervisor without file descriptors must not end a healthy Envoy."""
    fleeted.fleet.look(fleeted.member)

    def cannot() -> bool:
        raise CannotLook("too many open files")

    fleeted.member.is_answering = cannot
    before = fleeted.pid
    for _ in range(5):
        fleeted.fleet.look(fleeted.member)
    assert fleeted.pid == before


def test_a_fleet_that_was_stopped_starts_nothing_any_more(fleeted: Fleeted) -> None:
    fleeted.fleet.stop_all(grace_seconds=0.1)
    fleeted.fleet.look(fleeted.member)
    assert not fleeted.member.process.is_running


def test_a_part_that_runs_and_is_silent_is_not_taken_over(fleeted: Fleeted, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "TAKE_OVER_SECONDS", 0.2)
    ProcessNotes(logs.parent / "processes.json", read=fleeted.fleet.notes).note()
    before = fleeted.pid
    next_fleet = Fleet(say=fleeted.said.append, on_change=lambda: None)
    for says in (False, True):
        answers = Answers()
        answers.says = says
        member = Member(as_started(fleeted.member.process, logs), answers)
        assert next_fleet.take_over(member, leftovers_of(logs)) is False, "silent, and so ended: and then there is nobody left"
        assert not fleeted.member.process.is_running
    next_fleet.launch(member)
    assert member.process.is_running
    assert member.process.pid != before
    next_fleet.stop_all(grace_seconds=0.1)
