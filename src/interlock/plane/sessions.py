"""
Processes as the kernel's /proc has them: who one is, who runs in a session, what the session holds. Standard library only, for the fuse.

A child that leaves the session on purpose is not seen here; what was limited before it left stays limited, since limits are inherited.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process and nobody else: its id, and when it was started (see `started_at`; empty when it was gone already)."""

    pid: int
    started_at: str


def identify(pid: int) -> ProcessId:
    """Who has this id now."""
    return ProcessId(pid, started_at(pid))


def started_at(pid: int) -> str:
    """When the process was started, in clock ticks since boot, which no later process of the same id shares; empty when it is gone."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def session_pids(leader_pid: int) -> list[int]:
    """Everyone in the session that this process leads or led; the kernel gives its id to nobody else while one of them lives."""
    pids = []
    for name in os.listdir(_PROC):  # noqa: PTH208 - once a second over all processes of the machine: names are enough
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == leader_pid:
                    pids.append(int(name))
    return pids


def thread_ids(pid: int) -> list[int]:
    """All threads of a process; empty when it is gone."""
    try:
        return [int(name) for name in os.listdir(_PROC / str(pid) / "task")]  # noqa: PTH208 - as above
    except OSError:
        return []


def session_resident_mib(leader: ProcessId) -> float:
    """
    Resident memory of a whole session; 0.0 when nobody is left, or the leader's id belongs to a stranger by now.

    Pages that several of its processes share are counted once for each, as the memory gate does.
    """
    if started_at(leader.pid) not in ("", leader.started_at):
        return 0.0
    return sum(_resident_bytes(pid) for pid in session_pids(leader.pid)) / 2**20


def peak_resident_bytes(pid: int) -> int:
    """The most that one process has held resident since it was started, as the kernel noted it; 0 when it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return 0


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
    return 0
