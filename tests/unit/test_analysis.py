"""The analysis loop: judges once a second, holds the lease, records, and restores the incumbent before it writes a word."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from interlock.control.analysis import Analysis, described
from interlock.control.policy import judge_policy
from interlock.control.resume import NO_EVIDENCE
from interlock.errors import ConcurrencyError, ServiceUnavailable, TrafficNotConverged
from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.readings import Judgement, JudgeOutcome
from interlock.judge.tally import Tally
from interlock.model.plane import CaptureCounts
from interlock.plan.phases import Phase, plan_bake, plan_phases
from interlock.profile.reader import parse_profile
from tests.worlds import World, read_test_profile


@dataclass
class Canary:
    """One analysis in one world."""

    world: World
    analysis: Analysis
    phases: tuple[Phase, ...]
    ticks: list[Judgement]

    def watch(self, phase: Phase) -> Judgement:
        return self.analysis.watch(phase)


@pytest.fixture
def canary() -> Canary:
    return open_canary("short")


def open_canary(profile: str) -> Canary:
    world, ticks = World(), list[Judgement]()
    session = world.session(profile)
    analysis = Analysis(session, on_tick=lambda _, judgement: ticks.append(judgement))
    return Canary(world, analysis, plan_phases(session.profile.canary), ticks)


def after(world: World, calls: int, act: Callable[[], None]) -> None:
    """Do something to the world once `calls` sleeps are over."""
    slept = [0]

    def count() -> None:
        slept[0] += 1
        if slept[0] == calls:
            act()

    world.while_time_passes = count


def test_a_healthy_candidate_goes_through_all_phases_and_passes_at_the_final_look(canary: Canary) -> None:
    world = canary.world
    assert [canary.watch(phase).outcome for phase in canary.phases] == [JudgeOutcome.CONTINUE] * 3
    final = canary.analysis.final_look()
    assert final.outcome is JudgeOutcome.PASS, final.reason
    assert [record["weight_bps"] for record in world.records("phase")] == [0, 1000, 5000]
    assert len(world.records("tick")) == len(canary.ticks) >= 30
    assert world.records("counts")[0]["tally"]["counters"]["judged"] > 1000


@pytest.mark.parametrize("prediction", [pytest.param(0.3, id="a pass"), pytest.param(0.9, id="a halt")])
def test_law_9_a_judgement_can_be_computed_again_from_the_evidence_alone(canary: Canary, prediction: float) -> None:
    world = canary.world
    world.candidate_prediction = prediction
    if all(canary.watch(phase).outcome is not JudgeOutcome.HALT for phase in canary.phases):
        canary.analysis.final_look()
    kept = json.loads(json.dumps(world.records("counts")[0]["tally"]))
    decided = json.loads(json.dumps((world.records("final look") or world.records("tick"))[-1]))
    profile = parse_profile(read_test_profile().text, source="the evidence").profile  # `intake` keeps the text
    judge = judge_final if world.records("final look") else judge_tick
    again = judge(Tally.from_dict(kept), judge_policy(profile))
    computed = json.loads(json.dumps(described(again)))
    assert computed == {key: decided[key] for key in computed}
    assert again.outcome is (JudgeOutcome.PASS if prediction == 0.3 else JudgeOutcome.HALT)


def test_every_tick_renews_the_lease_and_is_recorded_first(canary: Canary) -> None:
    calls = canary.world.traffic.calls
    canary.watch(canary.phases[1])
    ticks = len(canary.world.records("tick"))
    assert (calls.count("renew"), ticks) == (11, 10), "once more while the files were read, before the first share"
    assert canary.world.traffic.lease_ends_at == canary.world.clock.monotonic() + 10.0


def test_without_renewal_the_plane_would_be_lost_within_the_lease(canary: Canary) -> None:
    canary.watch(canary.phases[1])
    canary.world.clock.seconds += 11
    state = canary.world.traffic.observe()
    assert (state.candidate_weight_bps, state.release_id) == (0, None)


def test_divergence_halts_and_traffic_is_restored_before_anything_is_written(canary: Canary) -> None:
    world = canary.world
    for phase in canary.phases[:2]:
        canary.watch(phase)
    world.candidate_prediction = 0.9
    order: list[str] = []
    append, restore = world.evidence.append, world.traffic.restore_incumbent

    def noted_append(release_id: str, kind: str, payload: Any) -> None:
        order.append(f"{kind} {payload.get('outcome')}")
        append(release_id, kind, payload)

    def noted_restore(*, reason: str, token: int | None = None) -> None:
        order.append("restore")
        restore(reason=reason, token=token)

    world.evidence.append, world.traffic.restore_incumbent = noted_append, noted_restore  # type: ignore[method-assign]
    judgement = canary.watch(canary.phases[2])
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "divergence")
    assert order[-3:] == ["restore", "tick HALT", "counts None"]
    assert world.traffic.weight_bps == 0
    assert world.traffic.calls[-1].startswith("restore"), "a halted release must not renew"


def held_for_lack_of_evidence(canary: Canary, judgement: Judgement, *, saying: str) -> None:
    """Halted, because nothing could be judged, and traffic is back."""
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, NO_EVIDENCE), judgement.reason
    assert "LACK_OF_EVIDENCE" in judgement.reason
    assert saying in judgement.reason
    assert canary.world.traffic.weight_bps == 0


def test_t02_zero_traffic_never_gets_beyond_the_shadow() -> None:
    canary = open_canary("hopeless")
    canary.world.has_users = False
    held_for_lack_of_evidence(canary, canary.watch(canary.phases[0]), saying="INSUFFICIENT_EVIDENCE n=0 of ")


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_t02_traffic_that_dries_up_in_any_phase_gives_the_incumbent_everything_back(canary: Canary, phase: int) -> None:
    phases = (*canary.phases, plan_bake(read_test_profile().profile.canary))
    for earlier in phases[:phase]:
        assert canary.watch(earlier).outcome is JudgeOutcome.CONTINUE
    canary.world.has_users = False
    held_for_lack_of_evidence(canary, canary.watch(phases[phase]), saying="nothing could be judged for")


def test_t04_a_release_ended_before_its_first_measurement_has_proved_nothing(canary: Canary) -> None:
    def cancelled() -> None:
        raise KeyboardInterrupt

    after(canary.world, 1, cancelled)
    with pytest.raises(KeyboardInterrupt):
        canary.watch(canary.phases[0])
    assert canary.world.records("tick") == []


def test_a_release_that_lost_the_plane_says_so_and_restores_nothing(canary: Canary) -> None:
    canary.watch(canary.phases[0])
    traffic = canary.world.traffic

    def taken_over() -> None:
        traffic.restore_incumbent(reason="a person")
        traffic.begin("another", lease_seconds=100)

    after(canary.world, 3, taken_over)
    with pytest.raises(ConcurrencyError, match="held by another"):
        canary.watch(canary.phases[1])
    restores = [call for call in traffic.calls if call.startswith("restore")]
    assert restores == ["restore: a person"]
    assert traffic.release_id == "another"


@pytest.mark.parametrize(
    ("spoil", "decided_by", "words"),
    [
        pytest.param(lambda w: setattr(w.traffic, "candidate_ready", False), "capacity", "candidate's server", id="the candidate's server"),
        pytest.param(
            lambda w: setattr(w.traffic, "incumbent_ready", False), "incumbent", "incumbent's server", id="the incumbent's server"
        ),
        pytest.param(
            lambda w: setattr(w.traffic, "incumbent_pid", 2), "incumbent", "started again, as process 2", id="a new incumbent's server"
        ),
        pytest.param(lambda w: setattr(w.traffic, "candidate", None), "capacity", "gone", id="a server that has gone"),
        pytest.param(lambda w: setattr(w.traffic, "weight_bps", 9000), "traffic", "9000 bps, asked for 1000", id="a weight changed behind"),
    ],
)
def test_trouble_of_the_plane_halts_whatever_the_predictions_look_like(
    canary: Canary, spoil: Callable[[World], None], decided_by: str, words: str
) -> None:
    canary.watch(canary.phases[0])
    after(canary.world, 3, lambda: spoil(canary.world))
    judgement = canary.watch(canary.phases[1])
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, decided_by)
    assert words in judgement.reason
    assert canary.world.traffic.weight_bps == 0


def test_one_late_health_probe_is_no_outage(canary: Canary) -> None:
    traffic = canary.world.traffic
    canary.watch(canary.phases[0])
    slept = [0]

    def flicker() -> None:
        slept[0] += 1
        traffic.candidate_ready = slept[0] not in (3, 4)

    canary.world.while_time_passes = flicker
    assert canary.watch(canary.phases[1]).outcome is JudgeOutcome.CONTINUE


def test_t36_evidence_that_went_stale_halts_instead_of_jumping_on(canary: Canary) -> None:
    canary.watch(canary.phases[0])
    traffic, clock = canary.world.traffic, canary.world.clock

    def machine_slept() -> None:
        clock.seconds += 20
        traffic.lease_ends_at = clock.seconds + 10  # even a plane that kept the lease does not make old evidence new

    after(canary.world, 3, machine_slept)
    judgement = canary.watch(canary.phases[1])
    assert (judgement.outcome, judgement.decided_by) == (JudgeOutcome.HALT, "evidence")
    assert "LACK_OF_EVIDENCE" in judgement.reason


def test_t35_a_record_that_cannot_be_written_ends_the_release_and_the_lease_is_not_renewed(canary: Canary) -> None:
    canary.watch(canary.phases[0])
    world = canary.world
    world.traffic.calls.clear()

    def fill() -> None:
        world.evidence.full = True

    after(world, 3, fill)
    with pytest.raises(ServiceUnavailable, match="full"):
        canary.watch(canary.phases[1])
    assert world.traffic.calls.count("renew") == 1 + 2, "while the files were read, and at both ticks"


def test_a_plane_that_does_not_take_the_weight_over_is_an_error(canary: Canary) -> None:
    canary.world.traffic.deaf = True
    with pytest.raises(TrafficNotConverged, match="0 bps after 5 s, wanted 1000 bps"):
        canary.watch(canary.phases[1])
    assert canary.world.records("tick") == []


def test_t01_lost_telemetry_is_waited_out_for_a_while_and_then_held(canary: Canary) -> None:
    world = canary.world
    canary.watch(canary.phases[0])

    def drop_the_journal() -> None:
        world.journal.waiting = world.journal.waiting[::2]  # every candidate leg is lost, and the plane says so
        lost = world.traffic.counts.captures_dropped_count + 200
        world.traffic.counts = CaptureCounts(0, lost, 0)

    world.while_time_passes = drop_the_journal
    held_for_lack_of_evidence(canary, canary.watch(canary.phases[1]), saying="TELEMETRY_DEGRADED")
    assert canary.ticks[-2].outcome is JudgeOutcome.CONTINUE, "a short loss is waited out"


def test_counters_that_start_again_explain_nothing(canary: Canary) -> None:
    world = canary.world
    canary.watch(canary.phases[0])
    world.traffic.counts = CaptureCounts(3, 3, 0)
    assert canary.watch(canary.phases[1]).outcome is JudgeOutcome.CONTINUE
    world.traffic.counts = CaptureCounts(0, 0, 0)  # Envoy was restarted
    assert canary.watch(canary.phases[2]).outcome is JudgeOutcome.CONTINUE
    assert world.records("tick")[-1]["reason"].startswith("no signal")


def test_the_bake_is_watched_by_the_same_judge(canary: Canary) -> None:
    world = canary.world
    for phase in canary.phases:
        canary.watch(phase)
    bake = plan_bake(read_test_profile().profile.canary)
    canary.analysis.move_to(bake)
    weights = [call for call in world.traffic.calls if call.startswith("weight")]
    world.candidate_prediction = 0.95
    judgement = canary.watch(bake)
    assert [call for call in world.traffic.calls if call.startswith("weight")] == weights, "a phase that stands is not asked for again"
    assert judgement.outcome is JudgeOutcome.HALT
    assert world.traffic.weight_bps == 0


def test_every_tick_says_what_was_seen(canary: Canary) -> None:
    canary.watch(canary.phases[1])
    last = canary.world.records("tick")[-1]
    assert last["weight_bps"] == 1000
    assert last["candidate_mib"] == 200.0
    for signal in last["signals"]:
        assert {"name", "value", "limit", "sample_count", "e_value", "halting_e_value", "reason"} <= signal.keys()
