"""Processes of this machine, told apart by the kernel: which one asks, and whether another one still lives."""

import os
import socket
from pathlib import Path

from interlock.control.resume import ProcessMark
from interlock.plane.stamp import boot_id

_GONE = ("", "Z", "X")  # of a process's states in /proc


def this_process() -> ProcessMark:
    """The process that asks, for the evidence of a release. What cannot be read stays empty, and nobody is called dead by it."""
    found = _state_and_start(os.getpid())
    return ProcessMark(socket.gethostname(), boot_id(), os.getpid(), found[1] if found else "", _pid_namespace())


def is_alive(mark: ProcessMark) -> bool | None:
    """
    Whether that very process lives, stopped or not.

    None when that cannot be seen from here: it is on another machine or in another container, or /proc could not be read just now.
    """
    namespace, boot = _pid_namespace(), boot_id()
    if mark.host != socket.gethostname() or not mark.started or not boot or (mark.namespace and mark.namespace != namespace):
        return None
    if mark.boot != boot:
        return False
    found = _state_and_start(mark.pid)
    return None if found is None else found[0] not in _GONE and found[1] == mark.started


def is_running(run_id: str, pid: int) -> bool | None:
    """Whether a process of this number lives that Prefect has started for this flow run; None when it may not be looked at."""
    found = _state_and_start(pid)
    if found is None or found[0] in _GONE:
        return None if found is None else False
    try:
        return f"PREFECT__FLOW_RUN_ID={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The kernel's letter for what a process does, and its start in clock ticks; both empty when it is gone, None when unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    except OSError:
        return None
    return fields[0], fields[19]


def _pid_namespace() -> str:
    """What process numbers count in here. Empty when it cannot be read."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
