"""Releases whose process cannot say how they ended: one ending each, wherever they were cut, and wherever the clean-up was cut."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest

from interlock.adapters.fakes import FakeRuns
from interlock.control.reconcile import CRASH_GRACE_SECONDS, FOLLOW_SECONDS, START_GRACE_SECONDS, UNSEEN_GRACE_SECONDS, Reconciler
from interlock.control.releases import ReleaseIndex
from interlock.control.resume import ProcessMark
from interlock.control.session import ReleaseSession
from interlock.control.traffic import finalise_promotion
from interlock.errors import ConcurrencyError, EvidenceError, ReleaseError, ServiceUnavailable
from tests.worlds import CANDIDATE, INCUMBENT, World

MARK = ProcessMark("here", "boot", 7, "99")
EFFECTS = ("restore_incumbent", "append", "end")  # those of the registry are its own to count: a setter makes several requests


class Cut(BaseException):
    """The process that cleans up died."""


@dataclass
class Care:
    """A world with a release in it, and who looks after it."""

    world: World = field(default_factory=World)
    runs: FakeRuns = field(default_factory=FakeRuns)
    living: set[int] = field(default_factory=set)
    reports: list[str] = field(default_factory=list)

    def reconciler(self, wrap: Callable[[Any], Any] = lambda service: service) -> Reconciler:
        """As a new start of `up` has it: with nothing in its memory."""
        world = self.world
        return Reconciler(
            traffic=wrap(world.traffic),
            registry=wrap(world.registry),
            evidence=wrap(world.evidence),
            clock=world.clock,
            runs=wrap(self.runs),
            index=ReleaseIndex(world.evidence),
            is_alive=lambda mark: mark.pid in self.living,
            is_running=lambda run_id, pid: pid in self.living,
            write_report=self.reports.append,
        )

    def begin(self) -> ReleaseSession:
        """A release as far as its intake, its run RUNNING in Prefect."""
        session = self.world.session()
        self.world.registry.claim("late", token=session.release.token)
        facts = {"candidate": "late/2", "candidate_digest": CANDIDATE.digest, "token": session.release.token, "stage": "Staging"}
        session.record("intake", **facts, attempt=1, flow_run_id="run-1", process=asdict(MARK))
        self.runs.set_state("run-1", "RUNNING", "Running", pid=7)
        self.living.add(7)
        return session

    def endings(self) -> list[str]:
        """How the release ended, each time."""
        records = self.world.evidence.records.get("late-2", [])
        return [str(r.get("decision", "Failed")) for r in records if r["kind"] in ("decision", "failed")]

    def picture(self) -> dict[str, Any]:
        """Everything that must be the same however often the clean-up was cut."""
        world = self.world
        versions = {version: (v.stage, dict(v.tags)) for (_, version), v in world.registry.versions.items()}
        traffic = (world.traffic.incumbent, world.traffic.weight_bps, world.traffic.mirroring, world.traffic.release_id)
        runs = {run.run_id: run.state_name for run in self.runs.runs.values()}
        return {
            "versions": versions,
            "champion": world.registry.champions["late"],
            "traffic": traffic,
            "ends": self.endings(),
            "runs": runs,
        }


def in_gates(care: Care) -> None:
    care.begin().record("gate", gate="drift", outcome="PASS", reason="", measurements=[])


def in_canary(care: Care) -> None:
    session = care.begin()
    care.world.traffic.set_weight(5000, lease_seconds=10, token=session.release.token)
    session.record("tick", outcome="CONTINUE", decided_by="", reason="")


def between_alias_and_stage(care: Care) -> None:
    session = care.begin()
    care.world.traffic.set_weight(10_000, lease_seconds=10, token=session.release.token)
    care.world.registry.champions["late"] = "2"


def concluded_as_held(care: Care) -> None:
    session = care.begin()
    session.record("gate", gate="drift", outcome="INCONCLUSIVE", reason="?", measurements=[])
    session.record("concluded", decision="Held", reason="nothing to see")


def after_a_halt(care: Care) -> None:
    session = care.begin()
    care.world.traffic.set_weight(5000, lease_seconds=10, token=session.release.token)
    care.world.traffic.restore_incumbent(reason="they differ", token=session.release.token)
    session.record("tick", outcome="HALT", decided_by="divergence", reason="they differ")


def champion_moved(care: Care) -> ReleaseSession:
    session = care.begin()
    token = session.release.token
    care.world.traffic.set_weight(10_000, lease_seconds=10, token=token)
    care.world.registry.set_champion("late", "2", token=token)
    return session


def in_bake(care: Care) -> None:
    champion_moved(care).record("promoted", champion="2", stage="Production")


def at_promotion_before_the_record(care: Care) -> None:
    champion_moved(care)


def after_the_plane_promoted(care: Care) -> None:
    session = champion_moved(care)
    session.record("promoted", champion="2", stage="Production")
    care.world.traffic.promote(token=session.release.token)


def after_finalised(care: Care) -> None:
    session = champion_moved(care)
    session.record("promoted", champion="2", stage="Production")
    finalise_promotion(session)


BACK = ("1", "Production", "Staging", "Failed", "Crashed", INCUMBENT)
HELD = ("1", "Production", "Archived", "Held", "Held", INCUMBENT)
DECIDED = ("1", "Production", "Archived", "RolledBack", "RolledBack", INCUMBENT)
FINISHED = ("2", "Archived", "Production", "Promoted", "Promoted", CANDIDATE)
MOMENTS = [
    (in_gates, BACK),
    (in_canary, BACK),
    (concluded_as_held, HELD),
    (after_a_halt, DECIDED),
    (between_alias_and_stage, BACK),
    (at_promotion_before_the_record, BACK),
    (in_bake, BACK),
    (after_the_plane_promoted, FINISHED),
    (after_finalised, FINISHED),
]
moments = pytest.mark.parametrize(("moment", "ends"), MOMENTS, ids=[moment.__name__ for moment, _ in MOMENTS])


def is_ended(care: Care, ends: tuple[Any, ...]) -> bool:
    registry, picture = care.world.registry, care.picture()
    champion, first, second, ending, run, serving = ends
    assert (registry.champions["late"], registry.versions[("late", "1")].stage) == (champion, first)
    assert registry.versions[("late", "2")].stage == second
    assert picture["ends"] == [ending]
    assert picture["runs"] == {"run-1": run}
    assert picture["traffic"] == (serving, 0, False, None)
    return True


def looked_after(care: Care, *, wrap: Callable[[Any], Any] = lambda service: service) -> None:
    reconciler = care.reconciler(wrap)
    reconciler.poll()
    care.world.clock.seconds += CRASH_GRACE_SECONDS
    reconciler.poll()


@moments
def test_a_release_whose_process_died_is_ended_at_once_and_the_same_however_often_one_looks(
    moment: Callable[[Care], None], ends: tuple[Any, ...]
) -> None:
    care = Care()
    moment(care)
    care.living.clear()
    for _ in range(3):
        looked_after(care)
        assert is_ended(care, ends)
    assert care.reports == ["late-2"]


class Cutting:
    """Passes calls on; when the last of so many effects was carried out, the process dies before it hears of it."""

    def __init__(self, inner: Any, cut: Callable[[], None]) -> None:
        self._inner, self._cut = inner, cut

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            answer = inner(*arguments, **named)
            self._cut()
            return answer

        return call if name in EFFECTS else inner


def was_cut(moment: Callable[[Care], None], cut_after: int, ends: tuple[Any, ...]) -> bool:
    """Whether a clean-up has so many effects: it was cut behind the last of them, and the next clean-up ended the same."""
    care, left = Care(), [cut_after]
    moment(care)
    care.living.clear()

    def cut() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Cut

    care.world.registry.on_effect = cut
    try:
        looked_after(care, wrap=lambda service: Cutting(service, cut))
    except Cut:
        looked_after(care)
        return is_ended(care, ends)
    return False


@moments
def test_a_clean_up_that_was_cut_after_any_effect_is_finished_by_the_next(moment: Callable[[Care], None], ends: tuple[Any, ...]) -> None:
    effects = next(cut_after - 1 for cut_after in range(1, 20) if not was_cut(moment, cut_after, ends))
    assert effects >= 2, "at least the record and Prefect's state"


@moments
def test_a_start_ends_what_was_under_way_whoever_lives(moment: Callable[[Care], None], ends: tuple[Any, ...]) -> None:
    care = Care()
    moment(care)
    care.world.traffic.restore_incumbent(reason="the plane was started anew")
    care.reconciler().start()
    assert care.endings() == [ends[3]]
    care.living.clear()
    looked_after(care)
    assert is_ended(care, ends)


def test_a_release_that_has_begun_since_the_start_is_not_taken_for_one_of_before() -> None:
    care = Care()
    in_canary(care)
    before = care.picture()
    care.reconciler().start()
    assert care.picture() == before


def test_a_release_that_lives_is_not_touched() -> None:
    care = Care()
    in_canary(care)
    before, calls = care.picture(), len(care.world.traffic.calls)
    reconciler = care.reconciler()
    for _ in range(5):
        reconciler.poll()
    assert care.picture() == before
    assert len(care.world.traffic.calls) == calls, "not even looked at"


def test_a_stopped_process_is_alive_until_its_lease_is_over_and_then_ended_once() -> None:
    care = Care()
    in_canary(care)
    reconciler = care.reconciler()
    reconciler.poll()
    assert care.endings() == []
    care.world.clock.seconds += 60
    care.world.traffic.observe()
    reconciler.lose("late-2")
    assert care.endings() == ["Failed"]
    assert care.world.registry.versions[("late", "2")].stage == "Staging"
    assert care.runs.runs["run-1"].state_name == "Running", "it lives: Prefect hears from it when it wakes"
    with pytest.raises(ConcurrencyError):
        care.world.traffic.set_weight(9000, lease_seconds=10, token=1)


def test_a_release_whose_plane_another_one_holds_is_recorded_and_the_newer_one_keeps_everything() -> None:
    care = Care()
    in_bake(care)
    care.living.clear()
    world = care.world
    world.traffic.restore_incumbent(reason="a person")
    newer = world.traffic.begin("newer", lease_seconds=100)
    world.registry.claim("late", token=newer)
    looked_after(care)
    assert care.endings() == ["Failed"]
    assert world.traffic.release_id == "newer"
    assert world.registry.champions["late"] == "2", "the newer release says who is champion when it ends"
    assert "left alone" in world.records("failed")[0]["reason"]


def test_a_registry_that_is_down_is_tried_again_and_no_ending_is_written_before_it_follows() -> None:
    care = Care()
    in_bake(care)
    care.living.clear()
    care.world.registry.down = True
    reconciler = care.reconciler()
    with pytest.raises(ReleaseError):
        reconciler.poll()
    assert (care.endings(), care.world.traffic.weight_bps) == ([], 0)
    care.world.registry.down = False
    looked_after(care)
    assert is_ended(care, BACK)


def test_a_model_that_nobody_champions_is_left_alone() -> None:
    care = Care()
    care.world.registry.champions.clear()
    care.reconciler().start()
    assert care.world.registry.champions == {}


def test_a_start_makes_the_registry_say_who_serves() -> None:
    care = Care()
    care.world.registry.set_champion("late", "2", token=0)
    care.reconciler().start()
    registry = care.world.registry
    assert (registry.champions["late"], registry.versions[("late", "2")].stage) == ("1", "Archived")


def test_a_report_that_cannot_be_written_changes_nothing() -> None:
    def broken(release_id: str) -> None:
        raise OSError(f"no space left for the report of {release_id}")

    care = Care()
    in_canary(care)
    care.living.clear()
    reconciler = care.reconciler()
    reconciler.write_report = broken
    reconciler.poll()
    assert care.endings() == ["Failed"]


def test_evidence_that_cannot_be_read_keeps_nobody_else_from_being_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    care = Care()
    in_canary(care)
    care.living.clear()
    care.world.evidence.append("broken", "intake", {"candidate": "late/9"})
    read = care.world.evidence.read

    def cut_off(release_id: str) -> Any:
        if release_id == "broken":
            raise EvidenceError("the evidence was cut or changed")
        return read(release_id)

    monkeypatch.setattr(care.world.evidence, "read", cut_off)
    looked_after(care)
    assert care.endings() == ["Failed"]


def test_a_live_release_is_read_once_however_much_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    care = Care()
    in_canary(care)
    readings, read = [0], care.world.evidence.read

    def counted(release_id: str) -> Any:
        readings[0] += 1
        return read(release_id)

    monkeypatch.setattr(care.world.evidence, "read", counted)
    reconciler = care.reconciler()
    for second in range(20):
        care.world.evidence.append("late-2", "tick", {"outcome": "CONTINUE", "second": second})
        reconciler.poll()
    assert readings == [1]


@pytest.mark.parametrize(
    ("state_type", "pid", "grace_seconds"),
    [("RUNNING", 7, CRASH_GRACE_SECONDS), ("PENDING", 7, CRASH_GRACE_SECONDS), ("PENDING", None, START_GRACE_SECONDS)],
)
def test_a_run_that_died_before_it_wrote_evidence_is_crashed_after_a_grace(state_type: str, pid: int | None, grace_seconds: float) -> None:
    care = Care()
    care.runs.set_state("run-9", state_type, state_type.title(), pid=pid)
    reconciler = care.reconciler()
    reconciler.poll()
    care.world.clock.seconds += grace_seconds - 0.1
    reconciler.poll()
    assert care.runs.runs["run-9"].state_type == state_type
    care.world.clock.seconds += 0.1
    reconciler.poll()
    assert care.runs.runs["run-9"].state_name == "Crashed"


@pytest.mark.parametrize(("state_type", "pid"), [("RUNNING", 8), ("RUNNING", None), ("SCHEDULED", None)])
def test_a_run_that_lives_or_cannot_be_seen_is_left_alone(state_type: str, pid: int | None) -> None:
    care = Care(living={8})
    care.runs.set_state("run-9", state_type, state_type.title(), pid=pid)
    reconciler = care.reconciler()
    for _ in range(5):
        reconciler.poll()
        care.world.clock.seconds += 1000
    assert care.runs.runs["run-9"].state_type == state_type


def test_prefect_being_away_keeps_no_release_from_being_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(deployment: str) -> Any:
        raise ServiceUnavailable("Prefect does not answer")

    care = Care()
    in_canary(care)
    care.living.clear()
    monkeypatch.setattr(care.runs, "read_under_way", away)
    with pytest.raises(ServiceUnavailable):
        care.reconciler().poll()
    assert care.endings() == ["Failed"]


def test_a_run_whose_release_is_dead_lives_on_in_another_process_and_is_left_alone() -> None:
    """A person's retry in Prefect: the same run, another process, and later another release."""
    care = Care()
    in_canary(care)
    care.living.clear()
    reconciler = care.reconciler()
    reconciler.poll()
    care.runs.set_state("run-1", "RUNNING", "Running", pid=8)
    care.living.add(8)
    for begun in (False, True):
        if begun:
            mark, facts = asdict(replace(MARK, pid=8)), {"candidate": "late/2", "token": 2, "flow_run_id": "run-1"}
            care.world.evidence.append("late-2b", "intake", facts | {"process": mark})
        for _ in range(3):
            reconciler.poll()
            care.world.clock.seconds += 1000
        assert care.runs.runs["run-1"].state_name == "Running"
    care.living.clear()
    reconciler.poll()
    care.world.clock.seconds += CRASH_GRACE_SECONDS
    reconciler.poll()
    assert care.runs.runs["run-1"].state_name == "Crashed"


def test_a_run_that_prefect_refuses_to_end_keeps_no_other_from_being_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    care, end = Care(), FakeRuns.end

    def refused(self: FakeRuns, run_id: str, **named: Any) -> None:
        if run_id == "run-1":
            raise ServiceUnavailable("Prefect answered 503")
        end(self, run_id, **named)

    monkeypatch.setattr(FakeRuns, "end", refused)
    for run_id in ("run-1", "run-2"):
        care.runs.set_state(run_id, "RUNNING", "Running", pid=7)
    reconciler = care.reconciler()
    reconciler.poll()
    care.world.clock.seconds += CRASH_GRACE_SECONDS
    with pytest.raises(ServiceUnavailable):
        reconciler.poll()
    assert {run.run_id: run.state_name for run in care.runs.runs.values()} == {"run-1": "Running", "run-2": "Crashed"}


def test_a_restarted_reconciler_takes_the_release_with_the_newest_token_for_the_runs() -> None:
    care = Care()
    for token, release_id in ((5, "second"), (4, "first")):  # the newer one changed longer ago
        care.world.evidence.append(release_id, "intake", {"candidate": "late/2", "token": token, "flow_run_id": "run-1"})
    found = ReleaseIndex(care.world.evidence).of_run("run-1")
    assert found is not None
    assert found.release_id == "second"


@pytest.mark.parametrize(("moment", "state_name"), [(in_canary, "Cancelled"), (after_a_halt, "RolledBack")])
def test_a_run_that_a_person_cancels_and_whose_process_is_gone_is_cancelled_not_crashed(
    moment: Callable[[Care], None], state_name: str
) -> None:
    care = Care()
    moment(care)
    care.runs.set_state("run-1", "CANCELLING", "Cancelling", pid=7)
    care.living.clear()
    looked_after(care)
    assert care.runs.runs["run-1"].state_name == state_name


def out_of_sight(care: Care) -> Reconciler:
    """As in a container that was made anew: another host name."""
    reconciler = care.reconciler()
    reconciler.is_alive = lambda mark: None
    return reconciler


def test_a_run_of_another_machine_is_ended_behind_the_ending_of_its_release() -> None:
    care = Care()
    in_canary(care)
    care.world.traffic.restore_incumbent(reason="a start")
    reconciler = out_of_sight(care)
    reconciler.start()
    assert care.endings() == ["Failed"]
    care.world.clock.seconds += UNSEEN_GRACE_SECONDS - 1
    reconciler.poll()
    assert care.runs.runs["run-1"].state_name == "Running", "it may be showing its ending yet"
    care.world.clock.seconds += 1
    reconciler.poll()
    assert care.runs.runs["run-1"].state_name == "Crashed"


def test_a_release_that_cannot_be_seen_is_ended_when_it_has_gone_without_the_plane_for_longer_than_it_may() -> None:
    care = Care()
    in_canary(care)
    reconciler, token = out_of_sight(care), care.world.traffic.token
    for _ in range(5):
        care.world.traffic.lease_ends_at = care.world.clock.seconds + 100  # it renews
        reconciler.poll()
        care.world.clock.seconds += 99
    care.world.traffic.restore_incumbent(reason="its own", token=token)
    reconciler.poll()
    care.world.clock.seconds += UNSEEN_GRACE_SECONDS - 1
    reconciler.poll()
    assert care.endings() == []
    care.world.clock.seconds += 1
    reconciler.poll()
    assert care.endings() == ["Failed"]


@pytest.mark.parametrize("damage", ["unreadable", "no candidate", "candidate is no text", "half a tick"])
def test_evidence_of_one_release_keeps_nobody_else_from_being_ended_whatever_it_is_like(
    damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    care = Care()
    odd: dict[str, Any] = {"candidate": "late/9", "process": asdict(MARK)}
    odd = {"no candidate": {"note": "x"}, "candidate is no text": odd | {"process": 4}}.get(damage, odd)
    care.world.evidence.append("odd", "intake", odd)
    if damage == "half a tick":
        care.world.evidence.append("odd", "tick", {"note": "no outcome"})
    in_canary(care)
    care.living.clear()
    read = care.world.evidence.read

    def unreadable(release_id: str) -> Any:
        if release_id == "odd" and damage == "unreadable":
            raise ServiceUnavailable("odd.jsonl cannot be read (Permission denied)")
        return read(release_id)

    monkeypatch.setattr(care.world.evidence, "read", unreadable)
    reconciler = care.reconciler()
    for start in (reconciler.start, reconciler.poll):
        with contextlib.suppress(ReleaseError):
            start()
        assert care.endings() == ["Failed"]
    care.world.clock.seconds += CRASH_GRACE_SECONDS
    with contextlib.suppress(ReleaseError):
        reconciler.poll()
    assert care.runs.runs["run-1"].state_name == "Crashed"


def test_evidence_that_turns_unreadable_under_way_ends_nothing_by_what_it_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    care = Care()
    after_a_halt(care)
    reconciler = care.reconciler()
    reconciler.poll()
    care.living.clear()
    read = care.world.evidence.read

    def cut(release_id: str) -> Any:
        raise EvidenceError("the evidence was cut or changed")

    monkeypatch.setattr(care.world.evidence, "read", cut)
    reconciler.poll()
    assert (care.endings(), care.world.registry.versions[("late", "2")].stage) == ([], "Staging")
    monkeypatch.setattr(care.world.evidence, "read", read)
    looked_after(care)
    assert is_ended(care, DECIDED)


@pytest.mark.parametrize("service", ["registry", "traffic"])
def test_a_start_that_stumbled_is_made_up_for_by_the_next_look(service: str) -> None:
    care = Care()
    in_canary(care)  # its process lives, and has lost the plane with the start
    care.world.traffic.restore_incumbent(reason="a start")
    care.world.registry.set_champion("late", "2", token=9)
    reconciler = care.reconciler()
    getattr(care.world, service).down = True
    with pytest.raises(ReleaseError):
        reconciler.start()
    getattr(care.world, service).down = False
    care.world.registry.tokens.clear()
    reconciler.poll()
    assert care.endings() == ["Failed"]
    assert care.world.registry.champions["late"] == "1"


@pytest.mark.parametrize("slip", ["alias", "stage", "both"])
def test_while_nobody_releases_the_registry_says_who_serves_whatever_slips_out_of_a_hand(slip: str) -> None:
    care = Care()
    reconciler, registry = care.reconciler(), care.world.registry
    reconciler.poll()
    if slip in ("alias", "both"):
        registry.champions["late"] = "2"
    if slip in ("stage", "both"):
        registry.move("late", "1", "Staging")
    care.world.clock.seconds += FOLLOW_SECONDS
    reconciler.poll()
    assert (registry.champions["late"], registry.versions[("late", "1")].stage) == ("1", "Production")
    assert registry.versions[("late", "2")].stage == "Staging", "what waits there waits on"


def test_while_a_release_is_under_way_the_registry_is_its_own() -> None:
    care = Care()
    champion_moved(care)
    reconciler = care.reconciler()
    for _ in range(3):
        reconciler.poll()
        care.world.clock.seconds += FOLLOW_SECONDS / 4
    assert care.world.registry.champions["late"] == "2"


def test_a_version_that_was_deleted_keeps_its_dead_release_from_nothing() -> None:
    care = Care()
    in_bake(care)
    care.living.clear()
    del care.world.registry.versions[("late", "2")]
    started = care.world.clock.seconds
    looked_after(care)
    assert (care.endings(), care.world.registry.champions["late"]) == (["Failed"], "1")
    assert care.runs.runs["run-1"].state_name == "Crashed"
    assert care.world.clock.seconds == started + CRASH_GRACE_SECONDS, "nothing was waited for"
