"""One release under way: its facts, its policy, and the services it works with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from interlock.control.gates.inputs import Dataset, DrawDrift, Model, OpenSender, ReadArtifact
from interlock.control.pairing import Outputs, PairedOutputs, check_pairing
from interlock.control.policy import judge_policy
from interlock.errors import ArtifactError, ConcurrencyError, PolicyError, ServiceRefused, ServiceUnavailable
from interlock.model.plane import PlaneState
from interlock.model.release import ModelVersion, Release
from interlock.ports import Clock, EvidenceStore, Journal, ModelFiles, Registry, StartTrial, Traffic
from interlock.profile.reader import LoadedProfile
from interlock.profile.schema import ReleaseProfile

GATES_LEASE_SECONDS = 120.0  # without traffic nothing is at risk: long enough for the slowest gate, short enough to free a dead release
POLL_SECONDS = 0.5
WATCHED_STAGE = "Staging"


@dataclass(frozen=True, slots=True)
class Services:
    """The adapters of one process, chosen in `interlock.wiring`."""

    traffic: Traffic
    registry: Registry
    evidence: EvidenceStore
    files: ModelFiles
    clock: Clock
    open_journal: Callable[[], Journal]
    read_rows: Callable[[str], Dataset]
    read_training_rows: Callable[[str, str], Dataset]
    load_model: Callable[[Path], Model]
    read_artifact: ReadArtifact
    draw_drift: Callable[[str], DrawDrift]
    open_sender: Callable[[int], OpenSender]
    start_trial: StartTrial
    page_url: str
    allowed_profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReleaseSession:
    """
    What every step of one release needs.

    `outputs`: by both signatures. `attempt`: how often this version is tried now, counted from 1. `candidate_stage`: the one it had when
    it was opened. `opened_plane`: what the plane did then; None when nobody looked.
    """

    services: Services
    release: Release
    loaded: LoadedProfile
    candidate_directory: Path
    incumbent_directory: Path
    outputs: PairedOutputs
    attempt: int = 1
    candidate_stage: str = WATCHED_STAGE
    opened_plane: PlaneState | None = None

    @property
    def profile(self) -> ReleaseProfile:
        """The policy of this release, fixed when it was opened."""
        return self.loaded.profile

    def record(self, kind: str, **payload: object) -> None:
        """Append one evidence record; it is durable when this returns."""
        self.services.evidence.append(self.release.release_id, kind, payload)

    def hold_plane(self) -> None:
        """Keep the reservation while no traffic is at risk."""
        self.services.traffic.renew(lease_seconds=GATES_LEASE_SECONDS, token=self.release.token)


def open_session(services: Services, loaded: LoadedProfile, *, model_name: str, version: str, attempt: int = 1) -> ReleaseSession:
    """
    Pin the candidate by digest, reserve the plane for its release, and claim the model in the registry with the plane's token.

    Raises:
        ArtifactError: the candidate's files cannot be used, or what it answers cannot be compared with what the incumbent answers.
        ServiceRefused: no such model or version, no incumbent, one whose signature cannot be read, or the candidate is the incumbent.
        PolicyError: this plane does not allow the profile, its numbers cannot be judged by, or its comparator does not fit the incumbent.
        ConcurrencyError: another release has held the plane for longer than a dead one could, or a newer one has claimed the model.
    """
    if loaded.profile.name not in services.allowed_profiles:
        allowed = ", ".join(services.allowed_profiles)
        raise PolicyError(
            f"this plane releases under {allowed}, not under {loaded.profile.name}: another profile is a matter of `interlock up`"
        )
    judge_policy(loaded.profile)
    stage = services.registry.read_version(model_name, version).stage
    candidate, candidate_directory = services.files.fetch(model_name, version)
    plane = services.traffic.observe()
    if (incumbent_state := plane.incumbent) is None:
        raise ServiceRefused("the plane has no incumbent to compare with: adopt the version that serves today with `interlock adopt`")
    incumbent = incumbent_state.version
    if incumbent.name != model_name:
        raise ServiceRefused(f"this plane serves {incumbent.name}, not {model_name}: release {model_name} on its own plane")
    if incumbent.version == version:
        raise ServiceRefused(f"{incumbent.label} is the incumbent already: there is nothing to release")
    outputs = check_pairing(
        loaded.profile.output,
        incumbent=(incumbent, _incumbent_outputs(services, incumbent)),
        candidate=(candidate, services.files.read_outputs(candidate)),
    )
    release_id, incumbent_directory = new_release_id(candidate, services.clock.utc_now()), services.files.directory(incumbent)
    token = _reserve(services, release_id, model_name)  # nothing may fail behind it: nobody else would give the plane back
    release = Release(release_id, candidate, incumbent, loaded.profile.name, loaded.digest, token)
    return ReleaseSession(services, release, loaded, candidate_directory, incumbent_directory, outputs, attempt, stage, plane)


def _incumbent_outputs(services: Services, incumbent: ModelVersion) -> Outputs:
    """What the incumbent answers. An incumbent that does not say is no fault of the candidate, and must not archive it."""
    try:
        return services.files.read_outputs(incumbent)
    except ArtifactError as error:
        raise ServiceRefused(f"the incumbent cannot be compared with: {error}; adopt a version with a signature") from error


def _reserve(services: Services, release_id: str, model_name: str) -> int:
    """The plane's token, which the registry has accepted too. A claim that fails gives the plane back."""
    token = _begin(services, release_id, above=services.registry.read_token(model_name))
    try:
        services.registry.claim(model_name, token=token)
    except BaseException:
        services.traffic.end(token=token)
        raise
    return token


def _begin(services: Services, release_id: str, *, above: int) -> int:
    """The plane's token, waiting as long as a release that died could still hold the plane."""
    deadline = services.clock.monotonic() + GATES_LEASE_SECONDS + 10
    while True:
        try:
            return services.traffic.begin(release_id, lease_seconds=GATES_LEASE_SECONDS, above=above)
        except ConcurrencyError:
            if services.clock.monotonic() > deadline:
                raise
        services.clock.sleep(POLL_SECONDS)


def new_release_id(candidate: ModelVersion, at: datetime) -> str:
    """A readable id: model, version, UTC microsecond."""
    return f"{in_file_name(candidate.name)}-{candidate.version}-{at:%Y%m%dT%H%M%S%f}"


def in_file_name(model_name: str) -> str:
    """The model's name as it stands in release ids, which are file names too; any name gives one."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in model_name).lstrip("-_")[:100] or "model"


def load_candidate(session: ReleaseSession) -> float:
    """
    Start the candidate's server and wait until it answers; returns the seconds that took.

    Raises:
        ArtifactError: its server ended by itself; carries its last words.
        ServiceUnavailable: it was not ready within the profile's start deadline.
    """
    services, serving, started = session.services, session.profile.serving, session.services.clock.monotonic()
    candidate = session.release.candidate
    services.traffic.load_candidate(
        candidate,
        server=serving.server,
        thread_count=serving.thread_count,
        limits=session.profile.limits.for_plane(),
        token=session.release.token,
    )
    while True:
        state = services.traffic.observe().candidate
        elapsed_seconds = services.clock.monotonic() - started
        if state is not None and state.ready:
            session.record("loaded", candidate=candidate.label, digest=candidate.digest, start_seconds=round(elapsed_seconds, 2))
            return elapsed_seconds
        if (failure := services.traffic.candidate_failure()) is not None:
            raise ArtifactError(failure)
        if elapsed_seconds > serving.start_deadline_seconds:
            raise ServiceUnavailable(
                f"the candidate's server was not ready after {elapsed_seconds:.0f} s (limit {serving.start_deadline_seconds:g} s)"
            )
        session.hold_plane()
        services.clock.sleep(POLL_SECONDS)
