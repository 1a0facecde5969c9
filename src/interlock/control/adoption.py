"""The first incumbent: the version that serves already is taken over once, in the open."""

from interlock.control.session import POLL_SECONDS, Services
from interlock.errors import ArtifactError, ServiceUnavailable
from interlock.model.release import ModelVersion

START_SECONDS = 120.0
PROBE_COUNT = 5


def adopt_incumbent(services: Services, name: str, version: str, *, server: str, thread_count: int) -> ModelVersion:
    """
    Serve this version as the first incumbent, and say so in the registry; returns after it was seen to answer. Idempotent.

    Raises:
        ServiceRefused: the plane has an incumbent already, or there is no such version.
        ArtifactError: its files cannot be used, or its server ended by itself.
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
    services.registry.set_champion(name, version)
    services.evidence.append(f"adoption-{name}-{version}", "adoption", {"incumbent": adopted.label, "digest": adopted.digest})
    return adopted


def _is_ready(services: Services) -> bool:
    state = services.traffic.observe().incumbent
    return state is not None and state.ready
