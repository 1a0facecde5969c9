"""The traffic plane as it was observed, and the receipt of a rollback."""

from dataclasses import dataclass

from interlock.model.release import ModelVersion

ALL_TRAFFIC_BPS = 10_000  # basis points: 1 bps = 0.01 % of live requests


@dataclass(frozen=True, slots=True)
class ServerState:
    """
    One model server process. `ready` was read from its `/ping`, its memory from the operating system.

    peak_resident_mib: the most since its start, with everything below it, each process at its own peak; None when that was not read.
    """

    version: ModelVersion
    pid: int
    port: int
    ready: bool
    resident_mib: float
    restart_count: int
    peak_resident_mib: float | None = None


@dataclass(frozen=True, slots=True)
class PlaneState:
    """
    What the plane does now, read back from Envoy and the processes, not what it was asked to do.

    spare: the incumbent's second server, which answers when the first one does not.
    """

    incumbent: ServerState | None
    candidate: ServerState | None
    candidate_weight_bps: int
    is_mirroring: bool
    release_id: str | None
    token: int
    lease_remaining_seconds: float | None
    spare: ServerState | None = None
    last_restore_reason: str | None = None  # why the incumbent was asked for last, by whomever; None since the plane started


@dataclass(frozen=True, slots=True)
class CandidateLimits:
    """
    What a candidate may do at most before the fuse takes its traffic away, whatever the judge says. A value at the limit is allowed.

    error_percent: of its answers, to requests that the incumbent can answer. min_sample_count: fewer answers break neither it nor p99_ms.
    resident_mib: of its server with everything that runs in the server's session.
    """

    error_percent: float
    p99_ms: float
    min_sample_count: int
    resident_mib: float


@dataclass(frozen=True, slots=True)
class LiveTraffic:
    """Predictions that users asked for, and the seconds in which they were counted: the last hour, or what the plane has seen of it."""

    requests_count: int
    seen_seconds: float


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """
    Copies the plane gave up on so that users stay unaffected, cumulative since it started.

    live_requests_count: predictions that users asked for, captured or not.
    last_hour: the same of the last hour, whatever was restarted meanwhile.
    """

    mirrors_dropped_count: int
    captures_dropped_count: int
    live_requests_count: int
    last_hour: LiveTraffic = LiveTraffic(0, 0.0)


@dataclass(frozen=True, slots=True)
class RollbackStep:
    """One step of a rollback, reported only after it was observed. `elapsed_seconds` counts from the rollback's start."""

    name: str
    observed: str
    elapsed_seconds: float


@dataclass(frozen=True, slots=True)
class RollbackReceipt:
    """Proof of a rollback: what was observed after each step, and when."""

    reason: str
    incumbent: str
    steps: tuple[RollbackStep, ...]
    elapsed_seconds: float
