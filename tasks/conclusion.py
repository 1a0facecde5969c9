"""How a release ends: the decision in traffic, registry, evidence and the Prefect state, in that order. One ending each."""

from contextlib import suppress
from functools import cache

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from interlock.control.closing import close_session, follow_traffic
from interlock.control.ending import DECISION, Record, ending_of, record_ending
from interlock.control.intake import CHAMPION, WITHDRAWN, tag_ending
from interlock.control.resume import ARCHIVED, CONCLUDED, is_nobodys_decision, stage_after_failure
from interlock.control.rollback import restore_traffic
from interlock.control.session import ReleaseSession, new_release_id
from interlock.errors import ConcurrencyError, ReleaseError
from interlock.model.plane import PlaneState
from interlock.model.release import Decision, ModelVersion
from interlock.wiring import open_services, write_report
from tasks.evidence import publish_chart, publish_decision, publish_report, publish_signals, show
from tasks.publishing import await_published
from tasks.traffic import restore

ENDED_ELSEWHERE_SECONDS = 3.0  # whoever saw the lease run out is ending this release now


def conclude(session: ReleaseSession, decision: Decision, reason: str) -> State[str]:
    """Bring traffic and registry to where the decision wants them, observed; record it; and say it as a Prefect state."""
    if decision is not Decision.PROMOTED:
        with suppress(ReleaseError):  # it is for whoever ends this release if we cannot; a rollback does not wait for a disk
            session.record(CONCLUDED, decision=decision.value, reason=reason)
        try:
            restore(session, reason)
        except ConcurrencyError as error:
            return lost(session, f"{error}; before that: {reason}")
    return _note(session, decision, reason)


def lost(session: ReleaseSession, reason: str) -> State[str]:
    """
    The plane was taken from this release: traffic is not ours to touch; the registry is, while nobody else holds the plane.

    Whoever took the plane may have ended the release meanwhile; then that ending stands. What this release did to the registry after
    it had lost the plane unknowingly is put right in any case, unless a newer one has claimed it. A lease that ran out decides nothing;
    what the evidence had decided before is the decision.
    """
    services, release = session.services, session.release
    state = services.traffic.observe()
    otherwise = None if is_nobodys_decision(state.last_restore_reason) else Decision.ROLLED_BACK
    if state.release_id == release.release_id:  # it was the registry that refused: whoever claimed the model has another plane
        state = restore_traffic(services.traffic, services.clock, reason=reason, token=release.token)
        otherwise = None
    if (ending := _ended_elsewhere(session)) is not None:
        with suppress(ConcurrencyError):  # a newer release has begun: what it has is left alone
            if (free := _free_plane(session, reason)) is not None:
                stage = ARCHIVED if ending["kind"] == DECISION else stage_after_failure(session.candidate_stage)
                follow_traffic(session, free, candidate_stage=stage)
        return _state_of(ending)
    ending = close_session(session, state, how=reason, restore_traffic=lambda: _free_plane(session, reason), otherwise=otherwise)
    if ending["kind"] == DECISION:
        return _note(session, Decision(str(ending["decision"])), str(ending["reason"]))
    publish_report(session)
    return _state_of(ending)


def _free_plane(session: ReleaseSession, reason: str) -> PlaneState | None:
    """The plane, everything on the incumbent; None while somebody holds it: then it is not ours, and neither is the registry."""
    services = session.services
    state = services.traffic.observe()
    if state.release_id is not None:
        return None
    if state.candidate_weight_bps > 0:  # nobody holds the plane: nobody may have a share
        state = restore_traffic(services.traffic, services.clock, reason=reason, token=session.release.token)
    return state


def _ended_elsewhere(session: ReleaseSession) -> Record | None:
    """The ending that somebody else wrote for this release, waiting a moment for it while nobody holds the plane."""
    services, release_id = session.services, session.release.release_id
    deadline = services.clock.monotonic() + ENDED_ELSEWHERE_SECONDS
    while (ending := ending_of(services.evidence.read(release_id))) is None and services.clock.monotonic() < deadline:
        services.clock.sleep(0.2)
    return ending


def rejected_at_intake(model_name: str, version: str, reason: str) -> State[str]:
    """
    The candidate could not even be opened: nothing has moved; research finds the reason in the registry.

    Registry first, the record last: what is cut between them is a run without a release, and tried again.
    """
    services = open_services()
    release_id = new_release_id(ModelVersion(model_name, version, "unknown"), services.clock.utc_now())
    registry, token = services.registry, services.registry.read_token(model_name)
    registry.set_tags(model_name, version, tag_ending(Decision.REJECTED.value, reason, release_id), token=token)
    if CHAMPION not in registry.read_version(model_name, version).aliases:  # who serves stays where it is, whatever its files are like
        registry.set_stage(model_name, version, ARCHIVED, token=token)
    opened = {"candidate": f"{model_name}/{version}", "flow_run_id": str(flow_run.id or "")}
    services.evidence.append(release_id, "intake", opened)
    services.evidence.append(release_id, DECISION, {"decision": Decision.REJECTED.value, "reason": reason})
    show("the report", lambda: write_report(release_id, services.evidence.read(release_id)))
    return Completed(name=Decision.REJECTED.value, message=reason, data=Decision.REJECTED.value)


def released_nothing(reason: str) -> State[str]:
    """The version was taken back before its release began; put into the watched stage again, it is asked for again."""
    return Cancelled(name=WITHDRAWN, message=reason)


def failed(error: ReleaseError, session: ReleaseSession | None = None) -> State[str]:
    """The control plane could not do its job; the incumbent serves. What the release had decided before stands, and is its state."""
    get_run_logger().error("%s: %s", type(error).__name__, error)
    if session is not None:
        with suppress(ReleaseError):
            ending = ending_of(session.services.evidence.read(session.release.release_id))
            if ending is not None and ending["kind"] == DECISION:
                return _state_of(ending)
    return Failed(message=str(error))


def _note(session: ReleaseSession, decision: Decision, reason: str) -> State[str]:
    """Record the decision, show it, and say it as a Prefect state; all of that as it stands in the evidence."""
    services, candidate, release = session.services, session.release.candidate, session.release
    ending = record_ending(services.evidence, release.release_id, DECISION, {"decision": decision.value, "reason": reason})
    if ending.get("decision") != decision.value:  # somebody was quicker
        return _state_of(ending)
    try:
        tags = tag_ending(decision.value, reason, release.release_id)
        services.registry.set_tags(candidate.name, candidate.version, tags, token=release.token)
    except ReleaseError as error:  # a tag is for people; the decision stands without it
        get_run_logger().warning("the decision could not be tagged in the registry: %s", error)
    records = cache(lambda: services.evidence.read(release.release_id))  # read and parsed once, by whoever asks first
    show("the report", lambda: write_report(release.release_id, records()))
    show("the signals", lambda: publish_signals(session, records()))
    show("the e-values", lambda: publish_chart(session, records()))
    show("the decision", lambda: publish_decision(session, decision, reason))
    await_published()
    return _state_of(ending)


def _state_of(ending: Record) -> State[str]:
    """The Prefect state that says the same as the evidence."""
    reason = str(ending["reason"])
    if ending["kind"] != DECISION:
        return Failed(message=reason)
    return Completed(name=str(ending["decision"]), message=reason, data=str(ending["decision"]))
