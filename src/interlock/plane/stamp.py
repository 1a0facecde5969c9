"""
The lease as it stands on disk: until when a release may give the candidate a share, for whoever enforces that without the supervisor.

Standard library only: the fuse reads it. Time is the machine's time since boot, which no change of the clock moves; a stamp of another
boot is over.
"""

import contextlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interlock.model.plane import CandidateLimits
from interlock.plane.sessions import ProcessId

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Stamp:
    """
    Who holds the plane, and until which moment of `seconds_since_boot`.

    limits, candidate: what the fuse enforces, and on whose process; both None while there is no candidate.
    """

    release_id: str
    token: int
    ends_at_seconds: float
    limits: CandidateLimits | None = None
    candidate: ProcessId | None = None


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
    temporary.write_text(json.dumps({**asdict(stamp), "boot_id": boot_id()}))
    temporary.replace(path)


def clear_stamp(path: Path) -> None:
    """Nobody holds the plane. Idempotent."""
    path.unlink(missing_ok=True)


def read_stamp(path: Path) -> Stamp | None:
    """
    The stamp of this boot; None when there is none, or it cannot be understood: nobody can be said to hold the plane.

    A stamp without limits, or with limits that are no numbers, is not understood: a candidate whom nothing limits is not assumed.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        saved = json.loads(path.read_text())
        if saved["boot_id"] == boot_id():
            return Stamp(
                str(saved["release_id"]),
                int(saved["token"]),
                _finite(saved["ends_at_seconds"]),
                _limits(saved["limits"]),
                _candidate(saved["candidate"]),
            )
    return None


def _limits(saved: Any) -> CandidateLimits | None:
    if saved is None:
        return None
    return CandidateLimits(
        _finite(saved["error_percent"]), _finite(saved["p99_ms"]), int(saved["min_sample_count"]), _finite(saved["resident_mib"])
    )


def _candidate(saved: Any) -> ProcessId | None:
    return None if saved is None else ProcessId(int(saved["pid"]), str(saved["started_at"]))


def _finite(saved: Any) -> float:
    """NaN would be an end that never comes, and a limit that nothing exceeds."""
    if not math.isfinite(number := float(saved)):
        raise ValueError(f"{number} is not finite")
    return number


def boot_id() -> str:
    """Which boot of the machine this is; empty where that cannot be known: a stamp may then outlive a reboot, by the seconds of a lease."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""
