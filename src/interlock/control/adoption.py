"""The first incumbent: the version that serves already is taken over once, in the open."""

from interlock.control.session import POLL_SECONDS, Services, in_file_name
from interlock.errors import ArtifactError, ServiceUnavailable
from interlock.model.release import ModelVersion

START_SECONDS = 120.0
ADOPTION_LEASE_SECONDS = 30.0
PROBE_COUNT = 5


def adopt_incumbent(services: Services, name: str, version: str, *, server: str, thread_count: int) -> ModelVersion:
    """
    Serve this version as the first incumbent, and say so in the registry; returns after it was seen to answer. Idempotent.

    It holds the plane for that moment, with a token of its own that is above every one the registry has seen: a plane that has lost its
    memory gives out larger tokens again from here on.

    Raises:
        ServiceRefused: the plane has an incumbent already, or there is no such version.
        ArtifactError: its files cannot be used, or its server ended by itself.
        ConcurrencyError: a release holds the plane.
        ServiceUnavailable: it did not answer within 120 s.
    """
    services.registry.read_version(name, version)
    adopted, _ = services.files.fetch(name, version)
    services.traffic.adopt(adopted, server=server, thread_count=thread_count)
    started = services.clock.monotonic()
    while services.traffic.probe(PROBE_COUNT).get(adopted.label, 0) < PROBE_COUNT or not _is_ready(services):
        if services.clock.monotonic() - started > START_SECONDS:
            raise ServiceUnavailable(f"{adopted.label} did not answer on the live listener within {START_SECONDS:g} s")
        if (state := services.traffic.observe().incumbent) is not None and state.restart_count > 2:
            raise ArtifactError(f"the model server of {adopted.label} ends again and again: see its log in the state directory")
        services.clock.sleep(POLL_SECONDS)
    _say_in_registry(services, name, version)
    services.evidence.append(f"adoption-{in_file_name(name)}-{version}", "adoption", {"incumbent": adopted.label, "digest": adopted.digest})
    return adopted


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
