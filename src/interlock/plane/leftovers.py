"""
Which processes this supervisor has started, written down for the next one.

A supervisor that was killed leaves its processes running. The next one takes over what still does its work, so that no user notices, and
ends the rest.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from interlock.plane.process import ManagedProcess, Note, family, orphans, start_ticks, stop_processes, supervised, with_session
from interlock.plane.stamp import boot_id
from interlock.plane.state_directory import write_json

VERSION = version("interlock-release")
# What serves users is taken over also from another version of Interlock: Envoy gets its configuration from files that are written anew,
# and a model server is whatever speaks the protocol.
SERVING = ("envoy", "model-")


class ProcessNotes:
    """The file of notes: who runs now (`read` says so), on which ports. Any thread may note."""

    def __init__(self, path: Path, *, read: Callable[[], Sequence[Note]]) -> None:
        self._path = path
        self._read = read
        self._ports: Mapping[str, int] = {}
        self._lock = threading.Lock()
        self._noted: list[Note] | None = None

    def note_ports(self, ports: Mapping[str, int]) -> None:
        """Write down where the stack listens, before anything of it runs. Raises OSError."""
        with self._lock:
            self._ports, self._noted = ports, None
        self.note()

    def note(self) -> None:
        """
        Write down who runs now, if that has changed. One that has ended meanwhile is kept: what it started may still run.

        Raises:
            OSError: the file cannot be written.
        """
        with self._lock:
            now = sorted(self._read(), key=lambda note: note.pid)
            if now == self._noted:
                return
            head = {"version": VERSION, "boot": boot_id(), "ports": self._ports}
            write_json(self._path, {**head, "processes": [asdict(note) for note in now]})
            self._noted = now

    def forget(self) -> None:
        """Everything has been stopped."""
        self._path.unlink(missing_ok=True)


class Leftovers:
    """What a killed supervisor left behind, as its notes say; nothing when they cannot be read."""

    def __init__(self, path: Path, *, log_directory: Path) -> None:
        self._logs = log_directory
        self._kept: set[str] = set()
        self._stopped: set[int] = set()
        self._notes: list[Note] = []
        self._version, self._ports = "", {}
        try:
            saved = json.loads(path.read_text())
            notes = [_read_note(entry) for entry in saved["processes"]]
            self._version, self._ports = str(saved["version"]), {str(k): int(v) for k, v in saved["ports"].items()}
            self._notes = notes if saved["boot"] == boot_id() else []
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            pass

    @property
    def ports(self) -> dict[str, int]:
        """Where the killed stack listened; empty when nothing of it runs any more."""
        return dict(self._ports) if any(note.is_running for note in self._notes) else {}

    @property
    def is_serving(self) -> bool:
        """Whether anything of the killed stack was running when it was looked for."""
        return any(note.is_running for note in self._notes)

    def find(self, name: str) -> Note | None:
        """The running process of this name, if it may be taken over."""
        if self._version != VERSION and not name.startswith(SERVING):
            return None
        return next((note for note in self._notes if note.name == name and note.is_running), None)

    def take_over(self, process: ManagedProcess) -> bool:
        """Let `process` be the one that runs already, if that was started by the very same command; True when it is."""
        note = self.find(process.name)
        if note is None or list(note.command) != process.command or note.port != process.port:
            return False
        process.take_over(note)
        self._kept.add(note.name)
        return True

    def pending(self) -> list[Note]:
        """Who was neither taken over nor ended yet: to be noted with the rest, for the next one, if this supervisor is killed too."""
        return [note for note in self._notes if note.name not in self._kept and note.pid not in self._stopped]

    def stop(self, *, grace_seconds: float, but: Callable[[str], bool] = lambda name: False) -> None:
        """End everything that was not taken over, also what has outlived the process that was noted, `but` what has such a name."""
        doomed = [note for note in self.pending() if not (note.is_running and but(note.name))]
        stop_processes([process for note in doomed for process in self._members(note)], grace_seconds=grace_seconds)
        self._stopped |= {note.pid for note in doomed}

    def stop_unnoted(self, *, grace_seconds: float) -> None:
        """End what was started for this directory and not noted: its supervisor was killed in between. Before anything new is started."""
        known = {process.pid for note in self._notes for process in (*self._members(note), *family(note.pid)) if note.is_running}
        strays = [process for process in supervised(self._logs) if process.pid not in known]
        stop_processes(strays, grace_seconds=grace_seconds)

    def _members(self, note: Note) -> list[psutil.Process]:
        """Everything in the noted session: with a leader that was started at the very moment noted, or without any leader."""
        if (ticks := start_ticks(note.pid)) == 0:
            return orphans(note.pid, log_directory=self._logs)
        return with_session(note.pid) if ticks == note.started_ticks else []


def _read_note(entry: Mapping[str, Any]) -> Note:
    command = tuple(str(word) for word in entry["command"])
    return Note(str(entry["name"]), int(entry["pid"]), int(entry["started_ticks"]), command, int(entry["port"]))
