"""Moves of the traffic plane: reserve it, start the candidate, promote, finalise, restore."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from interlock.control.analysis import Analysis
from interlock.control.closing import close_session
from interlock.control.intake import attempt_of, is_asked_by_intake
from interlock.control.pairing import pairing_values
from interlock.control.plane_rollback import roll_back_plane
from interlock.control.records import receipt_values
from interlock.control.releases import resumed_release
from interlock.control.rollback import restore_traffic, roll_back
from interlock.control.session import WATCHED_STAGE, ReleaseSession, load_candidate, open_session
from interlock.control.traffic import finalise_promotion
from interlock.control.unchanged import require_unchanged
from interlock.errors import ArtifactError, ConcurrencyError, Tampered
from interlock.model.plane import RollbackReceipt
from interlock.plan.phases import Phase
from interlock.profile.reader import LoadedProfile
from interlock.wiring import open_services, this_process
from tasks.evidence import publish_report
from tasks.policy import is_unavailable

__all__ = [
    "ReleaseSession",
    "finalise",
    "incumbent_kept",
    "open_release",
    "promote",
    "restore",
    "restore_plane",
    "start_candidate",
    "withdrawn",
]


@task(name="look at the stage", cache_policy=NO_CACHE, retries=4, retry_delay_seconds=[2, 5, 15, 30], retry_condition_fn=is_unavailable)
def withdrawn(model_name: str, version: str) -> str | None:
    """Why nothing is to be released: research has taken the version back while its run waited. A person's run asks for no stage."""
    if not is_asked_by_intake(_idempotency_key(), model_name, version):
        return None
    stage = open_services().registry.read_version(model_name, version).stage
    if stage == WATCHED_STAGE:
        return None
    return f"{model_name}/{version} is in stage {stage}, not in {WATCHED_STAGE} any more: nothing was released; move it back to release it"


@task(name="open release", cache_policy=NO_CACHE, retries=4, retry_delay_seconds=[2, 5, 15, 30], retry_condition_fn=is_unavailable)
def open_release(model_name: str, version: str, loaded: LoadedProfile) -> ReleaseSession:
    """Pin the candidate by digest, reserve the plane, claim the model, and write the first evidence record."""
    session = open_session(open_services(), loaded, model_name=model_name, version=version, attempt=attempt_of(_idempotency_key()))
    try:
        _record_intake(session)
    except BaseException:
        session.services.traffic.end(token=session.release.token)  # else the plane stays reserved until the lease is over
        raise
    return session


def _idempotency_key() -> str:
    """What the intake asked for this run with; it counts the attempts. Empty for a run that a person has started."""
    context = FlowRunContext.get()
    return str((context and context.flow_run and context.flow_run.idempotency_key) or "")


def _record_intake(session: ReleaseSession) -> None:
    """Everything that somebody else needs to end this release when its process cannot."""
    release = session.release
    session.record(
        "intake",
        candidate=release.candidate.label,
        candidate_digest=release.candidate.digest,
        incumbent=release.incumbent.label,
        incumbent_digest=release.incumbent.digest,
        profile_name=release.profile_name,
        profile_digest=release.profile_digest,
        profile_text=session.loaded.text,
        token=release.token,
        stage=session.candidate_stage,
        attempt=session.attempt,
        resumes=resumed_release(session.services.evidence, release.release_id) if session.attempt > 1 else None,
        flow_run_id=str(flow_run.id or ""),
        process=asdict(this_process()),
    )
    session.record("comparator", **pairing_values(session.profile.output, session.outputs))


@contextmanager
def incumbent_kept(session: ReleaseSession) -> Iterator[None]:
    """
    Whatever ends the block by an exception, traffic ends on the incumbent, observed, before the exception goes on.

    A release that has lost the plane touches nothing: whoever took it has restored the incumbent already. A candidate that cannot be used
    is rejected, and one whose files were changed is held; both restore the incumbent as well. After anything else the release ends with
    what its evidence has decided; where that is nothing, the candidate's stage is put back, so that it is tried again. What cannot be
    ended now is ended by the caretaker.
    """
    try:
        yield
    except (ConcurrencyError, ArtifactError, Tampered):
        raise
    except BaseException as error:
        with suppress(ConcurrencyError):  # a newer release has begun: nothing here is ours any more
            _restore_after(error, session)
        raise


def _restore_after(error: BaseException, session: ReleaseSession) -> None:
    services, release, reason = session.services, session.release, f"{type(error).__name__}: {error}"
    state = restore_traffic(services.traffic, services.clock, reason=reason, token=release.token)
    with ExitStack() as whatever_fails:  # last in, first out: capacity and report in any case
        whatever_fails.callback(publish_report, session)
        whatever_fails.callback(services.traffic.end, token=release.token)
        # Who serves is the plane's to say: after a promotion it is the candidate, and the registry must agree with traffic.
        close_session(session, state, how=reason, restore_traffic=lambda: state)


@task(name="start candidate server", cache_policy=NO_CACHE)
def start_candidate(session: ReleaseSession) -> float:
    """The candidate's server, ready and without traffic; returns the seconds it took."""
    return load_candidate(session)


@task(name="promote", cache_policy=NO_CACHE)
def promote(session: ReleaseSession, analysis: Analysis, bake: Phase) -> None:
    """All traffic to the candidate, if its files are still those that were judged; then champion and Production in the registry."""
    require_unchanged(session, before="the promotion")
    analysis.move_to(bake)
    services, release = session.services, session.release
    lease_seconds = session.profile.canary.lease_seconds
    services.traffic.renew(lease_seconds=lease_seconds, token=release.token)  # who has lost the plane must not name a champion
    services.registry.set_champion(release.candidate.name, release.candidate.version, token=release.token)
    services.traffic.renew(lease_seconds=lease_seconds, token=release.token)  # refused: it was lost meanwhile, and `lost` puts that right
    session.record("promoted", champion=release.candidate.version, stage="Production")


@task(name="finalise", cache_policy=NO_CACHE)
def finalise(session: ReleaseSession) -> None:
    """The candidate is the incumbent now; the former one drains and stops."""
    finalise_promotion(session)


@task(name="roll back", cache_policy=NO_CACHE)
def restore(session: ReleaseSession, reason: str) -> RollbackReceipt:
    """Traffic, registry, capacity back on the incumbent, each observed; the receipt goes into the evidence."""
    services, release = session.services, session.release
    receipt = roll_back(
        services.traffic, services.registry, services.clock, reason=reason, candidate=release.candidate, token=release.token
    )
    objective_seconds = session.profile.recovery_time_objective_seconds
    is_within = receipt.steps[0].elapsed_seconds <= objective_seconds
    session.record("rollback", **receipt_values(receipt), objective_seconds=objective_seconds, is_within_objective=is_within)
    return receipt


@task(name="roll back the plane", cache_policy=NO_CACHE)
def restore_plane(reason: str) -> RollbackReceipt:
    """The same for whatever the plane does now, with or without a release."""
    return roll_back_plane(open_services(), reason=reason)
