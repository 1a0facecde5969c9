"""The release: candidate -> gates -> shadow -> canary -> promote -> bake -> finalise, or rollback."""

from prefect import flow
from prefect.client.schemas.objects import State

from interlock.errors import ArtifactError, ConcurrencyError, ReleaseError, Tampered
from interlock.model.release import Decision
from interlock.model.verdict import Outcome, worst
from tasks.analysis import HALTED, PASSED, decision_of, final_look, open_analysis, plan, plan_last, watch, watch_bake
from tasks.artifact import artifact_gate
from tasks.conclusion import conclude, failed, lost, rejected_at_intake, released_nothing
from tasks.disagreement import disagreement_gate
from tasks.drift import drift_gate
from tasks.evaluation import evaluation_gate
from tasks.evidence import publish_gates
from tasks.feasibility import traffic_gate
from tasks.latency import latency_gate
from tasks.liveness import liveness_gate
from tasks.memory import memory_gate
from tasks.parity import parity_gate
from tasks.policy import read_policy
from tasks.readiness import readiness_gate
from tasks.traffic import ReleaseSession, finalise, incumbent_kept, open_release, promote, start_candidate, withdrawn


@flow(name="release", flow_run_name="release {model_name}/{version} under {profile_name}", timeout_seconds=48 * 3600)
def release(model_name: str, version: str, profile_name: str) -> State[str]:
    """
    Bring one model version to all traffic, or leave the incumbent where it was.

    Ends as Promoted, Held, Rejected or RolledBack. Nothing can be skipped, forced or loosened here: policy is the release profile.

    Args:
        model_name: registered model in MLflow.
        version: its version, as MLflow numbers it.
        profile_name: a file in profiles/, without its ending.
    """
    try:
        if (reason := withdrawn(model_name, version)) is not None:
            return released_nothing(reason)
        session = open_release(model_name, version, read_policy(profile_name))
    except ArtifactError as error:
        return rejected_at_intake(model_name, version, str(error))
    except ReleaseError as error:
        return failed(error)
    try:
        with incumbent_kept(session):
            return _bring_to_traffic(session)
    except Tampered as error:
        return conclude(session, Decision.HELD, str(error))
    except ArtifactError as error:
        return conclude(session, Decision.REJECTED, str(error))
    except ConcurrencyError as error:
        return lost(session, str(error))
    except ReleaseError as error:
        return failed(error, session)


def _bring_to_traffic(session: ReleaseSession) -> State[str]:
    verdicts = [artifact_gate(session), liveness_gate(session)]
    if verdicts[0].outcome is Outcome.PASS:  # else nothing of these files is loaded anywhere
        start_candidate(session)
        served = (evaluation_gate, parity_gate, latency_gate, memory_gate, disagreement_gate, drift_gate)
        verdicts += [gate(session) for gate in served]
    verdicts += [readiness_gate(session), traffic_gate(session)]  # last: they see what the load has done to the incumbent
    publish_gates(session, verdicts)
    if (verdict := worst(verdicts)).outcome is not Outcome.PASS:
        return conclude(session, Decision.REJECTED if verdict.outcome is Outcome.FAIL else Decision.HELD, verdict.reason)

    analysis = open_analysis(session)
    for phase in plan(session):
        judgement = watch(session, analysis, phase)
        if judgement.outcome == HALTED:
            return conclude(session, decision_of(judgement), judgement.reason)
    proof = final_look(session, analysis)
    if proof.outcome != PASSED:
        return conclude(session, decision_of(proof), proof.reason)

    bake = plan_last(session)
    promote(session, analysis, bake)
    judgement = watch_bake(session, analysis, bake)
    if judgement.outcome == HALTED:
        return conclude(session, decision_of(judgement), judgement.reason)
    finalise(session)
    return conclude(session, Decision.PROMOTED, f"{proof.reason}; and nothing worse in the bake")
