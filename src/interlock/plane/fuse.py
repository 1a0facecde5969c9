"""
The fuse: gives all traffic back to the incumbent when the lease is over, whatever else is dead. `python -m interlock.plane.fuse`.

A process of its own with the standard library only: it needs Envoy's admin and the stamp on disk, no supervisor, no Prefect, no network.
The supervisor enforces the same lease and starts the fuse again when it ends; the fuse takes a dead supervisor for a lease that is over,
since nobody is left who could renew it. Both may act at once: what they ask for is the same.
"""

import argparse
import contextlib
import http.client
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlencode

from interlock.plane.stamp import read_stamp, seconds_since_boot

TICK_SECONDS = 0.2
IDLE_LOOK_SECONDS = 1.0  # how often Envoy is looked at while nobody holds the plane: a share may have been set by a request that was late
ADMIN_TIMEOUT_SECONDS = 1.0

# The split that is always safe, as `envoy_settings` and `envoy_admin` have it; a test holds the two together.
SAFE_RUNTIME = {"interlock.candidate_weight": 0, "interlock.mirror": 0, "interlock.quiet": 10_000}


@dataclass(frozen=True, slots=True)
class FuseSettings:
    """What the fuse watches. `supervisor_pid`: the process that should be alive, and its start time in clock ticks (`started_at`)."""

    admin_port: int
    stamp: Path
    supervisor_pid: int
    supervisor_started_at: str


class Fuse:
    """One look after the other at the lease; blows whenever Envoy gives a share that no lease holds."""

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings
        self._look_at = 0.0
        self._said = ""

    def tick(self) -> None:
        """One look. What fails is said once while it lasts, and tried again at the next tick."""
        reason = self._why_over()
        now = time.monotonic()
        if reason is None:
            self._look_at = now
            return
        if now < self._look_at:
            return
        try:
            if is_safe(split := _runtime(self._settings.admin_port)):
                self._look_at = now + IDLE_LOOK_SECONDS
                self._said = ""
                return
            make_safe(self._settings.admin_port)
            self._say(f"{reason}: all traffic was given back to the incumbent (it was {split})")
        except Exception as error:  # noqa: BLE001 - whatever Envoy answered, the next tick asks again: a fuse that ends guards nobody
            self._say(f"{reason}, and Envoy's admin cannot be asked to give traffic back: {type(error).__name__} {error}")

    def _why_over(self) -> str | None:
        """Why nobody may give the candidate a share now; None while somebody may."""
        stamp = read_stamp(self._settings.stamp)
        if stamp is None:
            return "no release holds the plane"
        if (late_seconds := seconds_since_boot() - stamp.ends_at_seconds) >= 0:
            return f"the lease of release {stamp.release_id} has been over for {late_seconds:.1f} s"
        alive = started_at(self._settings.supervisor_pid)
        if not alive or alive != self._settings.supervisor_started_at:
            return f"the supervisor ({self._settings.supervisor_pid}) is dead, and release {stamp.release_id} cannot renew its lease"
        return None

    def _say(self, text: str) -> None:
        if text != self._said:
            with contextlib.suppress(OSError):  # a full disk must not end the fuse
                print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)
        self._said = text


def is_safe(split: Mapping[str, int | None]) -> bool:
    """Whether Envoy sends everything to the incumbent and copies nothing. A key that nobody set has its safe default."""
    return all(split.get(key) in (None, safe) for key, safe in SAFE_RUNTIME.items())


def make_safe(admin_port: int) -> None:
    """
    Ask for the safe split and read it back.

    Raises:
        ValueError: Envoy still has another one.
        OSError, HTTPException: it did not answer.
    """
    asked = {key: f'{{"numerator":{bps},"denominator":"TEN_THOUSAND"}}' for key, bps in SAFE_RUNTIME.items()}
    _call(admin_port, "POST", f"/runtime_modify?{urlencode(asked)}")
    if not is_safe(found := _runtime(admin_port)):
        raise ValueError(f"asked for the incumbent, found {found}")


def started_at(pid: int) -> str:
    """When the process was started, in clock ticks since boot, which no later process of the same id shares; empty when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _runtime(admin_port: int) -> dict[str, int | None]:
    """The split's runtime keys in basis points; None where nobody has set one."""
    entries = json.loads(_call(admin_port, "GET", "/runtime")).get("entries", {})
    values = {key: entries.get(key, {}).get("final_value") for key in SAFE_RUNTIME}
    return {key: _basis_points(value) if value else None for key, value in values.items()}


def _basis_points(value: str) -> int:
    """Anything but a share as we write it is -1, which is not safe."""
    try:
        fraction = json.loads(value)
        return int(fraction["numerator"]) if fraction["denominator"] == "TEN_THOUSAND" else -1
    except (ValueError, TypeError, LookupError):
        return -1


def _call(admin_port: int, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=ADMIN_TIMEOUT_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ValueError(f"{method} {path.partition('?')[0]} was answered with {response.status}")
    return body


def main() -> None:
    """Watch until SIGTERM."""
    parser = argparse.ArgumentParser(description="Gives all traffic back to the incumbent when the lease is over.")
    parser.add_argument("--admin-port", type=int, required=True)
    parser.add_argument("--stamp", type=Path, required=True)
    parser.add_argument("--supervisor-pid", type=int, required=True)
    asked = parser.parse_args()
    fuse = Fuse(FuseSettings(asked.admin_port, asked.stamp, asked.supervisor_pid, started_at(asked.supervisor_pid)))

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        fuse.tick()
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main()
