"""Which processes this supervisor has started, written down so that the next one can end them if this one is killed."""

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from interlock.plane.process import orphans, stop_processes, with_session
from interlock.plane.state_directory import write_json

SAME_MOMENT_SECONDS = 0.01


class ProcessNotes:
    """The file of noted session leaders: their ids (`pids` gives those of now) and when each was started. Any thread may note."""

    def __init__(self, path: Path, *, log_directory: Path, pids: Callable[[], Sequence[int]]) -> None:
        self._path = path
        self._logs = log_directory
        self._pids = pids
        self._lock = threading.Lock()
        self._noted: dict[int, float] = {}

    def note(self) -> None:
        """
        Write down who runs now, if that has changed. One that has ended meanwhile is kept: what it started may still run.

        Raises:
            OSError: the file cannot be written.
        """
        with self._lock:
            pids = {pid for pid in self._pids() if pid > 0}
            if pids == self._noted.keys():
                return
            noted = {pid: self._noted[pid] if pid in self._noted else _created_at(pid) for pid in sorted(pids)}
            write_json(self._path, [{"pid": pid, "created_at": created_at} for pid, created_at in noted.items()])
            self._noted = noted

    def forget(self) -> None:
        """Everything has been stopped."""
        self._path.unlink(missing_ok=True)

    def stop_leftovers(self, *, grace_seconds: float) -> None:
        """End what a killed supervisor left behind, also what has outlived the process that was noted."""
        stop_processes(self.leftovers(), grace_seconds=grace_seconds)

    def leftovers(self) -> list[psutil.Process]:
        """Everything in the noted sessions: with a leader that was started at the very moment noted, or without any leader."""
        try:
            noted = {int(entry["pid"]): float(entry["created_at"]) for entry in json.loads(self._path.read_text())}
        except (OSError, ValueError, TypeError, LookupError):
            return []
        found: list[psutil.Process] = []
        for pid, created_at in noted.items():
            if not psutil.pid_exists(pid):
                found += orphans(pid, log_directory=self._logs)
            elif abs(_created_at(pid) - created_at) < SAME_MOMENT_SECONDS:
                found += with_session(pid)
        return found


def _created_at(pid: int) -> float:
    """When it was started, 0.0 when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).create_time())
    return 0.0
