"""One leg of one request, as the prediction journal keeps it."""

from dataclasses import dataclass
from enum import StrEnum


class Arm(StrEnum):
    """Which model version was asked."""

    INCUMBENT = "incumbent"
    CANDIDATE = "candidate"


class Role(StrEnum):
    """Whether the user waited for this answer (live) or it was a mirrored copy (mirror)."""

    LIVE = "live"
    MIRROR = "mirror"


@dataclass(frozen=True, slots=True)
class Leg:
    """
    What one arm did with one request. Two legs with one `request_id` are a pair: the same input, scored by both arms.

    arm:          the arm the request was routed to; a candidate leg that was rescued by the incumbent stays a candidate leg.
    status_code:  the arm's own HTTP status; 0 = no answer of its own (time-out, reset, dead, or rescued by the incumbent).
    latency_ms:   request received -> response complete, at the traffic plane; None when the arm gave no answer of its own.
    prediction:   response body as text, at most the capture limit; None when there was none or it was cut.
    received_at_seconds: Unix time at which the leg reached the collector, for windows only, never for durations.
    input_digest: first 16 hex digits of the SHA-256 of the request body; both legs of a pair have the same.
    segment: what the client says the request belongs to (header interlock-segment), at most 64 bytes; empty when it says nothing.
    key: digest of whom the request is about (header interlock-key), 16 hex digits; empty when the client does not say.
    """

    request_id: str
    arm: Arm
    role: Role
    received_at_seconds: float
    status_code: int
    latency_ms: float | None
    input_digest: str
    prediction: str | None
    served_by: str
    segment: str = ""
    key: str = ""

    @property
    def failed(self) -> bool:
        """The arm gave no answer of its own, or a 5xx. A 4xx alone says nothing: the pair tells whose fault it was."""
        return self.status_code >= 500 or self.status_code < 200 or 300 <= self.status_code < 400
