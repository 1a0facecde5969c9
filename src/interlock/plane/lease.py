"""Which release holds the traffic plane, and until when."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from interlock.errors import ConcurrencyError, ServiceRefused, StateError
from interlock.model.plane import CandidateLimits
from interlock.model.release import ModelVersion
from interlock.plane.fuse_signs import BLOWN_FILE, Blown, read_blown
from interlock.plane.sessions import ProcessId, identify
from interlock.plane.stamp import Stamp, clear_stamp, seconds_since_boot, write_stamp
from interlock.ports import Clock

BLOWN_SECONDS = 30.0  # a flow that lives says itself, a second after its fuse has blown, how its release ended, and is done in ten
LONGEST_LEASE_SECONDS = 120.0  # the gates' reservation; a lease that outlives its release by more protects nobody


@dataclass(frozen=True, slots=True)
class Lost:
    """A release whose lease ran out, and the candidate it had (None when it had none, or it had been promoted)."""

    release_id: str
    candidate: ModelVersion | None


class Unended:
    """A release whose fuse has blown, until its flow has ended it; one that hangs never does, and somebody else must."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: tuple[Lost, float] | None = None

    def note(self, lost: Lost) -> None:
        """Its fuse has blown now."""
        self._waiting = lost, self._clock.monotonic() + BLOWN_SECONDS

    def forget(self) -> None:
        """It has been ended, or another release has begun."""
        self._waiting = None

    def due(self) -> Lost | None:
        """The release, once, when its flow has had the time and has not ended it."""
        if self._waiting is None or self._clock.monotonic() < self._waiting[1]:
            return None
        (lost, _), self._waiting = self._waiting, None
        return lost


class Lease:
    """
    The reservation of the plane: at most one release's, and over when nobody renews it.

    It also stands on disk (`stamp_file`), for the fuse, with what that must know of the candidate (`guard`). First there: a share that
    only memory holds would blow the fuse.
    """

    def __init__(self, clock: Clock, stamp_file: Path) -> None:
        self._clock = clock
        self._stamp_file = stamp_file
        self.release_id: str | None = None
        self._token = 0
        self._ends_at: float | None = None
        self._limits: CandidateLimits | None = None
        self._candidate: ProcessId | None = None

    @property
    def is_over(self) -> bool:
        """Somebody held the plane and has not renewed in time."""
        return self._ends_at is not None and self._clock.monotonic() >= self._ends_at

    @property
    def remaining_seconds(self) -> float | None:
        """None when nobody holds the plane."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._clock.monotonic())

    def end_of(self, lease_seconds: float) -> float:
        """The moment a lease of this length would end. ServiceRefused when it would protect nobody."""
        if not 0 < lease_seconds <= LONGEST_LEASE_SECONDS:  # NaN is outside too
            raise ServiceRefused(f"a lease of {lease_seconds} s was asked, must be above 0 and at most {LONGEST_LEASE_SECONDS:g} s")
        return self._clock.monotonic() + lease_seconds

    def hold(self, release_id: str, *, token: int, ends_at: float) -> None:
        """Give the plane to this release, without a candidate. StateError when that cannot be written down."""
        self._limits, self._candidate = None, None
        self._write(release_id, token, ends_at)
        self.release_id, self._token, self._ends_at = release_id, token, ends_at

    def renew(self, ends_at: float) -> None:
        """Hold on until then. StateError when that cannot be written down."""
        if self.release_id is not None:
            self._write(self.release_id, self._token, ends_at)
        self._ends_at = ends_at

    def guard(self, limits: CandidateLimits, *, pid: int) -> None:
        """
        Have the fuse hold this candidate's server to these limits from now on; idempotent. StateError when that cannot be written down.

        ConcurrencyError when nobody holds the plane: a guard would end with the lease at once.
        """
        if self.release_id is None or self._ends_at is None:
            raise ConcurrencyError("nobody holds the plane: there is no candidate to guard")
        self._limits, self._candidate = limits, identify(pid)
        self._write(self.release_id, self._token, self._ends_at)

    def blown(self) -> Blown | None:
        """Why the fuse has ended this lease: its candidate broke a limit. None while nobody holds the plane, or it has broken none."""
        if self.release_id is None:
            return None
        blown = read_blown(self._stamp_file.with_name(BLOWN_FILE))
        return blown if blown and (blown.release_id, blown.token) == (self.release_id, self._token) else None

    def free(self) -> None:
        """Nobody holds the plane any more. Idempotent."""
        self.release_id, self._ends_at = None, None
        self._limits, self._candidate = None, None
        with contextlib.suppress(OSError):  # a stamp that stays is over by itself
            clear_stamp(self._stamp_file)

    def _write(self, release_id: str, token: int, ends_at: float) -> None:
        left_seconds = ends_at - self._clock.monotonic()
        try:
            ends_at_seconds = seconds_since_boot() + left_seconds
            write_stamp(self._stamp_file, Stamp(release_id, token, ends_at_seconds, self._limits, self._candidate))
        except OSError as error:
            raise StateError(f"{self._stamp_file} cannot be written ({error.strerror}): free or unlock the state directory") from error

    def require(self, token: int) -> None:
        """Raise ConcurrencyError unless this token's release holds the plane, in time."""
        if self.release_id is None or token != self._token or self.is_over:
            holder = self.release_id or "nobody"
            raise ConcurrencyError(f"token {token} is stale: the plane is held by {holder} with token {self._token}; this release is over")
        if (blown := self.blown()) is not None:
            raise ConcurrencyError(f"the fuse has ended this release: {blown.reason}")
