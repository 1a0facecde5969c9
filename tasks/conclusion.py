"""How a release ends: the decision in traffic, registry, evidence and the Prefect state, in that order. One ending each."""

from contextlib import suppress
from functools import cache

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from interlock.control.ending import DECISION, FAILED, Record, ending_of, record_ending
from interlock.control.intake import tag_ending
from interlock.control.resume import ARCHIVED, is_nobodys_decision, stage_after_failure
from interlock.control.rollback import restore_registry, restore_traffic
from interlock.control.session import ReleaseSession, new_release_id
from interlock.errors import ConcurrencyError, ReleaseError
from interlock.model.release import Decision, ModelVersion
from interlock.wiring import open_services, write_report
from tasks.evidence import publish_chart, publish_decision, publish_report, publish_signals, show
from tasks.publishing import await_published
from tasks.traffic import restore

ENDED_ELSEWHERE_SECONDS = 3.0  # whoever saw the lease run out is ending this release now


def conclude(session: ReleaseSession, decision: Decision, reason: str) -> State[str]:
    """Bring traffic and registry to where the decision wants them, observed; record it; and say it as a Prefect state."""
    if decision is not Decision.PROMOTED:
        try:
            restore(session, reason)
        except ConcurrencyError as error:
            return lost(session, f"{error}; before that: {reason}")
    return _note(session, decision, reason)


def lost(session: ReleaseSession, reason: str) -> State[str]:
    """
    The plane was taken from this release: traffic is not ours to touch; the registry is, while nobody else holds the plane.

    Whoever took the plane may have ended the release meanwhile; then that ending stands. What this release did to the registry after
    it had lost the plane unknowingly is put right in any case, unless a newer one has claimed it. A lease that ran out decides nothing.
    """
    services, release = session.services, session.release
    state = services.traffic.observe()
    is_undecided = is_nobodys_decision(state.last_restore_reason)
    if state.release_id == release.release_id:  # it was the registry that refused: whoever claimed the model has another plane
        restore_traffic(services.traffic, services.clock, reason=reason, token=release.token)
        is_undecided = True
    ending = _ended_elsewhere(session)
    stage = session.candidate_stage if ending else ARCHIVED
    if is_undecided:
        stage = stage_after_failure(stage=session.candidate_stage, attempt=session.attempt)
    with suppress(ConcurrencyError):  # a newer release has begun: what it has is left alone
        _follow_traffic(session, reason, candidate_stage=stage)
    if ending is None and is_undecided:
        ending = record_ending(services.evidence, release.release_id, FAILED, {"reason": reason})
        publish_report(session)
    return _state_of(ending) if ending else _note(session, Decision.ROLLED_BACK, reason)


def _follow_traffic(session: ReleaseSession, reason: str, *, candidate_stage: str) -> None:
    services, release = session.services, session.release
    state = services.traffic.observe()
    if state.release_id is not None:
        return
    if state.candidate_weight_bps > 0:  # nobody holds the plane: nobody may have a share
        state = restore_traffic(services.traffic, services.clock, reason=reason, token=release.token)
    if state.incumbent is not None:
        restore_registry(
            services.registry,
            services.clock,
            incumbent=state.incumbent.version,
            candidate=release.candidate,
            token=release.token,
            candidate_stage=candidate_stage,
        )


def _ended_elsewhere(session: ReleaseSession) -> Record | None:
    """The ending that somebody else wrote for this release, waiting a moment for it while nobody holds the plane."""
    services, release_id = session.services, session.release.release_id
    deadline = services.clock.monotonic() + ENDED_ELSEWHERE_SECONDS
    while (ending := ending_of(services.evidence.read(release_id))) is None and services.clock.monotonic() < deadline:
        services.clock.sleep(0.2)
    return ending


def rejected_at_intake(model_name: str, version: str, reason: str) -> State[str]:
    """The candidate could not even be opened: nothing has moved; research finds the reason in the registry."""
    services = open_services()
    release_id = new_release_id(ModelVersion(model_name, version, "unknown"), services.clock.utc_now())
    opened = {"candidate": f"{model_name}/{version}", "flow_run_id": str(flow_run.id or "")}
    services.evidence.append(release_id, "intake", opened)
    services.evidence.append(release_id, DECISION, {"decision": Decision.REJECTED.value, "reason": reason})
    token = services.traffic.observe().token
    services.registry.set_tags(model_name, version, tag_ending(Decision.REJECTED.value, reason, release_id), token=token)
    services.registry.set_stage(model_name, version, ARCHIVED, token=token)
    show("the report", lambda: write_report(release_id, services.evidence.read(release_id)))
    return Completed(name=Decision.REJECTED.value, message=reason, data=Decision.REJECTED.value)


def failed(error: ReleaseError) -> State[str]:
    """The control plane could not do its job; the incumbent serves."""
    get_run_logger().error("%s: %s", type(error).__name__, error)
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
