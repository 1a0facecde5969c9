"""What a release has decided stands, whatever its clean-up stumbles over: a convicted candidate is never tried again."""

from collections.abc import Callable
from typing import Any

import pytest

from interlock.adapters.fakes import FakeEvidence, FakeRuns
from interlock.control.analysis import Analysis
from interlock.control.ending import record_ending
from interlock.control.intake import Intake
from interlock.control.reconcile import Reconciler
from interlock.control.releases import ReleaseIndex
from interlock.control.session import ReleaseSession
from interlock.control.traffic import finalise_promotion
from interlock.errors import ConcurrencyError, ReleaseError, RollbackFailed, ServiceUnavailable
from interlock.model.release import Decision
from interlock.plan.phases import plan_phases
from interlock.ports import FlowRun
from tasks import conclusion, evidence, publishing, traffic
from tasks.conclusion import conclude, failed, lost, rejected_at_intake
from tasks.evidence import publish_phase
from tasks.traffic import incumbent_kept
from tests.worlds import CANDIDATE, World


class Log:
    def warning(self, text: str, *arguments: object) -> None:
        assert text % arguments

    error = warning


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of fakes without Prefect: tasks are called as the functions they are, and nothing is drawn."""
    world = World()
    for module in (conclusion, evidence, publishing):
        monkeypatch.setattr(module, "get_run_logger", Log)
    monkeypatch.setattr(conclusion, "restore", traffic.restore.fn)
    monkeypatch.setattr(conclusion, "open_services", world.services)
    for module, name in ((traffic, "publish_report"), (conclusion, "publish_report"), (conclusion, "write_report")):
        monkeypatch.setattr(module, name, lambda *_: None)
    for name in ("publish_chart", "publish_signals", "publish_decision", "await_published"):
        monkeypatch.setattr(conclusion, name, lambda *_: None)
    return world


def begun(world: World) -> ReleaseSession:
    session = world.session()
    world.registry.claim("late", token=session.release.token)
    session.record("intake", candidate="late/2", candidate_digest=CANDIDATE.digest, token=1, stage="Staging", flow_run_id="run-1")
    return session


def halted(world: World) -> ReleaseSession:
    session = begun(world)
    world.traffic.set_weight(5000, lease_seconds=10, token=session.release.token)
    world.traffic.restore_incumbent(reason="they differ", token=session.release.token)
    session.record("tick", phase="canary", outcome="HALT", decided_by="divergence", reason="they differ")
    return session


def rejected(world: World) -> ReleaseSession:
    session = begun(world)
    session.record("gate", gate="evaluation", outcome="FAIL", reason="roc_auc fell")
    return session


def unproved(world: World) -> ReleaseSession:
    session = begun(world)
    session.record("final look", outcome="INSUFFICIENT", decided_by="", reason="not proved")
    return session


def inconclusive(world: World) -> ReleaseSession:
    session = begun(world)
    session.record("gate", gate="drift", outcome="INCONCLUSIVE", reason="no data")
    return session


DECIDED = [
    (halted, Decision.ROLLED_BACK),
    (rejected, Decision.REJECTED),
    (unproved, Decision.HELD),
    (inconclusive, Decision.HELD),
]
decided = pytest.mark.parametrize(("moment", "decision"), DECIDED, ids=[moment.__name__ for moment, _ in DECIDED])


def endings(world: World) -> list[str]:
    return [str(r.get("decision", "Failed")) for r in world.evidence.records["late-2"] if r["kind"] in ("decision", "failed")]


def asked_again(world: World) -> list[str]:
    """What the intake does about the version once its run has ended."""
    runs = FakeRuns({"run-1": FlowRun("run-1", "late:2:sha256:a", "FAILED", "Failed", None)})
    intake = Intake(world.registry, runs, ReleaseIndex(world.evidence), world.clock, "late", "standard", lambda: "sha256:a")
    found = intake.poll()
    world.clock.seconds += 1000
    return found + intake.poll()


def looked_after(world: World) -> None:
    """What the caretaker does once the process has gone."""
    index = ReleaseIndex(world.evidence)
    services = (world.traffic, world.registry, world.evidence, world.clock, FakeRuns(), index)
    reconciler = Reconciler(*services, is_alive=lambda mark: False, is_running=lambda run_id, pid: False)
    reconciler.start()


def concluded(session: ReleaseSession, decision: Decision) -> Any:
    """As the flow does it."""
    try:
        with incumbent_kept(session):
            return conclude(session, decision, "the reason")
    except ConcurrencyError as error:
        return lost(session, str(error))
    except ReleaseError as error:
        return failed(error, session)


def down_for(world: World, seconds: float) -> None:
    world.registry.down, until = True, world.clock.monotonic() + seconds

    def look() -> None:
        world.registry.down = world.clock.monotonic() < until

    world.while_time_passes = look


@decided
@pytest.mark.parametrize("seconds", [70, 10_000], ids=["a minute", "until its process is gone"])
def test_a_registry_that_is_away_when_a_release_has_decided_makes_no_failure_of_it(
    world: World, moment: Callable[[World], ReleaseSession], decision: Decision, seconds: float
) -> None:
    session = moment(world)
    down_for(world, seconds)
    state = concluded(session, decision)
    if seconds > 1000:
        assert (endings(world), state.is_failed()) == ([], True), "nothing says that it is done before it is"
        world.registry.down, world.while_time_passes = False, lambda: None
        assert asked_again(world) == []
        looked_after(world)
    else:
        assert state.name == decision.value
    assert endings(world) == [decision.value]
    assert world.registry.versions[("late", "2")].stage == "Archived"
    assert world.registry.versions[("late", "2")].tags["interlock.decision"] == decision.value
    assert asked_again(world) == []


@decided
def test_a_plane_that_another_took_meanwhile_changes_no_decision(
    world: World, moment: Callable[[World], ReleaseSession], decision: Decision
) -> None:
    session = moment(world)
    world.traffic.restore_incumbent(reason="a person")
    newer = world.traffic.begin("newer", lease_seconds=120)
    state = concluded(session, decision)
    assert (state.name, endings(world)) == (decision.value, [decision.value])
    assert (world.traffic.release_id, world.traffic.token) == ("newer", newer)
    assert world.registry.versions[("late", "2")].stage == "Staging", "the registry is the newer one's as long as it has the plane"


@decided
def test_a_lease_that_runs_out_behind_a_decision_changes_none(
    world: World, moment: Callable[[World], ReleaseSession], decision: Decision
) -> None:
    session = moment(world)
    world.traffic.restore_incumbent(reason="the lease of release late-2 expired")
    session.record("concluded", decision=decision.value, reason="the reason")
    assert lost(session, "the plane was lost").name == decision.value
    assert endings(world) == [decision.value]
    assert world.registry.versions[("late", "2")].stage == "Archived"


def test_what_another_has_ended_as_decided_leaves_no_candidate_behind_to_be_tried_again(world: World) -> None:
    session = halted(world)
    record_ending(world.evidence, "late-2", "decision", {"decision": "RolledBack", "reason": "they differ"})
    world.registry.set_champion("late", "2", token=session.release.token)  # it wakes, and does not know yet that it has lost
    assert lost(session, "the plane was lost").name == "RolledBack"
    assert (world.registry.champions["late"], world.registry.versions[("late", "2")].stage) == ("1", "Archived")


def test_a_disk_that_fills_up_behind_the_halt_leaves_the_decision_to_whoever_comes_next(world: World) -> None:
    session = halted(world)
    world.evidence.full = True
    assert concluded(session, Decision.ROLLED_BACK).is_failed()
    assert world.registry.versions[("late", "2")].stage == "Archived"
    world.evidence.full = False
    assert asked_again(world) == []
    looked_after(world)
    assert endings(world) == ["RolledBack"]


def blinking(world: World) -> None:
    """The plane does not answer the first time that it is asked for the incumbent."""
    restore, calls = world.traffic.restore_incumbent, [0]

    def blinks(*, reason: str, token: int | None = None) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise ServiceUnavailable("the traffic plane answered 503")
        restore(reason=reason, token=token)

    world.traffic.restore_incumbent = blinks  # type: ignore[method-assign]


def test_a_halt_is_written_down_although_traffic_could_not_be_asked_back_at_once(world: World) -> None:
    session = begun(world)
    world.candidate_prediction = 0.95
    blinking(world)
    (_, first_live, *_) = plan_phases(session.profile.canary)
    with pytest.raises(ServiceUnavailable), incumbent_kept(session):
        Analysis(session).watch(first_live)
    assert world.records("tick")[-1]["outcome"] == "HALT"
    assert endings(world) == ["RolledBack"]
    assert (world.traffic.weight_bps, world.registry.versions[("late", "2")].stage) == (0, "Archived")
    assert asked_again(world) == []


def test_a_final_look_that_halts_is_written_down_although_traffic_could_not_be_asked_back_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begun(world)
    analysis = Analysis(session)
    (*_, last) = plan_phases(session.profile.canary)
    analysis.move_to(last)
    judgement = analysis.settle()
    monkeypatch.setattr(Analysis, "settle", lambda self: judgement)
    halt = type(judgement)(outcome="HALT", reason="slow", decided_by="p99", signals=(), e_value=0.0, halting_line=0.0)  # type: ignore[arg-type]
    monkeypatch.setattr("interlock.control.analysis.judge_final", lambda tally, policy: halt)
    blinking(world)
    with pytest.raises(ServiceUnavailable), incumbent_kept(session):
        analysis.final_look()
    assert [record["outcome"] for record in world.records("final look")] == ["HALT"]
    assert endings(world) == ["RolledBack"]


def test_a_release_that_the_plane_has_promoted_is_promoted_whatever_fails_behind_it(world: World) -> None:
    session = begun(world)
    token = session.release.token
    world.traffic.set_weight(10_000, lease_seconds=10, token=token)
    world.registry.set_champion("late", "2", token=token)
    session.record("promoted", champion="2", stage="Production")

    def broken() -> None:
        raise RollbackFailed("a disk, a bug, anything")

    finalise_promotion(session)
    with pytest.raises(RollbackFailed) as caught, incumbent_kept(session):
        broken()
    state = failed(caught.value, session)
    assert (state.name, endings(world)) == ("Promoted", ["Promoted"])
    assert (world.registry.champions["late"], world.registry.versions[("late", "2")].stage) == ("2", "Production")


def test_a_failure_that_decided_nothing_is_a_failure(world: World) -> None:
    session = begun(world)
    with pytest.raises(RuntimeError), incumbent_kept(session):
        raise RuntimeError("a bug")
    assert endings(world) == ["Failed"]
    assert failed(ReleaseError("x"), session).is_failed()
    assert world.registry.versions[("late", "2")].stage == "Staging"
    assert asked_again(world) == ["run-2"]


class Run:
    id = "run-1"


def test_a_candidate_that_is_rejected_at_intake_while_the_registry_is_away_is_not_recorded_before_it_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusion, "flow_run", Run)
    world.registry.down = True
    with pytest.raises(ServiceUnavailable):
        rejected_at_intake("late", "2", "no signature")
    assert world.evidence.records == {}
    world.registry.down = False
    world.registry.claim("late", token=99)  # above the plane's own
    assert rejected_at_intake("late", "2", "no signature").name == "Rejected"
    version = world.registry.versions[("late", "2")]
    assert (version.stage, version.tags["interlock.reason"]) == ("Archived", "no signature")
    assert len(world.records("decision")) == 1


def test_who_serves_is_not_archived_for_what_its_files_are_like(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conclusion, "flow_run", Run)
    rejected_at_intake("late", "1", "no signature")
    assert world.registry.versions[("late", "1")].stage == "Production"


def test_the_ticks_of_a_phase_are_read_behind_the_back_of_the_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session, jobs = begun(world), []
    monkeypatch.setattr(evidence, "publish", lambda key, make: jobs.append(make))

    def unreadable(self: FakeEvidence, release_id: str) -> Any:
        raise ServiceUnavailable(f"{release_id} cannot be read")

    monkeypatch.setattr(FakeEvidence, "read", unreadable)
    (first, *_) = plan_phases(session.profile.canary)
    publish_phase(session, first)
    with pytest.raises(ServiceUnavailable):
        jobs[0]()
