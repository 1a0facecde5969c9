"""
The fuse: gives all traffic back to the incumbent, whatever else is dead, when the lease is over or the candidate breaks a hard limit.

A process of its own with the standard library only: it needs Envoy's admin and the stamp on disk, no supervisor, no Prefect, no network.
The supervisor enforces the same lease and starts the fuse again when it ends; the fuse takes a dead supervisor for a lease that is over,
since nobody is left who could renew it. Both may act at once: what they ask for is the same. Runs as `python -m interlock.plane.fuse`.

The limits are the release profile's; the numbers the fuse reads itself, from Envoy and the kernel.
"""

import argparse
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from interlock.plane.fuse_envoy import is_safe, make_safe, read_counts, read_split
from interlock.plane.fuse_limits import Window
from interlock.plane.fuse_signs import BEAT_FILE, BLOWN_FILE, Blown, beat, read_blown, write_blown
from interlock.plane.sessions import session_resident_mib, started_at
from interlock.plane.stamp import Stamp, read_stamp, seconds_since_boot

TICK_SECONDS = 0.2
IDLE_LOOK_SECONDS = 1.0  # how often Envoy is looked at while nobody holds the plane: a share may have been set by a request that was late
READING_SECONDS = 1.0  # how often the candidate is looked at: from .3 to .4 % of a core in all
BLIND_SECONDS = 5.0  # so long a share is held without a look at the candidate
BLIND_LOOKS = 3  # and so many looks have failed: one after a stall of the machine is no blindness


@dataclass(frozen=True, slots=True)
class FuseSettings:
    """What the fuse watches. `supervisor_pid`: the process that should be alive, and its start time in clock ticks (`started_at`)."""

    admin_port: int
    stamp: Path
    supervisor_pid: int
    supervisor_started_at: str


class Fuse:
    """One look after the other at lease and candidate; gives back whatever share no lease holds, or a candidate may not have."""

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings
        self._blown_file = settings.stamp.with_name(BLOWN_FILE)
        self._beat_file = settings.stamp.with_name(BEAT_FILE)
        self._blown: Blown | None = None
        self._is_noted = False
        self._guard: Guard | None = None
        self._look_at = 0.0
        self._said = ""

    def tick(self) -> None:
        """One look. What fails is said once while it lasts, and tried again at the next tick."""
        self._beat()
        try:
            stamp = read_stamp(self._settings.stamp)
            reason = self._why_over(stamp)
            if stamp is not None and reason is None:
                reason = self._why_blown(stamp)
                self._look_at = 0.0  # the next reason, or this one, is acted on at once
                self._beat()
            if reason is not None:
                self._give_back(reason)
        except Exception as error:  # noqa: BLE001 - a fuse that ends guards nobody; the next tick tries again
            self._say(f"a look failed: {type(error).__name__} {error}")

    def _beat(self) -> None:
        """Say "I live", between any two things that may take as long as Envoy wants: three calls, 1.5 s at most."""
        with contextlib.suppress(OSError):  # nobody can be told; the supervisor will replace this fuse
            beat(self._beat_file)

    def _why_over(self, stamp: Stamp | None) -> str | None:
        """Why nobody may give the candidate a share now; None while somebody may."""
        if stamp is None:
            return "no release holds the plane"
        if (late_seconds := seconds_since_boot() - stamp.ends_at_seconds) >= 0:
            return f"the lease of release {stamp.release_id} has been over for {late_seconds:.1f} s"
        alive = started_at(self._settings.supervisor_pid)
        if not alive or alive != self._settings.supervisor_started_at:
            return f"the supervisor ({self._settings.supervisor_pid}) is dead, and release {stamp.release_id} cannot renew its lease"
        return None

    def _why_blown(self, stamp: Stamp) -> str | None:
        """Which limit the candidate of this lease has broken, now or before; None while it has broken none."""
        blown = self._blown if self._blown and self._blown.is_for(stamp) else read_blown(self._blown_file)
        if blown is None or not blown.is_for(stamp):
            if self._guard is None or not self._guard.is_for(stamp):
                self._guard = Guard(self._settings.admin_port, stamp)
            if (broken := self._guard.look(time.monotonic(), stamp)) is None:
                return None
            blown, self._is_noted = Blown(stamp.release_id, stamp.token, broken, _utc_now()), False
        self._blown = blown
        self._note(blown)
        return f"release {blown.release_id} is over: {blown.reason}"

    def _note(self, blown: Blown) -> None:
        """Tell the supervisor, before traffic is given back: if this process ends in between, supervisor or next fuse give it back."""
        if not self._is_noted:
            with contextlib.suppress(OSError):  # a full disk must not keep the share; the next tick writes again
                if read_blown(self._blown_file) != blown:
                    write_blown(self._blown_file, blown)
                self._is_noted = True

    def _give_back(self, reason: str) -> None:
        if (now := time.monotonic()) < self._look_at:
            return
        try:
            if is_safe(split := read_split(self._settings.admin_port)):
                self._look_at = now + IDLE_LOOK_SECONDS
                self._said = ""
                return
            make_safe(self._settings.admin_port)
            self._say(f"{reason}: all traffic was given back to the incumbent (it was {split})")
        except Exception as error:  # noqa: BLE001 - whatever Envoy answered, the next tick asks again
            self._say(f"{reason}, and Envoy's admin cannot be asked to give traffic back: {type(error).__name__} {error}")

    def _say(self, text: str) -> None:
        if text != self._said:
            with contextlib.suppress(OSError):  # a full disk must not end the fuse
                print(f"{_utc_now()} {text}", flush=True)
        self._said = text


class Guard:
    """
    The looks at one lease's candidate: once a second, while Envoy gives it a share or copies. Says which limit it breaks.

    Without a look for 5 s, a share that was seen last, or that nobody could look for, is one too many: missing numbers are not good ones.
    An Envoy whose split was safe at the last look needs none; restarted, it begins with the safe split.
    """

    def __init__(self, admin_port: int, stamp: Stamp) -> None:
        self._admin_port = admin_port
        self._lease = (stamp.release_id, stamp.token, stamp.limits, stamp.candidate)
        self._window = Window(stamp.limits) if stamp.limits else None
        self._look_at = 0.0
        self._seen_at = time.monotonic()
        self._was_safe = False
        self._blind_count = 0

    def is_for(self, stamp: Stamp) -> bool:
        """Whether it looks at this lease's candidate, with these limits."""
        return self._lease == (stamp.release_id, stamp.token, stamp.limits, stamp.candidate)

    def look(self, now: float, stamp: Stamp) -> str | None:
        """Which number breaks which limit, if this is the moment for a look; None also while there are no limits to break."""
        if self._window is None or now < self._look_at:
            return None
        self._look_at = now + READING_SECONDS
        try:
            self._was_safe = is_safe(read_split(self._admin_port))
            broken = None if self._was_safe else self._broken(now, self._window, stamp)
            self._seen_at, self._blind_count = time.monotonic(), 0
        except Exception as error:  # noqa: BLE001 - whatever Envoy answered: it is no look at the candidate
            self._blind_count += 1
            blind_seconds = time.monotonic() - self._seen_at
            if self._was_safe or blind_seconds < BLIND_SECONDS or self._blind_count < BLIND_LOOKS:
                return None
            return f"nothing could be read of the candidate for {blind_seconds:.0f} s ({type(error).__name__} {error})"
        if self._was_safe:
            self._window.clear()
        return broken

    def _broken(self, now: float, window: Window, stamp: Stamp) -> str | None:
        if stamp.limits and stamp.candidate:
            limit_mib, resident_mib = stamp.limits.resident_mib, session_resident_mib(stamp.candidate)
            if resident_mib > limit_mib:
                return f"the candidate's server holds {resident_mib:.1f} MiB, more than its limit of {limit_mib:g} MiB"
        return window.add(now, read_counts(self._admin_port))


def _utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def main() -> None:
    """Watch until SIGTERM."""
    parser = argparse.ArgumentParser(description="Gives all traffic back to the incumbent when the lease is over or a limit is broken.")
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
