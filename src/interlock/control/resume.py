"""
What to do with a release that has no ending: pure, from its evidence, what the plane does, and whether its process lives.

Nothing is continued in the middle: what was seen before is stale. A release is finished when its candidate is the incumbent already, ended
with the decision that its evidence holds, or rolled back; a version that may be tried again starts from the first step, as another release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlock.model.plane import PlaneState
from interlock.model.release import Decision, ModelVersion

MAX_ATTEMPTS = 3  # a process that dies three times under one version has a reason that a fourth attempt does not mend
ARCHIVED, PRODUCTION = "Archived", "Production"
# `decided_by` of halts that found nothing wrong with the candidate: nothing to see, another share than was asked for, an incumbent that was
# not warm. Such a release is Held.
NO_EVIDENCE, TRAFFIC, INCUMBENT = "evidence", "traffic", "incumbent"
NO_FAULT = frozenset({NO_EVIDENCE, TRAFFIC, INCUMBENT})
CONCLUDED = "concluded"  # what a release has decided to do, written before it is carried out
FUSE_BLOWN = "the fuse has blown: "  # how the plane's reason begins when the candidate broke a limit: nobody tries that again
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """
    A process, so that no later one is taken for it. `started`: clock ticks since the boot that `boot` names.

    `namespace`: what its number counts in; two containers may share host name and boot. Empty in evidence of an older version.
    """

    host: str
    boot: str
    pid: int
    started: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """The first record of a release. `stage`: the candidate's then. `process` is None in evidence of an older version."""

    release_id: str
    candidate: ModelVersion
    token: int
    stage: str
    attempt: int
    flow_run_id: str
    process: ProcessMark | None


@dataclass(frozen=True, slots=True)
class Plan:
    """
    How a release ends. `decision`: None when it failed. `candidate_stage`: where the registry shall have the candidate.

    `restores_traffic`: the plane may still give the candidate a share, or is still reserved for it.
    """

    decision: Decision | None
    reason: str
    restores_traffic: bool
    candidate_stage: str
    ended_by: str = "the plane"


def read_opened(release_id: str, records: Sequence[Record]) -> Opened | None:
    """The release as it was opened; None for evidence of something else."""
    if not records or records[0]["kind"] != "intake":
        return None
    intake = records[0]
    name, _, version = str(intake["candidate"]).rpartition("/")
    mark = intake.get("process")
    return Opened(
        release_id,
        ModelVersion(name, version, str(intake.get("candidate_digest", "unknown"))),
        token=int(intake.get("token", 0)),
        stage=str(intake.get("stage", ARCHIVED)),
        attempt=int(intake.get("attempt", 1)),
        flow_run_id=str(intake.get("flow_run_id", "")),
        process=_mark(mark) if mark else None,
    )


def _mark(saved: Record) -> ProcessMark:
    number, namespace = int(saved["pid"]), str(saved.get("namespace", ""))
    return ProcessMark(str(saved["host"]), str(saved["boot"]), number, str(saved["started"]), namespace)


def plan_resume(
    opened: Opened, records: Sequence[Record], plane: PlaneState, *, is_alive: bool | None, has_lost_plane: bool
) -> Plan | None:
    """
    How to end this release, which has no ending in its evidence; None to leave it alone.

    Args:
        is_alive: whether its process lives; None when that cannot be known from here.
        has_lost_plane: its lease ran out, or the plane was started anew: it can do nothing any more, alive or not.
    """
    if is_alive is not False and not has_lost_plane:
        return None
    return plan_ending(opened, records, plane, how="its process is gone" if is_alive is False else "nobody renewed the lease")


def plan_ending(opened: Opened, records: Sequence[Record], plane: PlaneState, *, how: str) -> Plan:
    """
    How to end a release that could not end as it should: the one rule, for its own process and for whoever comes after it.

    Args:
        how: what kept it from ending, for people.
    """
    serving = plane.incumbent.version if plane.incumbent else None
    holds = plane.release_id == opened.release_id
    restores_traffic = holds or (plane.release_id is None and plane.candidate_weight_bps > 0)
    if serving == opened.candidate and any(record["kind"] == "promoted" for record in records):
        reason = f"{how} after {opened.candidate.label} had become the incumbent, proved and baked: registry and record follow"
        return Plan(Decision.PROMOTED, reason, restores_traffic, PRODUCTION)
    if decided := decided_by(records):
        return Plan(decided[0], f"{decided[1]} ({how} before this was recorded)", restores_traffic, ARCHIVED)
    if plane.token == opened.token and (why := plane.last_restore_reason or "").startswith(FUSE_BLOWN):
        return Plan(Decision.ROLLED_BACK, f"{why} ({how} before this was recorded)", restores_traffic, ARCHIVED)
    reason = f"{how}: {serving.label if serving else 'nobody'} serves all requests again"
    return Plan(None, reason, restores_traffic, stage_after_failure(opened.stage))


def stage_after_failure(stage: str) -> str:
    """
    Where a candidate belongs whose release could not decide: where it was, so that it is tried again.

    That its attempts are used up is the intake's to say, which counts them and tells research why.
    """
    return ARCHIVED if stage == PRODUCTION else stage


def is_nobodys_decision(restore_reason: str | None) -> bool:
    """
    Whether the plane took traffic back for no fault of the candidate: its lease ran out, the plane was stopped, or started anew (None).

    The words are the plane's own; tests/unit/test_fencing.py holds them together.
    """
    return restore_reason is None or restore_reason.startswith("the lease of release ") or restore_reason == "interlock up is stopping"


def decided_by(records: Sequence[Record]) -> tuple[Decision, str] | None:
    """What the evidence had decided already, though nobody wrote the decision down: such a candidate is not tried again."""
    if concluded := next((record for record in records if record["kind"] == CONCLUDED), None):
        return Decision(str(concluded["decision"])), str(concluded["reason"])
    for record in records:
        if record["kind"] in ("tick", "final look") and record["outcome"] not in ("CONTINUE", "PASS"):
            if record["kind"] == "tick" and record["outcome"] != "HALT":
                continue
            is_wrong = record["outcome"] == "HALT" and record["decided_by"] not in NO_FAULT
            return (Decision.ROLLED_BACK if is_wrong else Decision.HELD), str(record["reason"])
    gates = [record for record in records if record["kind"] == "gate"]
    if failed := next((gate for gate in gates if gate["outcome"] == "FAIL"), None):
        return Decision.REJECTED, str(failed["reason"])
    if rollback := next((record for record in records if record["kind"] == "rollback"), None):
        is_held = any(gate["outcome"] == "INCONCLUSIVE" for gate in gates)
        return (Decision.HELD if is_held else Decision.ROLLED_BACK), str(rollback["reason"])
    return None
