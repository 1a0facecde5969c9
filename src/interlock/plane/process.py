"""
One process of the stack: started in its own session, or taken over from a supervisor that was killed; logged to a file, stopped with
everything it started.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from interlock.errors import StateError
from interlock.plane.sessions import peak_resident_bytes

ORPHAN_GRACE_SECONDS = 1.0
STEADY_SECONDS = 60.0  # whoever ran for so long begins anew with its restarts: the next one is not delayed
UNKNOWN_EXIT_CODE = -1  # of a process that was not our child
SUPERVISED = "INTERLOCK_SUPERVISED_LOGS"  # in the environment of a child and of all it starts: the log directory of its supervisor


@dataclass(frozen=True, slots=True)
class Note:
    """A session leader as it is written down: which process it is, and by which command and port it may be taken over."""

    name: str
    pid: int
    started_ticks: int
    command: tuple[str, ...]
    port: int = 0

    @property
    def is_running(self) -> bool:
        """Whether this very process is alive; its id may be somebody else's by now."""
        return start_ticks(self.pid) == self.started_ticks and not is_zombie(self.pid)


class _Child(Protocol):
    """What is used of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class _TakenOver:
    """A process that a former supervisor started. Nobody here is its parent, so its exit code cannot be known."""

    def __init__(self, note: Note) -> None:
        self.pid = note.pid
        self._note = note

    def poll(self) -> int | None:
        return None if self._note.is_running else UNKNOWN_EXIT_CODE

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or 0.0)
        while self.poll() is None:
            if timeout is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(self._note.command), timeout)
            time.sleep(0.02)
        return UNKNOWN_EXIT_CODE


class ManagedProcess:
    """
    A command that should be running. `restart_if_dead` starts it again with growing pauses.

    The child leads its own session, so a Ctrl-C in the terminal reaches only the supervisor, which then stops the children in order.
    `port` is where it listens, for whoever takes it over; 0 when that stands elsewhere.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, log_directory: Path, environment: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        self.name = name
        self.command = list(command)
        self.port = port
        self.restart_count = 0
        self._environment = {**os.environ, **(environment or {}), SUPERVISED: str(log_directory)}
        self._log_path = log_directory / f"{name}.log"
        self._child: _Child | None = None
        self._started_ticks = 0
        self._started_at = 0.0
        self._attempt_count = 0
        self._not_before = 0.0

    @property
    def pid(self) -> int:
        """Process id, 0 when it was never started."""
        return self._child.pid if self._child else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs or was never started."""
        return self._child.poll() if self._child else None

    @property
    def is_running(self) -> bool:
        """Started and not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def note(self) -> Note | None:
        """What to write down of it; None when it was never started. One that has ended keeps its note: what it started may still run."""
        return Note(self.name, self.pid, self._started_ticks, tuple(self.command), self.port) if self._child else None

    def take_over(self, note: Note) -> None:
        """Supervise the process of this note from now on, instead of starting one."""
        self._child, self._started_ticks, self._started_at = _TakenOver(note), note.started_ticks, time.monotonic()

    def start(self) -> None:
        """Start the command. Raises StateError when its program or log cannot be opened."""
        try:
            with self._log_path.open("ab") as log:
                self._child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise StateError(f"{self.name} cannot be started ({error.strerror}: {error.filename})") from error
        self._started_ticks, self._started_at = start_ticks(self.pid), time.monotonic()

    def restart_if_dead(self, *, is_allowed: Callable[[], bool] = lambda: True) -> bool:
        """
        Start it again when it ended and its pause (1 s, doubled up to 30 s) is over; True when that was done now.

        `is_allowed` is asked only when a restart is due; no is an attempt too, and the next one comes after a longer pause.
        """
        if self.is_running and time.monotonic() - self._started_at > STEADY_SECONDS:
            self._attempt_count = 0
        if self.is_running or self._child is None or time.monotonic() < self._not_before:
            return False
        self._not_before = time.monotonic() + min(30.0, 2.0 ** min(self._attempt_count, 5))
        self._attempt_count += 1
        if not is_allowed():
            return False
        stop_processes(self._members(), grace_seconds=ORPHAN_GRACE_SECONDS)  # what it started may still hold its port
        self.restart_count += 1
        self.start()
        return True

    def resident_mib(self) -> float:
        """Resident memory of the process and everything below it; 0.0 when it is gone."""
        return sum(_resident_bytes(process) for process in family(self.pid)) / 2**20 if self.is_running else 0.0

    def peak_resident_mib(self) -> float:
        """
        The most that the process and everything below it have held, each at its own peak; 0.0 when it is gone.

        Peaks at different times are added up, and a child that has ended is no longer counted: one process, as our servers are, is exact.
        """
        return sum(peak_resident_bytes(process.pid) for process in family(self.pid)) / 2**20 if self.is_running else 0.0

    def last_log_line(self) -> str:
        """The last line it wrote that is not empty, for an error message."""
        with contextlib.suppress(OSError):
            lines = [line.strip() for line in self._log_path.read_text(errors="replace").splitlines()[-50:]]
            return next((line for line in reversed(lines) if line), "")
        return ""

    def stop(self, *, grace_seconds: float) -> None:
        """End it and everything it started: asked with SIGTERM, then, after the grace, killed. Idempotent."""
        if self._child is None:
            return
        stop_processes(self._members(), grace_seconds=grace_seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)

    def kill(self) -> None:
        """End it and everything it started at once, unasked: for one that hangs. Idempotent."""
        stop_processes(self._members(), grace_seconds=0.0)

    def _members(self) -> list[psutil.Process]:
        """The child and what it started, also what was left behind when the child itself has ended."""
        if self._child is None or (start_ticks(self.pid) not in (0, self._started_ticks)):
            return []  # never started, or its id belongs to a stranger by now
        return with_session(self.pid)


def supervised(log_directory: Path) -> list[psutil.Process]:
    """Everything that a supervisor with this log directory has started, or its children; not this process, nor what it has started."""
    own = {process.pid for process in family(os.getpid())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(SUPERVISED) == str(log_directory) and not is_zombie(process.pid):
                found.append(process)
    return found


def orphans(session_id: int, *, log_directory: Path) -> list[psutil.Process]:
    """
    What is left of a session whose leader has ended, if a supervisor with this log directory started it.

    After a reboot, or in a new container, the same number may be a stranger's session: the environment tells.
    """
    found = []
    for process in _session(session_id):
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(SUPERVISED) == str(log_directory):
                found.append(process)
    return found


def with_session(pid: int) -> list[psutil.Process]:
    """A running session leader, all its descendants, and what else is left in its session; descendants first."""
    members = family(pid)
    return [*(process for process in _session(pid) if process not in members), *members]


def _session(leader_pid: int) -> list[psutil.Process]:
    """The processes of one session. The kernel gives its id to nobody else while one of them lives."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == leader_pid:
                members.append(process)
    return members


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, descendants first; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [*reversed(process.children(recursive=True)), process]
    except (psutil.NoSuchProcess, ValueError):
        return []


def stop_processes(members: Sequence[psutil.Process], *, grace_seconds: float) -> None:
    """SIGTERM, and SIGKILL to those that remain after the grace; with a grace of 0 nobody is asked."""
    if grace_seconds > 0:
        for process in reversed(members):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
                process.terminate()
    for process in (alive := _outlast(members, grace_seconds)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _outlast(alive, 5.0)


def _outlast(members: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after so many seconds. One that nobody reaps has ended: its parent may be a process 1 that does not care."""
    deadline = time.monotonic() + seconds
    alive = [process for process in members if not is_zombie(process.pid)]
    while alive and time.monotonic() < deadline:
        _, left = psutil.wait_procs(alive, timeout=0.05)
        alive = [process for process in left if not is_zombie(process.pid)]
    return alive


def start_ticks(pid: int) -> int:
    """
    When a process was started, in clock ticks since boot, also of one that has ended and was not reaped; 0 when it is gone.

    The system's clock is not asked: it may be set, and every process would be a stranger.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def is_zombie(pid: int) -> bool:
    """Whether it has ended and nobody has asked for its exit code."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return False


def choose_port(asked: int, *, name: str) -> int:
    """`asked` if it is free, or any free loopback port for 0. Raises StateError when it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", asked))
        except (OSError, OverflowError) as error:
            raise StateError(f"port {asked} for {name} is in use or not allowed: choose another, or 0 for any free port") from error
        return int(probe.getsockname()[1])


def _resident_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return int(process.memory_info().rss)
    return 0
