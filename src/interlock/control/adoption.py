"""The first incumbent: one version is taken over once, in the open, after it has passed the gates of a first version."""

from collections.abc import Sequence
from dataclasses import dataclass

from interlock.control.bootstrap import FirstVersion, judge_first_version
from interlock.control.session import POLL_SECONDS, Services
from interlock.errors import ArtifactError, ConcurrencyError, PolicyError, ServiceRefused, ServiceUnavailable
from interlock.model.plane import PlaneState
from interlock.model.release import ModelVersion
from interlock.model.verdict import Outcome, Verdict
from interlock.profile.reader import LoadedProfile

START_SECONDS = 120.0
ADOPTION_LEASE_SECONDS = 30.0
PROBE_COUNT = 5


@dataclass(frozen=True, slots=True)
class Adoption:
    """What came of it: the version, and every gate's verdict. Without a PASS of all of them nothing was adopted."""

    version: ModelVersion
    verdicts: tuple[Verdict, ...]

    @property
    def is_adopted(self) -> bool:
        """Whether every gate has passed; one that nobody ran has not."""
        return is_passed(self.verdicts)


def is_passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether there are verdicts, and all of them are PASS."""
    return bool(verdicts) and all(verdict.outcome is Outcome.PASS for verdict in verdicts)


def adopt_incumbent(services: Services, loaded: LoadedProfile, name: str, version: str, *, server: str, thread_count: int) -> Adoption:
    """
    Judge this version as a first one, and if all gates pass serve it as the first incumbent, and say so in the registry. Idempotent.

    Returns after it was seen to answer; when a gate did not pass, with nothing adopted. The evidence has the verdicts either way.

    It holds the plane for the moment of adoption, with a token of its own that is above every one the registry has seen: a plane that has
    lost its memory gives out larger tokens again from here on.

    Raises:
        PolicyError: the profile is not the first that the plane was started with.
        ServiceRefused: the plane has an incumbent already, or there is no such version.
        ArtifactError: its files cannot be used, or its server ended by itself.
        ConcurrencyError: a release holds the plane.
        ServiceUnavailable: it did not answer within 120 s.
    """
    if loaded.profile.name != services.allowed_profiles[0]:
        raise PolicyError(
            f"a first version is judged under {services.allowed_profiles[0]}, the plane's own, not under {loaded.profile.name}"
        )
    services.registry.read_version(name, version)
    adopted, directory = services.files.fetch(name, version)
    _require_room(services.traffic.observe(), adopted)
    first = FirstVersion(services, loaded, adopted, directory, server, thread_count)
    first.record(
        "bootstrap",
        candidate=adopted.label,
        candidate_digest=adopted.digest,
        profile_name=loaded.profile.name,
        profile_digest=loaded.digest,
    )
    verdicts = tuple(judge_first_version(first))
    if not is_passed(verdicts):
        first.record("refused", reason="; ".join(verdict.reason for verdict in verdicts if verdict.outcome is not Outcome.PASS))
        return Adoption(adopted, verdicts)
    _serve(services, adopted, server=server, thread_count=thread_count)
    _say_in_registry(services, name, version)
    first.record("adoption", incumbent=adopted.label, digest=adopted.digest)
    return Adoption(adopted, verdicts)


def _require_room(plane: PlaneState, adopted: ModelVersion) -> None:
    """What the plane would refuse in the end is refused before the gates take their time. An incumbent that never answered gives way."""
    if plane.release_id is not None:
        raise ConcurrencyError(f"release {plane.release_id} holds the traffic plane: wait until it has ended")
    if plane.incumbent is not None and plane.incumbent.version != adopted and plane.incumbent.ready:
        raise ServiceRefused(f"{plane.incumbent.version.label} is the incumbent: later versions come to traffic by a release only")


def _serve(services: Services, adopted: ModelVersion, *, server: str, thread_count: int) -> None:
    """The plane serves it, seen on the live listener."""
    services.traffic.adopt(adopted, server=server, thread_count=thread_count)
    started = services.clock.monotonic()
    while services.traffic.probe(PROBE_COUNT).get(adopted.label, 0) < PROBE_COUNT or not _is_ready(services):
        if services.clock.monotonic() - started > START_SECONDS:
            raise ServiceUnavailable(f"{adopted.label} did not answer on the live listener within {START_SECONDS:g} s")
        if (state := services.traffic.observe().incumbent) is not None and state.restart_count > 2:
            raise ArtifactError(f"the model server of {adopted.label} ends again and again: see its log in the state directory")
        services.clock.sleep(POLL_SECONDS)


def _say_in_registry(services: Services, name: str, version: str) -> None:
    registry, traffic = services.registry, services.traffic
    token = _reserve(services, version, above=registry.read_token(name))
    try:
        registry.claim(name, token=token)
        registry.set_champion(name, version, token=token)
    finally:
        traffic.end(token=token)


def _reserve(services: Services, version: str, *, above: int) -> int:
    """The plane's token, as soon as the plane would give one to a release: it may still be warming up."""
    started = services.clock.monotonic()
    while True:
        try:
            return services.traffic.begin(f"adoption-{version}", lease_seconds=ADOPTION_LEASE_SECONDS, above=above)
        except ServiceUnavailable:
            if services.clock.monotonic() - started > START_SECONDS:
                raise
        services.clock.sleep(POLL_SECONDS)


def _is_ready(services: Services) -> bool:
    state = services.traffic.observe().incumbent
    return state is not None and state.ready
