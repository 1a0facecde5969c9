"""The stories as Prefect runs them: a release ends as Promoted, Held, Rejected or RolledBack, and never with the candidate in traffic."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prefect.client.schemas.objects import State

from flows.release import release
from flows.rollback import rollback
from interlock.adapters.fakes import FakeEvidence
from interlock.control.ending import record_ending
from interlock.errors import EvidenceError, ServiceUnavailable
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput
from tests.plane_fakes import LIMITS
from tests.worlds import CANDIDATE, INCUMBENT, World


def run(profile_name: str = "short", version: str = "2") -> State[Any]:
    state: State[Any] = release("late", version, profile_name, return_state=True)
    return state


def at_weight(world: World, weight_bps: int, act: Callable[[], None]) -> None:
    """Do something once, in the first second in which the candidate has this share."""
    done = [False]

    def look() -> None:
        if world.traffic.weight_bps == weight_bps and not done[0]:
            done[0] = True
            act()

    world.while_time_passes = look


def raising(error: BaseException) -> Callable[..., None]:
    def act(*_: object) -> None:
        raise error

    return act


def is_back_to_the_incumbent(world: World, *, candidate_stage: str = "Archived") -> bool:
    traffic, registry = world.traffic, world.registry
    assert (traffic.incumbent, traffic.candidate, traffic.weight_bps, traffic.mirroring) == (INCUMBENT, None, 0, False)
    assert (traffic.release_id, registry.champions["late"]) == (None, "1")
    assert registry.versions[("late", "1")].stage == "Production"
    assert registry.versions[("late", "2")].stage == candidate_stage
    return True


def tags(world: World) -> Mapping[str, str]:
    return world.registry.versions[("late", "2")].tags


def gates(world: World) -> dict[str, str]:
    return {record["gate"]: record["outcome"] for record in world.records("gate")}


def reports(directory: Path) -> list[str]:
    return [path.read_text() for path in (directory / "evidence").glob("*.html")]


def artifacts(prefect_url: str, release_id: str) -> dict[str, str]:
    found = httpx.post(f"{prefect_url}/artifacts/filter", json={"limit": 200}, timeout=60).json()
    return {artifact["key"].removeprefix(f"{release_id.lower()}-"): artifact["data"] for artifact in found}


def is_a_table_of_signals(rows: list[dict[str, Any]]) -> bool:
    assert {"divergence", "errors", "p50", "p99"} <= {row["signal"] for row in rows}
    wanted = {"value", "limit", "n", "low", "high", "e_value", "halts_at", "more_requests_needed", "reason"}
    return all(wanted <= row.keys() for row in rows)


GATES = ("artifact", "liveness", "evaluation", "parity", "latency", "memory", "disagreement", "drift", "readiness", "traffic")
ALL_PASS = dict.fromkeys(GATES, "PASS")
# As the gates open their senders: liveness, parity, latency, memory, disagreement, readiness.
LATENCY_CANDIDATE, LATENCY_INCUMBENT, DISAGREEMENT_CANDIDATE, DISAGREEMENT_INCUMBENT = 3, 4, 7, 8


def test_a_good_candidate_is_promoted_through_every_phase(world: World, prefect_url: str, tmp_path: Path) -> None:
    state = run()
    assert (state.name, state.is_completed()) == ("Promoted", True), state.message
    assert "proved within tolerance" in str(state.message)
    traffic, registry = world.traffic, world.registry
    assert (traffic.incumbent, traffic.candidate, traffic.weight_bps, traffic.release_id) == (CANDIDATE, None, 0, None)
    assert (registry.champions["late"], registry.versions[("late", "2")].stage) == ("2", "Production")
    assert registry.versions[("late", "1")].stage == "Archived"
    assert gates(world) == ALL_PASS
    assert [record["weight_bps"] for record in world.records("phase")] == [0, 1000, 5000, 10_000]
    kinds = list(dict.fromkeys(record["kind"] for record in next(iter(world.evidence.records.values()))))
    assert kinds == [
        "intake",
        "comparator",
        "manifest",
        "gate",
        "loaded",
        "data",
        "page",
        "phase",
        "tick",
        "files",
        "final look",
        "counts",
        "promoted",
        "finalised",
        "decision",
    ]
    (intake,) = world.records("intake")
    assert intake["candidate_digest"] == CANDIDATE.digest
    assert re.fullmatch("sha256:[0-9a-f]{64}", intake["profile_digest"])
    assert tags(world)["interlock.decision"] == "Promoted"
    release_id = tags(world)["interlock.release"]
    assert "<svg" in (tmp_path / "evidence" / f"{release_id}.svg").read_text()
    assert all(text in reports(tmp_path)[0] for text in ("Promoted", "late/2", "Signals at the final look: PASS", "<svg"))
    shown = artifacts(prefect_url, release_id)
    assert {"gates", "ticks-0", "ticks-1", "ticks-2", "ticks-3", "e-values", "signals", "decision"} <= shown.keys()
    assert f"[Release report](http://page/releases/{release_id}/report.html)" in shown["decision"]
    assert is_a_table_of_signals(json.loads(shown["signals"]))


def test_a_gate_that_fails_rejects_and_still_all_gates_are_judged(world: World, tmp_path: Path) -> None:
    world.models["2"].change = lambda answers: 1 - answers
    state = run()
    assert state.name == "Rejected"
    assert str(state.message).startswith("evaluation: roc_auc")
    assert gates(world) == ALL_PASS | {"evaluation": "FAIL", "disagreement": "FAIL"}
    assert is_back_to_the_incumbent(world)
    assert world.records("phase") == [], "no user and no copy reached it"
    (report,) = reports(tmp_path)
    assert all(text in report for text in ("Rejected", "evaluation", "No signal was judged"))


def test_a_gate_that_can_say_nothing_holds(world: World) -> None:
    world.models["1"].change = lambda answers: answers * np.nan
    state = run()
    assert state.name == "Held"
    assert gates(world)["evaluation"] == "INCONCLUSIVE"
    assert tuple(gates(world)) == GATES
    assert is_back_to_the_incumbent(world)


def test_t27_a_gate_that_raises_holds_with_its_reason(world: World) -> None:
    def broken(answers: Any) -> Any:
        raise MemoryError("out of memory in predict")

    world.models["1"].change = broken
    state = run()
    assert state.name == "Held"
    assert "out of memory in predict" in str(state.message)


def test_an_incumbent_that_fails_in_the_latency_gate_holds_although_there_is_no_limit_to_compare_with(world: World) -> None:
    """The limit beside the incumbent is not a number then, and evidence must be able to say so."""
    world.failing_sender = LATENCY_INCUMBENT
    state = run()
    assert state.name == "Held", state.message
    assert gates(world) == ALL_PASS | {"latency": "INCONCLUSIVE"}
    assert None in [m["limit"] for record in world.records("gate") for m in record["measurements"]]


def test_a_candidate_that_fails_one_arm_of_the_load_is_rejected(world: World) -> None:
    world.failing_sender = LATENCY_CANDIDATE
    state = run()
    assert state.name == "Rejected", state.message
    assert gates(world)["latency"] == "FAIL"


def test_a_candidate_that_disagrees_beyond_tolerance_is_rejected_before_a_user_is_exposed(world: World) -> None:
    world.models["2"].change = lambda answers: 1 - answers
    state = run()
    assert state.name == "Rejected", state.message
    assert gates(world)["disagreement"] == "FAIL"
    reason = next(record["reason"] for record in world.records("gate") if record["gate"] == "disagreement")
    assert all(words in reason for words in ("the tolerance is 0.2", "no user was exposed")), reason
    (chosen,) = world.records("comparator")
    assert chosen["output"] == {"type": "probability", "comparator": "total_variation"}
    assert (chosen["candidate_outputs"], chosen["incumbent_outputs"]) == (["double"], ["double"])
    assert is_back_to_the_incumbent(world)
    assert world.records("phase") == [], "no user and no copy reached it"


def test_an_incumbent_whose_own_noise_reaches_the_tolerance_holds(world: World) -> None:
    noise = np.random.default_rng(3)
    world.incumbent_answer = lambda: float(noise.random())
    state = run()
    assert state.name == "Held", state.message
    assert "differs from itself" in str(state.message)
    assert gates(world) == ALL_PASS | {"disagreement": "INCONCLUSIVE", "liveness": "INCONCLUSIVE"}
    assert is_back_to_the_incumbent(world)


@pytest.mark.parametrize(
    ("sender", "outcome", "name"), [(DISAGREEMENT_CANDIDATE, "FAIL", "Rejected"), (DISAGREEMENT_INCUMBENT, "INCONCLUSIVE", "Held")]
)
def test_a_server_that_dies_in_the_disagreement_gate_is_no_pass(world: World, sender: int, outcome: str, name: str) -> None:
    world.failing_sender = sender
    state = run()
    assert state.name == name, state.message
    assert gates(world) == ALL_PASS | {"disagreement": outcome}


UNFIT = [(), (ModelOutput("", "string"),), (ModelOutput("vector", "tensor", "double", (-1, 3, 3)),)]


@pytest.mark.parametrize("outputs", UNFIT)
def test_an_incumbent_that_the_comparator_does_not_fit_fails_and_the_candidate_keeps_its_stage(
    world: World, outputs: tuple[ModelOutput, ...]
) -> None:
    world.files.outputs["1"] = outputs
    state = run()
    assert (state.name, state.is_failed()) == ("Failed", True), state.message
    assert "the incumbent late/1 cannot be compared by total_variation" in str(state.message)
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")
    assert world.traffic.token == 0


@pytest.mark.parametrize("outputs", UNFIT)
def test_a_candidate_that_the_comparator_does_not_fit_is_rejected_at_intake(world: World, outputs: tuple[ModelOutput, ...]) -> None:
    world.files.outputs["2"] = outputs
    state = run()
    assert state.name == "Rejected", state.message
    words = ("late/2 cannot be compared by total_variation", "infer_signature", *(output.described for output in outputs))
    assert all(word in str(state.message) for word in words), state.message
    assert "total_variation" in tags(world)["interlock.reason"]
    assert is_back_to_the_incumbent(world)
    assert world.traffic.token == 0, "the plane was never asked for, and nothing was loaded"


def test_divergence_in_mid_canary_rolls_back(world: World, tmp_path: Path) -> None:
    def drift() -> None:
        world.candidate_prediction = 0.95

    at_weight(world, 1000, drift)
    state = run()
    assert (state.name, state.is_completed()) == ("RolledBack", True)
    assert "divergence" in str(state.message)
    assert is_back_to_the_incumbent(world)
    assert [step["step"] for step in world.records("rollback")[0]["steps"]] == ["traffic", "registry", "capacity"]
    assert max(record["weight_bps"] for record in world.records("phase")) == 1000
    (report,) = reports(tmp_path)
    assert all(text in report for text in ("RolledBack", "past its halting line", "Requests judged until the halt"))


def test_divergence_in_the_bake_rolls_back_traffic_and_registry(world: World) -> None:
    def drift() -> None:
        world.candidate_prediction = 0.95

    at_weight(world, 10_000, drift)
    state = run()
    assert state.name == "RolledBack"
    assert world.records("promoted")
    assert is_back_to_the_incumbent(world)


def test_t12_what_is_not_proved_at_the_deadline_is_held(world: World) -> None:
    world.candidate_prediction = 0.49999  # in the canary it differs by .19999, and .2 is tolerated
    state = run()
    assert state.name == "Held"
    assert world.records("final look")[0]["outcome"] == "INSUFFICIENT"
    assert world.records("promoted") == []
    assert is_back_to_the_incumbent(world)


def test_a_plan_too_short_for_its_traffic_is_held_before_a_user_is_exposed_and_says_what_it_would_take(world: World) -> None:
    state = run("hopeless")
    assert state.name == "Held"
    assert re.search("errors gets (11|12)[0-9]{2} pairs and needs 7164: 36 s would do", str(state.message))
    assert world.records("phase") == []
    assert is_back_to_the_incumbent(world)


def test_t02_without_traffic_nobody_is_promoted(world: World) -> None:
    world.has_users = False
    state = run()
    assert (state.name, "0 live requests a second" in str(state.message)) == ("Held", True)
    assert world.records("phase") == []
    assert is_back_to_the_incumbent(world)


def test_traffic_that_dries_up_is_held_for_lack_of_evidence(world: World) -> None:
    def leave() -> None:
        world.has_users = False

    at_weight(world, 5000, leave)
    state = run()
    assert (state.name, "LACK_OF_EVIDENCE" in str(state.message)) == ("Held", True)
    assert is_back_to_the_incumbent(world)


def test_a_corrupt_artifact_is_rejected_at_intake_and_research_finds_the_reason(world: World, tmp_path: Path) -> None:
    world.files.refused = "late/2 has no signature: log the model with infer_signature"
    state = run()
    assert (state.name, state.message) == ("Rejected", world.files.refused)
    assert tags(world)["interlock.decision"] == "Rejected"
    assert "infer_signature" in tags(world)["interlock.reason"]
    assert ["infer_signature" in report for report in reports(tmp_path)] == [True]
    assert is_back_to_the_incumbent(world)
    assert world.traffic.token == 0, "the plane was never asked for"


def test_a_candidate_whose_server_ends_by_itself_is_rejected_with_its_last_words(world: World) -> None:
    world.traffic.candidate_ready = False
    world.traffic.dead_reason = "the model server of late/2 ended with exit code 3: no module lightgbm"
    state = run()
    assert (state.name, state.message) == ("Rejected", world.traffic.dead_reason)
    assert is_back_to_the_incumbent(world)


def test_a_candidate_that_never_gets_ready_fails_and_the_plane_is_free(world: World, tmp_path: Path) -> None:
    world.traffic.candidate_ready = False
    state = run()
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert "not ready after" in str(state.message)
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")
    assert ["Failed" in report and "not ready after" in report for report in reports(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("profile_name", "version", "words"),
    [
        pytest.param("nope", "2", "no release profile 'nope'; known: hopeless, short", id="an unknown profile"),
        pytest.param("../short", "2", "known: hopeless, short", id="a path as profile"),
        pytest.param("short", "9", "no late version 9", id="an unknown version"),
        pytest.param("short", "1", "late/1 is the incumbent already", id="the incumbent itself"),
    ],
)
def test_what_cannot_be_released_fails_in_one_sentence(world: World, profile_name: str, version: str, words: str) -> None:
    state = run(profile_name, version)
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert words in str(state.message)
    assert "\n" not in str(state.message)
    assert world.traffic.release_id is None
    assert world.registry.versions[("late", "2")].stage == "Staging"


def test_t24_a_second_release_waits_for_one_that_died_and_goes_on_after_it(world: World) -> None:
    world.traffic.begin("first", lease_seconds=100)
    assert run().name == "Promoted"


def test_t24_a_second_release_fails_and_does_not_disturb_one_that_lives(world: World) -> None:
    token = world.traffic.begin("first", lease_seconds=100)
    world.while_time_passes = lambda: world.traffic.renew(lease_seconds=100, token=token)
    state = run()
    assert state.is_failed()
    assert "first holds the plane" in str(state.message)
    assert world.traffic.release_id == "first"


def test_t17_an_unhealthy_incumbent_lets_no_release_begin(world: World) -> None:
    world.traffic.incumbent_ready = False
    state = run()
    assert (state.is_failed(), state.message) == (True, "INCUMBENT_UNHEALTHY")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RuntimeError("a bug"), id="a bug"),
        pytest.param(ServiceUnavailable("the journal is gone"), id="a service that is gone"),
        pytest.param(OSError("disk"), id="the operating system"),
    ],
)
def test_an_exception_in_mid_canary_puts_traffic_back_before_it_goes_on(world: World, error: Exception, tmp_path: Path) -> None:
    at_weight(world, 1000, raising(error))
    state = run()
    assert state.is_failed()
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")
    assert str(error) in world.records("failed")[0]["reason"]
    assert [str(error) in report for report in reports(tmp_path)] == [True]


def test_an_interruption_in_mid_canary_puts_traffic_back(world: World) -> None:
    at_weight(world, 5000, raising(KeyboardInterrupt()))
    with pytest.raises(BaseException):  # noqa: B017 - Prefect turns it into its own
        run().result()
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")


def test_t35_a_release_whose_record_is_not_durable_does_not_go_on(world: World) -> None:
    def fill() -> None:
        world.evidence.full = True

    at_weight(world, 1000, fill)
    state = run()
    assert state.is_failed()
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")


def test_t16_a_plane_that_was_taken_in_mid_canary_ends_the_release_and_is_left_alone(world: World) -> None:
    def taken() -> None:
        world.traffic.restore_incumbent(reason="a person")
        world.traffic.begin("another", lease_seconds=100)

    at_weight(world, 1000, taken)
    state = run()
    assert state.name == "RolledBack"
    assert "held by another" in str(state.message)
    assert [call for call in world.traffic.calls if call.startswith("restore")] == ["restore: a person"]
    assert world.traffic.release_id == "another"
    assert world.registry.versions[("late", "2")].stage == "Staging", "while another release holds the plane the registry is its own"


def test_a_plane_that_was_restored_by_a_person_ends_the_release_and_the_registry_follows(world: World) -> None:
    at_weight(world, 10_000, lambda: world.traffic.restore_incumbent(reason="a person"))
    state = run()
    assert state.name == "RolledBack"
    assert world.registry.champions["late"] == "1"
    assert world.registry.versions[("late", "2")].stage == "Archived"
    assert [call for call in world.traffic.calls if call.startswith("restore")] == ["restore: a person"]


def test_a_release_that_stood_still_longer_than_its_lease_has_lost_the_plane(world: World) -> None:
    def stand_still() -> None:
        world.clock.seconds += 60

    at_weight(world, 1000, stand_still)
    state = run()
    assert (state.name, "the lease of release" in str(state.message)) == ("Failed", True), "nobody has decided anything"
    assert endings(world) == ["failed"]
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")


def ended_by_the_plane(world: World) -> None:
    """The process stood still, its lease ran out, and whoever looks after the plane has ended its release."""
    world.clock.seconds += 60
    assert world.traffic.observe().release_id is None
    record_ending(world.evidence, next(iter(world.evidence.records)), "failed", {"reason": "nobody renewed the lease"})


def newer_release_promoted(world: World) -> None:
    three = ModelVersion("late", "3", "sha256:" + "3" * 64)
    world.registry.add("late", "3", "Staging")
    token = world.traffic.begin("newer", lease_seconds=100, above=world.registry.read_token("late"))
    world.registry.claim("late", token=token)
    world.traffic.load_candidate(three, server="interlock", thread_count=1, limits=LIMITS, token=token)
    world.traffic.set_weight(10_000, lease_seconds=100, token=token)
    world.registry.set_champion("late", "3", token=token)
    world.traffic.promote(token=token)


def endings(world: World) -> list[str]:
    (records,) = world.evidence.records.values()
    return [record["kind"] for record in records if record["kind"] in ("decision", "failed")]


@pytest.mark.parametrize("weight_bps", [1000, 10_000])
def test_a_paused_release_that_wakes_after_a_newer_one_was_promoted_changes_nothing(world: World, weight_bps: int) -> None:
    after: list[Any] = []

    def paused() -> None:
        ended_by_the_plane(world)
        newer_release_promoted(world)
        after.extend([dict(world.registry.versions), dict(world.registry.champions), world.traffic.incumbent, len(world.traffic.calls)])

    at_weight(world, weight_bps, paused)
    state = run()
    assert (state.name, state.message) == ("Failed", "nobody renewed the lease")
    assert [world.registry.versions, world.registry.champions, world.traffic.incumbent] == after[:3]
    assert not [call for call in world.traffic.calls[after[3] :] if call.split()[0] in ("restore:", "end", "weight", "promote")]
    assert endings(world) == ["failed"]


def test_a_paused_release_that_wakes_in_its_own_rollback_leaves_a_newer_one_alone(world: World) -> None:
    restore, woken = world.traffic.restore_incumbent, [False]

    def paused(*, reason: str, token: int | None = None) -> None:
        if not woken[0]:
            woken[0] = True
            ended_by_the_plane(world)
            newer_release_promoted(world)
        restore(reason=reason, token=token)

    def drift() -> None:
        world.candidate_prediction = 0.95

    at_weight(world, 1000, drift)
    world.traffic.restore_incumbent = paused  # type: ignore[method-assign]
    assert run().name == "Failed"
    assert (world.registry.champions["late"], world.registry.versions[("late", "2")].stage) == ("3", "Staging")
    assert endings(world) == ["failed"]


def test_a_release_that_names_its_champion_after_it_lost_the_plane_unknowingly_takes_that_back(world: World) -> None:
    set_champion, woken = world.registry.set_champion, [False]

    def paused(name: str, version: str, *, token: int) -> None:
        if version == "2" and not woken[0]:
            woken[0] = True
            ended_by_the_plane(world)
        set_champion(name, version, token=token)

    world.registry.set_champion = paused  # type: ignore[method-assign]
    state = run()
    assert (state.name, world.records("promoted")) == ("Failed", [])
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")
    assert endings(world) == ["failed"]


def test_a_second_controller_on_the_same_model_is_refused_before_it_changes_anything(world: World) -> None:
    world.registry.claim("late", token=7)  # by a release of another plane
    begin = world.traffic.begin

    def forgetful(release_id: str, *, lease_seconds: float, above: int = 0) -> int:
        return begin(release_id, lease_seconds=lease_seconds)

    world.traffic.begin = forgetful  # type: ignore[method-assign]
    state = run()
    assert state.is_failed()
    assert all(word in str(state.message) for word in ("token 7", "token 1", "stale")), state.message
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")
    assert world.evidence.records == {}


def test_the_first_record_says_what_it_takes_to_end_a_release_whose_process_died(
    world: World, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.evidence.append("late-2-20250101T000000000000", "failed", {"reason": "before"})
    monkeypatch.setattr("tasks.traffic._idempotency_key", lambda: "late:2:sha256:a:attempt-2")
    assert run().name == "Promoted"
    (intake,) = world.records("intake")
    assert (intake["token"], intake["stage"], intake["attempt"]) == (1, "Staging", 2)
    assert intake["resumes"] == "late-2-20250101T000000000000"
    assert intake["process"]["pid"] == os.getpid()
    assert intake["process"]["started"].isdecimal()
    assert httpx.get(f"{prefect_url}/flow_runs/{intake['flow_run_id']}", timeout=60).json()["state"]["name"] == "Promoted"
    assert world.registry.read_token("late") == 1


def test_the_last_attempt_that_fails_leaves_it_to_the_intake_to_archive_and_say_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.traffic._idempotency_key", lambda: "late:2:sha256:a:attempt-3")
    at_weight(world, 1000, raising(RuntimeError("a bug")))
    assert run().is_failed()
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")


@pytest.mark.parametrize("key", ["late:2:sha256:a", "", "late:22:sha256:a"])
def test_a_version_that_was_taken_back_while_its_run_waited_is_not_released_but_for_a_person(
    world: World, prefect_url: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("tasks.traffic._idempotency_key", lambda: key)
    world.registry.move("late", "2", "None")
    state = run("hopeless")
    if key != "late:2:sha256:a":
        assert state.name == "Held"
        return
    assert (state.name, state.is_cancelled()) == ("Withdrawn", True)
    assert all(words in str(state.message) for words in ("stage None", "nothing was released", "move it back")), state.message
    assert (world.evidence.records, world.traffic.token, world.registry.read_token("late")) == ({}, 0, 0)
    found = httpx.post(f"{prefect_url}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}, timeout=60).json()
    assert (found[0]["state"]["type"], found[0]["state"]["name"]) == ("CANCELLED", "Withdrawn")


def test_a_registry_that_is_away_for_longer_than_a_rollback_waits_makes_no_failure_of_a_halt(world: World) -> None:
    def drift() -> None:
        world.candidate_prediction = 0.95
        began: list[float] = []

        def look() -> None:
            if world.traffic.release_id is None and world.traffic.token:
                began.append(world.clock.monotonic())
                world.registry.down = world.clock.monotonic() - began[0] < 70

        world.while_time_passes = look

    at_weight(world, 1000, drift)
    world.traffic.restore_incumbent = stopping_the_registry(world)  # type: ignore[method-assign]
    state = run()
    assert (state.name, endings(world)) == ("RolledBack", ["decision"]), state.message
    assert is_back_to_the_incumbent(world)
    assert tags(world)["interlock.decision"] == "RolledBack"


def stopping_the_registry(world: World) -> Callable[..., None]:
    restore, done = world.traffic.restore_incumbent, [False]

    def act(*, reason: str, token: int | None = None) -> None:
        restore(reason=reason, token=token)
        world.registry.down = world.registry.down or not done[0]
        done[0] = True

    return act


@pytest.mark.parametrize("seconds", [600.0, -600.0])
def test_a_wall_clock_that_jumps_ten_minutes_in_the_canary_changes_no_decision(world: World, seconds: float) -> None:
    def jump() -> None:
        world.clock.jumped_seconds += seconds

    at_weight(world, 1000, jump)
    state = run()
    assert state.name == "Promoted", state.message
    (counts,) = [record for record in world.records("final look") if record["outcome"] == "PASS"]
    assert counts


def test_a_registry_that_is_down_at_the_promotion_takes_traffic_back(world: World) -> None:
    def down() -> None:
        world.registry.down = True
        world.while_time_passes = back_after(30)

    def back_after(seconds: float) -> Callable[[], None]:
        until = world.clock.monotonic() + seconds

        def look() -> None:
            world.registry.down = world.clock.monotonic() < until

        return look

    def at_promotion(version: str) -> None:
        down()
        raise ServiceUnavailable("the registry is down")

    set_champion = world.registry.set_champion

    def first_time_down(name: str, version: str, *, token: int) -> None:
        if version == "2":
            at_promotion(version)
        set_champion(name, version, token=token)

    world.registry.set_champion = first_time_down  # type: ignore[method-assign]
    state = run()
    assert state.is_failed()
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")


@pytest.mark.parametrize(("where", "name"), [("decision", "Failed"), ("finalised", "Promoted")])
def test_what_goes_wrong_after_the_promotion_leaves_registry_and_traffic_on_the_same_version(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    """The plane serves the candidate for good by then: a registry put back to the former one would contradict it."""
    append = FakeEvidence.append

    def full_at(self: FakeEvidence, release_id: str, kind: str, payload: Mapping[str, Any]) -> None:
        if kind == where:
            raise ServiceUnavailable("the disk is full")
        append(self, release_id, kind, payload)

    monkeypatch.setattr(FakeEvidence, "append", full_at)
    assert run().name == name
    assert world.traffic.incumbent == CANDIDATE
    assert world.registry.champions["late"] == "2"
    assert world.registry.versions[("late", "2")].stage == "Production"


def test_a_decision_stands_when_its_pictures_cannot_be_shown(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space left for a picture")

    monkeypatch.setattr("tasks.conclusion.publish_chart", broken)
    assert run().name == "Promoted"
    assert world.traffic.incumbent == CANDIDATE
    assert len(reports(tmp_path)) == 1, "one picture that fails does not take the others with it"


def test_a_failure_stands_when_its_report_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.evidence.write_report", raising(OSError("no space left for a report")))
    at_weight(world, 1000, raising(RuntimeError("a bug")))
    assert "a bug" in str(run().message)
    assert is_back_to_the_incumbent(world, candidate_stage="Staging")


def test_the_evidence_is_read_once_for_all_the_pictures_of_a_decision(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read, readings = FakeEvidence.read, []

    def counted(self: FakeEvidence, release_id: str) -> Any:
        records = read(self, release_id)
        readings.extend([records] if records and records[-1]["kind"] == "decision" else [])
        return records

    monkeypatch.setattr(FakeEvidence, "read", counted)
    assert run().name == "Promoted"
    assert len(readings) == 2, "once to see which ending stands, once for all the pictures"


def test_a_first_record_that_cannot_be_written_leaves_the_plane_free(world: World) -> None:
    world.evidence.append = raising(EvidenceError("the intake cannot be written"))  # type: ignore[method-assign]
    state = run()
    assert state.is_failed()
    assert "intake cannot be written" in str(state.message)
    assert world.traffic.release_id is None


def test_only_an_outage_is_tried_again(world: World) -> None:
    observe, calls = world.traffic.observe, [0]

    def down_at_first() -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise ServiceUnavailable("the plane does not answer")
        return observe()

    world.traffic.observe = down_at_first  # type: ignore[method-assign]
    assert run("hopeless").name == "Held"


def test_the_rollback_flow_restores_whatever_the_plane_does(world: World, prefect_url: str) -> None:
    session = world.session()
    world.traffic.set_weight(10_000, lease_seconds=10, token=session.release.token)
    world.registry.set_champion("late", "2", token=session.release.token)
    for _ in range(2):
        state: State[Any] = rollback("asked for by a person", return_state=True)
        assert (state.name, state.is_completed()) == ("RolledBack", True)
        assert "late/1 serves all traffic" in str(state.message)
        assert is_back_to_the_incumbent(world)
    found = httpx.post(f"{prefect_url}/artifacts/filter", json={"limit": 200}, timeout=60).json()
    receipt = next(artifact for artifact in found if artifact["key"] == "rollback-receipt")
    assert "asked for by a person" in receipt["description"]
    assert [word in receipt["data"] for word in ("traffic", "registry", "capacity")] == [True] * 3


def test_t20_a_rollback_that_was_not_observed_is_failed(world: World) -> None:
    world.traffic.incumbent = None
    state: State[Any] = rollback("a drill", return_state=True)
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert "page the on-call" in str(state.message)


def test_a_rollback_of_an_unreachable_plane_is_failed(world: World) -> None:
    world.traffic.down = True
    state: State[Any] = rollback("a drill", return_state=True)
    assert state.is_failed()


def test_a_model_of_another_plane_is_refused(world: World) -> None:
    world.traffic.incumbent = ModelVersion("other", "1", "sha256:0")
    state = run()
    assert state.is_failed()
    assert "serves other, not late" in str(state.message)
