"""The kill matrix knows in which phase it hit, for how long a share was held, and which goals a kill missed."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.killmatrix_cells import ALL_CELLS, GIVE_UP_AFTER, PHASES, QUICK_CELLS, Cell, Schedule, moment_seconds, parse_cells, path_to
from benchmarks.killmatrix_phases import (
    Sample,
    Turns,
    endings,
    longest_unrenewed_seconds,
    outage,
    phase_at,
    renewed_until,
    seconds_to_nothing,
)
from benchmarks.killmatrix_record import GOALS, LEASE_SECONDS, Kill, Results, missed_goals
from benchmarks.killmatrix_table import share_cell, user_cell
from interlock.profile.reader import read_profile

PROFILES = Path(__file__).parents[2] / "benchmarks" / "profiles"
KILL = Kill(
    target="worker",
    signal="SIGKILL",
    phase="canary",
    seed="1:2:3",
    release_id="flight-delay-2-x",
    moment_seconds=0.5,
    weight_bps=2000,
    to_nothing_seconds=3.2,
    held_seconds=4.9,
    renewed_seconds=None,
    is_survived=False,
    ending="failed",
    run_state="Crashed",
    request_count=1100,
    requests_per_second=110.0,
    failed_count=0,
    failures={},
    outage_seconds=0.0,
    slowest_ms=20.0,
    supervisor_start_count=1,
    consistent_seconds=3.0,
    troubles=(),
    repair="",
    elapsed_seconds=30.0,
)


def record(at: float, kind: str, **more: object) -> dict[str, Any]:
    return {"at": datetime.fromtimestamp(at, UTC).isoformat(), "kind": kind, **more}


GOOD = [
    record(10, "intake"),
    record(20, "phase", weight_bps=0),
    record(23, "phase", weight_bps=2000),
    record(31.5, "phase", weight_bps=10_000),
    record(31.6, "promoted"),
    record(36, "finalised"),
    record(36.1, "decision", decision="Promoted"),
]
BAD = [*GOOD[:3], record(25, "tick", outcome="HALT"), record(27, "rollback"), record(27.1, "decision", decision="RolledBack")]


@pytest.mark.parametrize(
    ("records", "at", "turns", "phase"),
    [
        pytest.param(GOOD, 9, Turns(), "before", id="before its first record"),
        pytest.param(GOOD, 15, Turns(), "gates", id="open, and no phase with traffic yet"),
        pytest.param(GOOD, 21, Turns(), "shadow", id="mirrored only"),
        pytest.param(GOOD, 24, Turns(), "canary", id="a share"),
        pytest.param(GOOD, 31.45, Turns(all_traffic_at=31.4), "promote", id="all traffic was seen before the evidence says so"),
        pytest.param(GOOD, 31.55, Turns(), "promote", id="all traffic, and the registry is not moved yet"),
        pytest.param(GOOD, 33, Turns(), "bake", id="the registry has moved"),
        pytest.param(GOOD, 36.05, Turns(), "ended", id="the former incumbent was let go"),
        pytest.param(BAD, 24.9, Turns(halted_at=24.8), "rollback", id="the share fell before the halt was written"),
        pytest.param(BAD, 26, Turns(), "rollback", id="halted, and the rollback has no receipt"),
        pytest.param(BAD, 27.05, Turns(), "ended", id="the rollback has its receipt"),
    ],
)
def test_the_phase_of_a_moment_is_told_by_evidence_and_split(records: list[dict[str, Any]], at: float, turns: Turns, phase: str) -> None:
    assert phase_at(records, at, turns) == phase


def test_endings_are_all_that_somebody_wrote() -> None:
    assert endings(GOOD) == ["Promoted"]
    assert endings([*GOOD, record(40, "failed")]) == ["Promoted", "failed"]


def samples(*weights: int | None, renewed_at: tuple[int, ...] = (0,), freed_at: int = 10**6) -> list[Sample]:
    """One a second; the lease changes at the seconds of `renewed_at`."""
    return [
        Sample(float(at), weight, None if at >= freed_at else ("r", 1, float(max(r for r in renewed_at if r <= at))))
        for at, weight in enumerate(weights)
    ]


def test_a_share_is_held_since_the_last_renewal_until_it_is_seen_gone() -> None:
    looks = samples(9, 9, 9, 9, 9, 0, 0, renewed_at=(0, 1))
    assert longest_unrenewed_seconds(looks, 2.0, silence_serves=True) == 3.0
    assert seconds_to_nothing(looks, 2.0, silence_serves=True) == 3.0
    assert renewed_until(looks, 2.0) is None
    assert renewed_until(looks, 0.5) == 0.5


def test_a_release_that_goes_on_renewing_holds_its_share_for_as_long_as_it_likes() -> None:
    looks = samples(*[9] * 10, renewed_at=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert longest_unrenewed_seconds(looks, 2.0, silence_serves=True) == 0.0
    assert seconds_to_nothing(looks, 2.0, silence_serves=True) is None


def test_a_share_that_no_lease_holds_is_held_all_the_same() -> None:
    assert longest_unrenewed_seconds(samples(9, 9, 9, 9, freed_at=1), 0.5, silence_serves=True) == 3.0


def test_an_envoy_that_is_silent_serves_nobody_when_it_was_hit_and_everybody_when_it_is_busy() -> None:
    looks = samples(9, 9, None, None, None, 9, 0)
    assert longest_unrenewed_seconds(looks, 1.0, silence_serves=False) == 1.0
    assert longest_unrenewed_seconds(looks, 1.0, silence_serves=True) == 5.0
    assert seconds_to_nothing(looks, 1.0, silence_serves=False) == 1.0
    assert seconds_to_nothing(looks, 1.0, silence_serves=True) == 5.0


def test_without_a_share_nothing_is_held() -> None:
    assert longest_unrenewed_seconds(samples(0, 0, 0, None, 0), 0.0, silence_serves=True) == 0.0


def test_an_outage_is_from_the_first_to_the_last_failure() -> None:
    assert (outage([]), outage([3.0]), outage([3.0, 1.0, 2.5])) == (0.0, 0.0, 2.0)


@pytest.mark.parametrize(
    ("kill", "missed"),
    [
        pytest.param(KILL, set(), id="traffic given back within lease and five seconds"),
        pytest.param(replace(KILL, held_seconds=10.1), {0}, id="a share held too long"),
        pytest.param(replace(KILL, failed_count=1, failures={"status 503": 1}), {1}, id="one failed request is one too many"),
        pytest.param(replace(KILL, target="envoy", failed_count=90, outage_seconds=1.9), set(), id="a dead Envoy may cost two seconds"),
        pytest.param(replace(KILL, target="incumbent", failed_count=90, outage_seconds=2.1), {2}, id="and no more"),
        pytest.param(replace(KILL, troubles=("the champion is 2",)), {3}, id="inconsistent"),
        pytest.param(replace(KILL, requests_per_second=99.0), {4}, id="too little load to say anything"),
    ],
)
def test_a_kill_misses_a_goal_by_its_number(kill: Kill, missed: set[int]) -> None:
    assert {GOALS.index(goal) for goal in missed_goals(kill)} == missed


def test_every_target_signal_and_phase_is_a_cell_and_the_quick_ones_are_ten_of_them() -> None:
    assert len(ALL_CELLS) == 9 * 2 * 6
    assert len(set(QUICK_CELLS)) == 10
    assert set(QUICK_CELLS) <= set(ALL_CELLS)


def test_cells_can_be_named_with_stars_and_a_misspelt_one_is_refused() -> None:
    assert parse_cells("fuse:SIGKILL:bake") == (Cell("fuse", "SIGKILL", "bake"),)
    assert len(parse_cells("*:SIGSTOP:gates,fuse:*:*")) == 9 + 12 - 1
    with pytest.raises(ValueError, match="fuze"):
        parse_cells("fuze:SIGKILL:bake")
    with pytest.raises(ValueError, match="TARGET:SIGNAL:PHASE"):
        parse_cells("fuse:bake")


def test_the_same_seed_draws_the_same_moment() -> None:
    cell = ALL_CELLS[0]
    assert moment_seconds(cell, "a") == moment_seconds(cell, "a") != moment_seconds(cell, "b")


def test_the_schedule_gives_every_cell_its_share_and_ends() -> None:
    schedule = Schedule(ALL_CELLS, 216, seed=1)
    while not schedule.is_over:
        schedule.note_hit(schedule.next_goal())
    assert Counter(schedule.done.values()) == {2: 108}


def test_a_cell_that_is_missed_again_and_again_is_given_up() -> None:
    schedule = Schedule(ALL_CELLS[:1], 1, seed=1)
    for _ in range(GIVE_UP_AFTER):
        assert not schedule.is_over
        schedule.note_miss(schedule.next_goal())
    assert schedule.is_over


def test_only_what_a_release_survives_is_done_on_the_way() -> None:
    schedule, goal = Schedule(ALL_CELLS, 216, seed=1), Cell("flow run", "SIGKILL", "bake")
    found = {schedule.on_the_way(phase, goal) for phase in PHASES[:3]}
    assert {cell.target for cell in found if cell} <= {"fuse", "mlflow", "prefect"}
    soon = {schedule.on_the_way("shadow", Cell("flow run", "SIGKILL", "canary"))}
    assert soon <= {None, Cell("fuse", "SIGKILL", "shadow")}, "the stack would not be whole in time"


def test_a_rollback_comes_out_of_the_canary() -> None:
    assert path_to("rollback")[-2:] == ("canary", "rollback")
    assert path_to("gates") == ("gates", "shadow", "canary", "promote", "bake")


def test_results_are_written_after_every_kill_and_a_run_goes_on_with_them(tmp_path: Path) -> None:
    results = Results(tmp_path / "deep" / "k.json", 7, 110.0)
    results.add(KILL)
    schedule, resumed = Schedule(ALL_CELLS, 216, seed=1), Results(results.path, 1, 110.0)
    resumed.resume(schedule)
    assert resumed.kills == [replace(KILL, troubles=[])]
    assert (resumed.seed, schedule.seed, schedule.done[KILL.cell]) == (7, 7, 1)
    assert json.loads((tmp_path / "deep" / "k.json").read_text())["kills"][0]["missed"] == {}


def test_the_table_tells_the_worst() -> None:
    survived = replace(KILL, is_survived=True, to_nothing_seconds=12.0, held_seconds=1.1)
    assert share_cell([KILL, survived]) == "3.2 (4.9)"
    assert share_cell([survived]) == "own (1.1)"
    assert share_cell([replace(KILL, weight_bps=0, held_seconds=0.0)]) == "-"
    assert user_cell([KILL, replace(KILL, failed_count=3, outage_seconds=1.5, troubles=("x",))]) == "3 / 1.5 · 1/2"
    assert user_cell([KILL]) == "0 · 1/1"


def test_the_lease_is_the_profiles() -> None:
    assert read_profile("killmatrix", PROFILES).profile.canary.lease_seconds == LEASE_SECONDS
