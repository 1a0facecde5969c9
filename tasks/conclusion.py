"""How a release ends: the decision in traffic, registry, evidence and the Prefect state, in that order."""

from functools import cache

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from interlock.control.rollback import restore_registry, restore_traffic
from interlock.control.session import ReleaseSession, new_release_id
from interlock.errors import ReleaseError, ServiceError
from interlock.model.release import Decision, ModelVersion
from interlock.wiring import open_services, write_report
from tasks.evidence import publish_chart, publish_decision, publish_signals, show
from tasks.traffic import restore


def conclude(session: ReleaseSession, decision: Decision, reason: str) -> State[str]:
    """Bring traffic and registry to where the decision wants them, observed; record it; and say it as a Prefect state."""
    if decision is not Decision.PROMOTED:
        restore(session, reason)
    _note(session, decision, reason)
    return Completed(name=decision.value, message=reason, data=decision.value)


def lost(session: ReleaseSession, reason: str) -> State[str]:
    """The plane was taken from this release: traffic is not ours to touch; the registry is, while nobody else holds the plane."""
    services, release = session.services, session.release
    state = services.traffic.observe()
    if state.release_id is None and state.candidate_weight_bps > 0:
        state = restore_traffic(services.traffic, services.clock, reason=reason)  # nobody holds the plane: nobody may have a share
    if state.release_id is None and state.incumbent is not None:
        restore_registry(services.registry, services.clock, incumbent=state.incumbent.version, candidate=release.candidate)
    _note(session, Decision.ROLLED_BACK, reason)
    return Completed(name=Decision.ROLLED_BACK.value, message=reason, data=Decision.ROLLED_BACK.value)


def rejected_at_intake(model_name: str, version: str, reason: str) -> State[str]:
    """The candidate could not even be opened: nothing has moved; research finds the reason in the registry."""
    services = open_services()
    release_id = new_release_id(ModelVersion(model_name, version, "unknown"), services.clock.utc_now())
    services.evidence.append(release_id, "intake", {"candidate": f"{model_name}/{version}"})
    services.evidence.append(release_id, "decision", {"decision": Decision.REJECTED.value, "reason": reason})
    services.registry.set_tags(model_name, version, _tags(Decision.REJECTED, reason, release_id))
    services.registry.set_stage(model_name, version, "Archived")
    show("the report", lambda: write_report(release_id, services.evidence.read(release_id)))
    return Completed(name=Decision.REJECTED.value, message=reason, data=Decision.REJECTED.value)


def failed(error: ReleaseError) -> State[str]:
    """The control plane could not do its job; the incumbent serves."""
    get_run_logger().error("%s: %s", type(error).__name__, error)
    return Failed(message=str(error))


def _note(session: ReleaseSession, decision: Decision, reason: str) -> None:
    candidate = session.release.candidate
    session.record("decision", decision=decision.value, reason=reason)
    try:
        session.services.registry.set_tags(candidate.name, candidate.version, _tags(decision, reason, session.release.release_id))
    except ServiceError as error:  # a tag is for people; the decision stands without it
        get_run_logger().warning("the decision could not be tagged in the registry: %s", error)
    release_id = session.release.release_id
    records = cache(lambda: session.services.evidence.read(release_id))  # read and parsed once, by whoever asks first
    show("the signals", lambda: publish_signals(session, records()))
    show("the e-values", lambda: publish_chart(session, records()))
    show("the report", lambda: write_report(release_id, records()))
    show("the decision", lambda: publish_decision(session, decision, reason))


def _tags(decision: Decision, reason: str, release_id: str) -> dict[str, str]:
    return {"interlock.decision": decision.value, "interlock.reason": reason[:500], "interlock.release": release_id}
