"""
The lease as it stands on disk: until when a release may give the candidate a share, for whoever enforces that without the supervisor.

Standard library only: the fuse reads it. Time is the machine's time since boot, which no change of the clock moves; a stamp of another
boot is over.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who holds the plane, and until which moment of `seconds_since_boot`."""

    release_id: str
    token: int
    ends_at_seconds: float


def seconds_since_boot() -> float:
    """Seconds that every process of this machine counts alike, also while it sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write_stamp(path: Path, stamp: Stamp) -> None:
    """
    Replace the stamp; a reader sees the old one or the new. Not fsynced: after a power cut Envoy has forgotten every share anyway.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps({**asdict(stamp), "boot_id": _boot_id()}))
    temporary.replace(path)


def clear_stamp(path: Path) -> None:
    """Nobody holds the plane. Idempotent."""
    path.unlink(missing_ok=True)


def read_stamp(path: Path) -> Stamp | None:
    """The stamp of this boot; None when there is none, or it cannot be understood: nobody can be said to hold the plane."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        saved = json.loads(path.read_text())
        if saved["boot_id"] == _boot_id():
            return Stamp(str(saved["release_id"]), int(saved["token"]), float(saved["ends_at_seconds"]))
    return None


def _boot_id() -> str:
    """Empty where the system has none; a stamp may then outlive a reboot, by the few seconds of a lease."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""
