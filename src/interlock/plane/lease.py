"""Which release holds the traffic plane, and until when."""

from dataclasses import dataclass

from interlock.errors import ConcurrencyError, ServiceRefused
from interlock.model.release import ModelVersion
from interlock.ports import Clock

LONGEST_LEASE_SECONDS = 120.0  # the gates' reservation; a lease that outlives its release by more protects nobody


@dataclass(frozen=True, slots=True)
class Lost:
    """A release whose lease ran out, and the candidate it had (None when it had none, or it had been promoted)."""

    release_id: str
    candidate: ModelVersion | None


class Lease:
    """The reservation of the plane: at most one release's, and over when nobody renews it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.release_id: str | None = None
        self._token = 0
        self._ends_at: float | None = None

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
        """Give the plane to this release."""
        self.release_id, self._token, self._ends_at = release_id, token, ends_at

    def renew(self, ends_at: float) -> None:
        """Hold on until then."""
        self._ends_at = ends_at

    def free(self) -> None:
        """Nobody holds the plane any more. Idempotent."""
        self.release_id, self._ends_at = None, None

    def require(self, token: int) -> None:
        """Raise ConcurrencyError unless this token's release holds the plane, in time."""
        if self.release_id is None or token != self._token or self.is_over:
            holder = self.release_id or "nobody"
            raise ConcurrencyError(f"token {token} is stale: the plane is held by {holder} with token {self._token}; this release is over")
