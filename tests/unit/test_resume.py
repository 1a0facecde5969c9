"""What to do with a release that has no ending: every case of evidence, plane and process, and nothing else decides."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from interlock.adapters.fakes import FakeEvidence
from interlock.control.ending import ending_of, record_ending
from interlock.control.resume import FUSE_BLOWN, MAX_ATTEMPTS, Opened, Plan, ProcessMark, plan_resume, read_opened
from interlock.model.plane import PlaneState, ServerState
from interlock.model.release import Decision, ModelVersion
from tests.worlds import CANDIDATE, INCUMBENT

MARK = {"host": "here", "boot": "b", "pid": 7, "started": "99"}
INTAKE = {"kind": "intake", "candidate": "late/2", "candidate_digest": CANDIDATE.digest, "token": 4, "stage": "Staging", "attempt": 1}
INTAKE |= {"flow_run_id": "run-1", "process": MARK}
TICK = {"kind": "tick", "outcome": "CONTINUE", "decided_by": "", "reason": "goes on"}
HALT = {"kind": "tick", "outcome": "HALT", "decided_by": "divergence", "reason": "they differ"}
BLIND = {"kind": "tick", "outcome": "HALT", "decided_by": "evidence", "reason": "LACK_OF_EVIDENCE"}


def plane(*, holds: bool = False, serving: ModelVersion = INCUMBENT, weight_bps: int = 0, by: str = "r") -> PlaneState:
    incumbent = ServerState(serving, 1, 1, True, 1.0, 0)
    return PlaneState(incumbent, None, weight_bps, False, by if holds else None, 4, 5.0 if holds else None)


def planned(
    *records: Mapping[str, Any], state: PlaneState | None = None, is_alive: bool | None = False, lost: bool = False, **intake: Any
) -> Plan | None:
    all_records = [INTAKE | intake, *records]
    opened = read_opened("r", all_records)
    assert opened is not None
    return plan_resume(opened, all_records, state or plane(), is_alive=is_alive, has_lost_plane=lost)


def test_what_the_first_record_says_is_read_back() -> None:
    mark = ProcessMark("here", "b", 7, "99")
    assert read_opened("r", [INTAKE]) == Opened("r", CANDIDATE, 4, "Staging", 1, "run-1", mark)
    assert read_opened("r", []) is None
    assert read_opened("r", [{"kind": "adoption"}]) is None
    older = read_opened("r", [{"kind": "intake", "candidate": "a/b/2"}])
    assert older == Opened("r", ModelVersion("a/b", "2", "unknown"), 0, "Archived", 1, "", None)


@pytest.mark.parametrize("is_alive", [True, None])
@pytest.mark.parametrize("holds", [True, False])
def test_a_release_that_lives_or_may_live_is_left_alone(is_alive: bool | None, holds: bool) -> None:
    assert planned(TICK, state=plane(holds=holds), is_alive=is_alive) is None


@pytest.mark.parametrize(("is_alive", "lost"), [(False, False), (False, True), (True, True), (None, True)])
def test_a_dead_one_or_one_without_lease_fails_and_may_be_tried_again(is_alive: bool | None, lost: bool) -> None:
    plan = planned(TICK, is_alive=is_alive, lost=lost)
    assert plan is not None
    assert (plan.decision, plan.candidate_stage, plan.restores_traffic) == (None, "Staging", False)
    assert ("its process is gone" if is_alive is False else "nobody renewed the lease") in plan.reason


def blown(token: int) -> PlaneState:
    return replace(plane(), token=token, last_restore_reason=f"{FUSE_BLOWN}63 % errors, limit 50 %")


def test_a_candidate_that_blew_the_fuse_is_not_tried_again_though_its_flow_hangs() -> None:
    plan = planned(TICK, state=blown(4), lost=True, is_alive=True)
    assert plan is not None
    assert (plan.decision, plan.candidate_stage, "63 % errors" in plan.reason) == (Decision.ROLLED_BACK, "Archived", True)


def test_what_blew_under_another_token_was_another_candidate() -> None:
    plan = planned(TICK, state=blown(5))
    assert plan is not None
    assert (plan.decision, plan.candidate_stage) == (None, "Staging")


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS, 9])
def test_no_attempt_archives_by_itself_that_is_the_intakes_to_say_and_to_tell_why(attempt: int) -> None:
    plan = planned(attempt=attempt)
    assert plan is not None
    assert plan.candidate_stage == "Staging"


def test_what_a_release_had_concluded_goes_before_what_can_be_seen_otherwise() -> None:
    plan = planned(
        {"kind": "gate", "outcome": "INCONCLUSIVE", "reason": "?"}, {"kind": "concluded", "decision": "Held", "reason": "no data"}
    )
    assert plan is not None
    assert (plan.decision, plan.candidate_stage) == (Decision.HELD, "Archived")
    assert "no data" in plan.reason


def test_a_mark_of_an_older_version_has_no_namespace_and_a_present_one_keeps_it() -> None:
    opened = read_opened("r", [INTAKE | {"process": MARK | {"namespace": "pid:[4]"}}])
    assert opened is not None
    assert opened.process == ProcessMark("here", "b", 7, "99", "pid:[4]")


@pytest.mark.parametrize(
    ("state", "restores"),
    [
        (plane(holds=True), True),
        (plane(holds=True, weight_bps=500), True),
        (plane(weight_bps=500), True),
        (plane(), False),
        (plane(holds=True, weight_bps=500, by="another"), False),
    ],
)
def test_traffic_is_restored_where_the_release_has_it_or_nobody_does(state: PlaneState, restores: bool) -> None:
    plan = planned(TICK, state=state)
    assert plan is not None
    assert plan.restores_traffic is restores


@pytest.mark.parametrize("extra", [(), ({"kind": "finalised"},)])
def test_a_candidate_that_is_the_incumbent_was_promoted(extra: tuple[Mapping[str, Any], ...]) -> None:
    plan = planned({"kind": "promoted"}, *extra, state=plane(serving=CANDIDATE))
    assert plan is not None
    assert (plan.decision, plan.restores_traffic) == (Decision.PROMOTED, False)


@pytest.mark.parametrize(
    "serving",
    [pytest.param(INCUMBENT, id="another"), pytest.param(ModelVersion("late", "2", "sha256:x"), id="other files of the same number")],
)
def test_law_7_what_serves_must_be_the_very_files_that_were_judged(serving: ModelVersion) -> None:
    plan = planned({"kind": "promoted"}, state=plane(serving=serving))
    assert plan is not None
    assert plan.decision is None


def test_law_2_a_candidate_that_serves_without_having_been_promoted_by_this_release_is_not_called_promoted() -> None:
    plan = planned(TICK, state=plane(serving=CANDIDATE))
    assert plan is not None
    assert plan.decision is None


@pytest.mark.parametrize(
    ("records", "decision"),
    [
        pytest.param([TICK, HALT], Decision.ROLLED_BACK, id="halted"),
        pytest.param([TICK, BLIND], Decision.HELD, id="halted for lack of evidence"),
        pytest.param([{"kind": "final look", "outcome": "INSUFFICIENT", "decided_by": "", "reason": "n"}], Decision.HELD, id="not proved"),
        pytest.param(
            [{"kind": "final look", "outcome": "HALT", "decided_by": "p99", "reason": "slow"}], Decision.ROLLED_BACK, id="last look"
        ),
        pytest.param([{"kind": "gate", "outcome": "FAIL", "reason": "auc"}], Decision.REJECTED, id="a gate failed"),
        pytest.param([TICK, {"kind": "rollback", "reason": "a person"}], Decision.ROLLED_BACK, id="a person rolled back"),
        pytest.param(
            [{"kind": "gate", "outcome": "INCONCLUSIVE", "reason": "?"}, {"kind": "rollback", "reason": "?"}], Decision.HELD, id="held"
        ),
    ],
)
def test_what_the_evidence_has_decided_is_not_tried_again(records: list[Mapping[str, Any]], decision: Decision) -> None:
    plan = planned(*records)
    assert plan is not None
    assert (plan.decision, plan.candidate_stage) == (decision, "Archived")


@pytest.mark.parametrize(
    "records",
    [
        [TICK],
        [{"kind": "gate", "outcome": "PASS", "reason": ""}],
        [{"kind": "gate", "outcome": "INCONCLUSIVE", "reason": ""}],
        [{"kind": "final look", "outcome": "PASS", "decided_by": "", "reason": ""}, {"kind": "promoted"}],
    ],
)
def test_what_was_not_decided_is_not_called_a_decision(records: list[Mapping[str, Any]]) -> None:
    plan = planned(*records)
    assert plan is not None
    assert plan.decision is None


def test_a_release_has_one_ending() -> None:
    evidence = FakeEvidence()
    evidence.append("r", "intake", {"candidate": "late/2"})
    assert ending_of(evidence.read("r")) is None
    assert record_ending(evidence, "r", "failed", {"reason": "lost"})["reason"] == "lost"
    assert record_ending(evidence, "r", "decision", {"decision": "RolledBack", "reason": "late"})["kind"] == "failed"
    assert [record["kind"] for record in evidence.records["r"]] == ["intake", "failed"]
