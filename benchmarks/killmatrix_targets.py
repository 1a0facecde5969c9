"""The processes of one stack by what they are: found, hit, counted. Only those that carry the stack's own mark are ever touched."""

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from interlock.plane.endpoints import endpoints_path
from interlock.plane.envoy_settings import INCUMBENT
from interlock.plane.process import SUPERVISED
from interlock.plane.state_directory import StateDirectory

SURE_SECONDS = 1.0  # a process on a busy machine stops a little after its signal
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"

# By words of the command line; the server kinds are several processes, which live and die together.
_ROLES: dict[str, tuple[str, ...]] = {
    "flow run": ("prefect.engine",),
    "worker": ("prefect", "worker", "start"),
    "prefect": ("prefect", "server", "start"),
    "mlflow": ("mlflow", "server"),
    "fuse": ("interlock.plane.fuse",),
    "collector": ("interlock.serving.collector",),
    "model server": ("interlock.serving.model_server",),
}
_WHOLE_SESSION = {"prefect", "mlflow"}


def find(state: StateDirectory, target: str, *, version: str = "", run_id: str = "") -> list[psutil.Process]:
    """
    The processes of this target now; empty when there are none.

    version: whose model server, for candidate and incumbent. run_id: whose flow run.
    """
    if target == "supervisor":
        return _alive(state.read_addresses().supervisor_pid)
    leaders = list(_role(state.root, "model server" if target in ("candidate", "incumbent") else target))
    if target == "candidate":
        return [process for process in leaders if _serves(process, version)][:1]
    if target == "incumbent":  # it has a spare: the one that is meant has the traffic
        return [process for process in leaders if _serves(process, version) and _word_after(process, "--port") == _first_port(state)]
    if target == "flow run":
        return [process for process in leaders if process.environ().get(RUN_VARIABLE) in (None, run_id)][-1:]
    return [member for leader in leaders for member in _members(leader)] if target in _WHOLE_SESSION else leaders


def count_roles(state: StateDirectory) -> Counter[str]:
    """How many processes of each role run, stopped ones not counted; model servers by version, as `model server 2`."""
    counts: Counter[str] = Counter()
    for process in _marked(state.root):
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) or os.getsid(process.pid) != process.pid:
                continue
            role = _role_of(process)
            counts[f"{role} {_version_of(process)}" if role == "model server" else role] += 1
    counts.pop("", None)
    return counts


def strike(victims: Sequence[psutil.Process], name: str) -> None:
    """The signal, to all of them."""
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.Signals[name])


class Thaw:
    """Continues what was stopped, after a pause, if it still exists: like a machine that was frozen."""

    def __init__(self, victims: Sequence[psutil.Process], pause_seconds: float) -> None:
        self._victims = victims
        self._due_at = time.monotonic() + pause_seconds
        self._sure_at = time.monotonic() + SURE_SECONDS
        self._thread = threading.Thread(target=self._run, name="thaw", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Nothing is stopped any more: all were continued, or have been replaced."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (now := time.monotonic()) < self._due_at and (now < self._sure_at or any(_is_stopped(victim) for victim in self._victims)):
            time.sleep(0.05)
        strike([victim for victim in self._victims if _is_stopped(victim)], "SIGCONT")


def _is_stopped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() == psutil.STATUS_STOPPED
    return False


def _alive(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid)]
    return []


def _role(root: Path, role: str) -> Iterator[psutil.Process]:
    for process in _marked(root):
        with contextlib.suppress(psutil.Error):
            if _role_of(process) == role:
                yield process


def _role_of(process: psutil.Process) -> str:
    words = process.cmdline()
    if words and Path(words[0]).name == "envoy":
        return "envoy"
    return next((role for role, marks in _ROLES.items() if _follow(words, marks)), "")


def _follow(words: Sequence[str], marks: Sequence[str]) -> bool:
    start = words.index(marks[0]) if marks[0] in words else len(words)
    return tuple(words[start : start + len(marks)]) == tuple(marks)


def _marked(root: Path) -> list[psutil.Process]:
    """Every process that a supervisor of this directory has started, oldest first."""
    return sorted(
        _where(lambda process: process.environ().get(SUPERVISED) == str(root / "logs")), key=lambda process: process.create_time()
    )


def _where(holds: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if holds(process):
                found.append(process)
    return found


def _members(leader: psutil.Process) -> list[psutil.Process]:
    return _where(lambda process: os.getsid(process.pid) == leader.pid)


def _serves(process: psutil.Process, version: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return _version_of(process) == version
    return False


def _version_of(process: psutil.Process) -> str:
    return _word_after(process, "--version")


def _word_after(process: psutil.Process, option: str) -> str:
    words = process.cmdline()
    return words[words.index(option) + 1] if option in words else ""


def _first_port(state: StateDirectory) -> str:
    """Where Envoy sends the incumbent's requests, as long as somebody answers there."""
    (assignment,) = json.loads(endpoints_path(state / "envoy", INCUMBENT).read_text())["resources"]
    first = min(assignment["endpoints"], key=lambda locality: int(locality["priority"]))
    return str(first["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"])
