"""
Carrying out how a release ends: registry, tags, and last the record, which says that the rest is done.

For the release's own process and for whoever comes after it: both end it by the same rule (`resume.plan_ending`), in the same order.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace

from interlock.control.ending import DECISION, FAILED, Record, record_ending
from interlock.control.intake import tag_ending
from interlock.control.resume import ARCHIVED, Opened, Plan, plan_ending
from interlock.control.rollback import restore_registry
from interlock.control.session import ReleaseSession
from interlock.errors import ConcurrencyError, ReleaseError
from interlock.model.plane import PlaneState
from interlock.model.release import Decision
from interlock.ports import EvidenceStore, Registry


def close_release(registry: Registry, evidence: EvidenceStore, plan: Plan, *, opened: Opened, put_back: Callable[[], object]) -> Record:
    """
    Traffic and registry where the plan wants them (`put_back`), the tags, then the ending; returns the ending that stands.

    Idempotent. What a newer release holds refuses `put_back`, and the ending says so.

    Raises:
        ReleaseError: traffic or registry could not be brought in line: nothing is recorded, and whoever comes next finishes it.
    """
    reason = plan.reason
    try:
        put_back()
    except ConcurrencyError as error:
        reason = f"{reason}; what a newer release holds was left alone ({error})"
    name = plan.decision.value if plan.decision else "Failed"
    if plan.decision or plan.candidate_stage == ARCHIVED:
        candidate = opened.candidate
        with contextlib.suppress(ReleaseError):  # for people; the ending stands without it
            registry.set_tags(candidate.name, candidate.version, tag_ending(name, reason, opened.release_id), token=opened.token)
    payload = {"reason": reason, "ended_by": plan.ended_by}
    if plan.decision:
        return record_ending(evidence, opened.release_id, DECISION, {"decision": plan.decision.value, **payload})
    return record_ending(evidence, opened.release_id, FAILED, payload)


def close_session(
    session: ReleaseSession,
    plane: PlaneState,
    *,
    how: str,
    restore_traffic: Callable[[], PlaneState | None],
    otherwise: Decision | None = None,
) -> Record:
    """
    The same for a release whose process lives, from its evidence and the plane as it was observed last; returns the ending that stands.

    Args:
        how: what keeps it from ending as it should.
        restore_traffic: the plane with everything on the incumbent; None when somebody else holds it, who has the registry then too.
        otherwise: the decision when the evidence has none; without it, the release failed.
    """
    services, release = session.services, session.release
    opened = Opened(release.release_id, release.candidate, release.token, session.candidate_stage, session.attempt, "", None)
    plan = replace(plan_ending(opened, services.evidence.read(release.release_id), plane, how=how), ended_by="the release")
    if plan.decision is None and otherwise is not None:
        plan = replace(plan, decision=otherwise, reason=how, candidate_stage=ARCHIVED)

    def put_back() -> None:
        if (state := restore_traffic()) is not None:
            follow_traffic(session, state, candidate_stage=plan.candidate_stage)

    return close_release(services.registry, services.evidence, plan, opened=opened, put_back=put_back)


def follow_traffic(session: ReleaseSession, plane: PlaneState, *, candidate_stage: str) -> None:
    """The registry in line with who serves; after a promotion that is the candidate."""
    services, release = session.services, session.release
    if plane.incumbent is not None:
        restore_registry(
            services.registry,
            services.clock,
            incumbent=plane.incumbent.version,
            candidate=release.candidate,
            token=release.token,
            candidate_stage=candidate_stage,
        )
