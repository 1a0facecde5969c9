"""What the core needs of the world, as Protocols. Adapters fulfil them; `interlock.wiring` chooses which."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from interlock.model.journal import Leg
from interlock.model.plane import CandidateLimits, CaptureCounts, PlaneState
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput


class Clock(Protocol):
    """Time, injected. Durations come from `monotonic`; `utc_now` is for the record only."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""
        ...

    def utc_now(self) -> datetime:
        """The wall clock, timezone-aware."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One model version as the registry describes it now."""

    name: str
    version: str
    stage: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    updated_at_ms: int


class Registry(Protocol):
    """
    The model registry. Every setter returns only after the new value was read back.

    A model is claimed by the largest release token that asked for it. Setters carry the token of whoever calls; an older one is refused
    with ConcurrencyError and changes nothing.
    """

    def read_version(self, name: str, version: str) -> RegisteredVersion:
        """The version, or ServiceRefused naming what does not exist."""
        ...

    def read_versions(self, name: str) -> Sequence[RegisteredVersion]:
        """Every version of a model."""
        ...

    def read_champion(self, name: str) -> str | None:
        """The version that holds the alias `champion`, or None."""
        ...

    def read_token(self, name: str) -> int:
        """The largest token that has claimed this model; 0 when none has."""
        ...

    def claim(self, name: str, *, token: int) -> None:
        """From now on refuse every older token. ConcurrencyError, naming both, when a larger one has claimed the model. Idempotent."""
        ...

    def set_champion(self, name: str, version: str, *, token: int) -> None:
        """Move alias `champion` and stage Production to this version; another Production version becomes Archived. Idempotent."""
        ...

    def set_stage(self, name: str, version: str, stage: str, *, token: int) -> None:
        """Move one version to a stage. Idempotent."""
        ...

    def set_tags(self, name: str, version: str, tags: Mapping[str, str], *, token: int) -> None:
        """Write tags on one version."""
        ...


class Traffic(Protocol):
    """
    The traffic plane. Moves towards the candidate need the release's token; moves towards the incumbent never do, but a release that
    gives its token along is refused when a newer one has begun.

    Raises ServiceUnavailable when the plane does not answer, ConcurrencyError when the token is stale,
    ServiceRefused when the plane says no.
    """

    def observe(self) -> PlaneState:
        """What the plane does now, read back."""
        ...

    def adopt(self, version: ModelVersion, *, server: str, thread_count: int) -> PlaneState:
        """Make this version the first incumbent. Refused when there is one: later versions come by release only."""
        ...

    def begin(self, release_id: str, *, lease_seconds: float, above: int = 0) -> int:
        """
        Reserve the plane for one release and return its token, larger than every earlier one and than `above`.

        Raises:
            ConcurrencyError: another release holds it.
        """
        ...

    def load_candidate(self, version: ModelVersion, *, server: str, thread_count: int, limits: CandidateLimits, token: int) -> None:
        """
        Ask for a model server with this version; `observe().candidate.ready` tells when it answers.

        A candidate that breaks one of the limits loses its traffic without anybody being asked.
        """
        ...

    def candidate_failure(self) -> str | None:
        """Why the candidate's server ended by itself; None while it runs or none is loaded."""
        ...

    def set_mirroring(self, *, enabled: bool, token: int) -> None:
        """Mirror and capture both directions, or stop doing so."""
        ...

    def set_weight(self, weight_bps: int, *, lease_seconds: float, token: int) -> None:
        """Ask for a candidate share in basis points, held for `lease_seconds` unless renewed."""
        ...

    def renew(self, *, lease_seconds: float, token: int) -> None:
        """Hold the reservation and the candidate's share for another `lease_seconds`."""
        ...

    def promote(self, *, token: int) -> None:
        """Make the candidate the incumbent, for good: its share becomes everybody's, the former incumbent drains and stops."""
        ...

    def restore_incumbent(self, *, reason: str, token: int | None = None) -> None:
        """Ask for all traffic on the incumbent, mirroring off. Needs no token; one older than the last begun is refused. Idempotent."""
        ...

    def end(self, *, token: int | None) -> None:
        """Stop the candidate's server and give the plane free for the next release. Refused while the candidate has traffic."""
        ...

    def probe(self, count: int) -> Mapping[str, int]:
        """Send `count` requests through the live listener and count which `name/version` answered; "" counts failures."""
        ...

    def capture_counts(self) -> CaptureCounts:
        """What mirroring and capture have dropped so far, and how much live traffic there was in the last hour."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """A version to be served to its gates alone, beside the plane."""

    version: ModelVersion
    server: str
    thread_count: int
    start_deadline_seconds: float
    memory_limit_mib: float


@dataclass(frozen=True, slots=True)
class TrialServer:
    """A server on trial that answers."""

    port: int
    start_seconds: float


class StartTrial(Protocol):
    """Starts servers on trial."""

    def __call__(self, trial: Trial) -> AbstractContextManager[TrialServer]:
        """Enter to start it and wait until it answers; leave to end it. ArtifactError when it ends by itself."""
        ...


class Journal(Protocol):
    """The prediction journal, read as it grows."""

    def read_new(self) -> Sequence[Leg]:
        """Legs that arrived since the last call, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One run as Prefect describes it now. `pid`: its process on the worker's machine, None when it has none (yet)."""

    run_id: str
    idempotency_key: str
    state_type: str
    state_name: str
    pid: int | None
    message: str = ""


class Runs(Protocol):
    """Whatever runs releases."""

    def submit(self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str) -> str:
        """Ask for a run of `flow/deployment`; the same key gives the same run. Returns the run's id."""
        ...

    def read_by_key(self, keys: Sequence[str]) -> Mapping[str, FlowRun]:
        """The runs that were asked for with these keys, by key."""
        ...

    def read_under_way(self, deployment: str) -> Sequence[FlowRun]:
        """Runs of `flow/deployment` that hold its concurrency slot: begun, and not ended."""
        ...

    def end(self, run_id: str, *, state_type: str, state_name: str, message: str) -> None:
        """Say how a run ended whose process cannot; what it holds is free then."""
        ...


class EvidenceStore(Protocol):
    """Append-only records, one list per release."""

    def append(self, release_id: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Write one record and return after it is durable."""
        ...

    def read(self, release_id: str) -> Sequence[Mapping[str, Any]]:
        """All records of one release, oldest first."""
        ...

    def read_ends(self, release_id: str, *, last_count: int) -> Sequence[Mapping[str, Any]]:
        """The first record, and of the others at most the last `last_count`, oldest first. What lies between is not looked at."""
        ...

    def list_releases(self) -> Sequence[str]:
        """Release ids, oldest first."""
        ...


class ModelFiles(Protocol):
    """Local copies of model artifacts, named by their digest."""

    def read_digest(self, version: ModelVersion, *, between: Callable[[], None]) -> str:
        """The digest of a fetched version's files as they are now, all of them read again. `between` is called every few MiB."""
        ...

    def fetch(self, name: str, version: str) -> tuple[ModelVersion, Path]:
        """Download once and pin: the version with its digest, and the directory. ArtifactError when it cannot be used."""
        ...

    def directory(self, version: ModelVersion) -> Path:
        """Where a fetched version lies."""
        ...

    def read_outputs(self, version: ModelVersion) -> tuple[ModelOutput, ...]:
        """What a fetched version answers by its signature, in its order. ArtifactError when it does not say."""
        ...
