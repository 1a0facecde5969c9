"""
What the fuse leaves on disk beside the stamp: for which lease it has blown, and that it lives. Standard library only.

The supervisor reads both. Neither is ever taken back: a token is given out once, and a beat grows old by itself.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from interlock.plane.stamp import Stamp, seconds_since_boot

BLOWN_FILE = "fuse.json"
BEAT_FILE = "fuse.beat"


@dataclass(frozen=True, slots=True)
class Blown:
    """The lease under which the candidate broke a limit, which limit with which number, and when (UTC, ISO 8601: for people)."""

    release_id: str
    token: int
    reason: str
    at: str

    def is_for(self, stamp: Stamp) -> bool:
        """Whether that lease is this one."""
        return (self.release_id, self.token) == (stamp.release_id, stamp.token)


def read_blown(path: Path) -> Blown | None:
    """The last time the fuse blew by itself; None when it never has, or what stands there cannot be understood."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        saved = json.loads(path.read_text())
        return Blown(str(saved["release_id"]), int(saved["token"]), str(saved["reason"]), str(saved["at"]))
    return None


def write_blown(path: Path, blown: Blown) -> None:
    """
    Replace the last one; a reader sees the old one or the new.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(asdict(blown)))
    temporary.replace(path)


def beat(path: Path) -> None:
    """
    Say "I live": the file's time of change is set to the seconds since boot, which a full disk allows and no change of the clock moves.

    Raises:
        OSError: the file is not there and cannot be made.
    """
    now = seconds_since_boot()
    try:
        os.utime(path, (now, now))
    except FileNotFoundError:
        path.touch()
        os.utime(path, (now, now))


def is_beating(path: Path, *, within_seconds: float) -> bool:
    """Whether the fuse has said "I live" in the last so many seconds. A beat of another boot, or none, is no."""
    try:
        age_seconds = seconds_since_boot() - path.stat().st_mtime
    except OSError:
        return False
    return -0.01 <= age_seconds <= within_seconds  # file systems round times
