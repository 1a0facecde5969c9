"""The judge at work: phases of mirrored and live traffic, and the final look."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.analysis import Analysis
from interlock.control.resume import NO_FAULT
from interlock.control.session import ReleaseSession
from interlock.judge.readings import Judgement, JudgeOutcome
from interlock.model.release import Decision
from interlock.plan.phases import Phase, plan_bake, plan_phases
from tasks.evidence import publish_phase

HALTED, PASSED = JudgeOutcome.HALT, JudgeOutcome.PASS


def decision_of(judgement: Judgement) -> Decision:
    """What a canary that did not pass is: RolledBack when the candidate did something wrong, Held when nothing could be proved of it."""
    is_wrong = judgement.outcome is HALTED and judgement.decided_by not in NO_FAULT
    return Decision.ROLLED_BACK if is_wrong else Decision.HELD


def plan(session: ReleaseSession) -> tuple[Phase, ...]:
    """Shadow and canary steps of this release, in order."""
    return plan_phases(session.profile.canary)


def plan_last(session: ReleaseSession) -> Phase:
    """The bake of this release."""
    return plan_bake(session.profile.canary)


def open_analysis(session: ReleaseSession) -> Analysis:
    """A judge that has seen nothing yet; what the journal held before is not its evidence."""
    return Analysis(session)


@task(name="watch", task_run_name="watch {phase.name}", cache_policy=NO_CACHE)
def watch(session: ReleaseSession, analysis: Analysis, phase: Phase) -> Judgement:
    """Hold the phase's share and judge once a second; a halt has put traffic back before it returns."""
    judgement = analysis.watch(phase)
    publish_phase(session, phase)
    return judgement


@task(name="bake", cache_policy=NO_CACHE)
def watch_bake(session: ReleaseSession, analysis: Analysis, phase: Phase) -> Judgement:
    """The bake, and one pair deadline more, so that no answer of its last seconds goes unjudged."""
    judgement = analysis.watch(phase)
    if judgement.outcome is not HALTED:
        judgement = analysis.settle()
    if judgement.outcome is not HALTED:  # a halt has recorded them
        analysis.record_counts()
    publish_phase(session, phase)
    return judgement


@task(name="final look", cache_policy=NO_CACHE)
def final_look(session: ReleaseSession, analysis: Analysis) -> Judgement:
    """The one look at which the candidate can pass."""
    del session
    return analysis.final_look()
