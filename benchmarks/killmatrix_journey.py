"""One release from its first phase to its end, with one kill in each phase that has one due."""

import time
from dataclasses import dataclass

from benchmarks.killmatrix_cells import PHASES, Cell, Schedule, path_to
from benchmarks.killmatrix_record import Kill, Results
from benchmarks.killmatrix_release import ENDED_STATES, Followed, open_release
from benchmarks.killmatrix_settled import Settled, await_run_state, end_run, roll_back, settle
from benchmarks.killmatrix_stack import Rig, is_up
from benchmarks.killmatrix_strike import Strike, attempt, measured, phase_hit, windows

SETTLE_SECONDS = 90.0  # a stack that starts whole takes some 20 s, and a release that wakes up a lease more
GATES_SETTLE_SECONDS = 160.0  # the gates' reservation of 120 s ends by itself
REPAIR_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Journey:
    """What came of one release: its kills, and whether the stack is fit for the next one."""

    kills: list[Kill]
    is_fit: bool


def travel(rig: Rig, schedule: Schedule, results: Results) -> Journey:
    """Open a release for the cell that is due, hit it there, and on the way and afterwards what fits; wait until all has settled."""
    goal, started = schedule.next_goal(), time.monotonic()
    release = open_release(rig, is_to_halt=goal.phase == "rollback")
    try:
        strikes = _strikes(release, goal, schedule, results)
    finally:
        release.remove_fault()
    limit_seconds = GATES_SETTLE_SECONDS if any(each.cell.phase == "gates" for each in strikes) else SETTLE_SECONDS
    settled = settle(rig, release, limit_seconds=limit_seconds, is_thawed=lambda: all(each.is_thawed for each in strikes))
    ended_at, sent_count = time.monotonic(), rig.traffic.snapshot(0).total_count
    run_state, repair, is_fit = _tidy(rig, release, settled)
    hits = [each for each in strikes if _is_hit(release, each, schedule, results)]
    share_seconds = (time.monotonic() - started) / max(1, len(hits))
    kills = [
        measured(
            release,
            struck,
            until=until,
            until_sent_count=sent,
            settled=settled,
            run_state=run_state,
            repair=repair,
            elapsed_seconds=share_seconds,
        )
        for struck, until, sent in windows(strikes, ended_at, sent_count)
        if struck in hits
    ]
    for kill in kills:
        schedule.note_hit(kill.cell)
        results.add(kill)
    return Journey(kills, is_fit)


def _strikes(release: Followed, goal: Cell, schedule: Schedule, results: Results) -> list[Strike]:
    strikes: list[Strike] = []
    for phase in path_to(goal.phase):
        if release.is_ended:
            break
        cell = _choose(release, phase, goal, schedule)
        if cell is None:
            continue
        if strikes and not _is_whole(release.rig, strikes):
            if cell != goal:
                continue
            _await_whole(release, strikes)
        struck = attempt(release, cell, f"{schedule.seed}:{len(results.kills)}:{schedule.missed[cell]}")
        if struck is not None:
            strikes.append(struck)
        elif cell == goal:
            schedule.note_miss(cell)
            results.note_miss(cell)
            break
    return strikes


def _choose(release: Followed, phase: str, goal: Cell, schedule: Schedule) -> Cell | None:
    if phase == goal.phase:
        return goal
    if PHASES.index(phase) < PHASES.index(goal.phase):
        return schedule.on_the_way(phase, goal)
    return schedule.afterwards(phase)


def _is_whole(rig: Rig, strikes: list[Strike]) -> bool:
    return all(each.is_thawed for each in strikes) and is_up(rig.state, rig.init)


def _await_whole(release: Followed, strikes: list[Strike]) -> None:
    """Wait for what was hit on the way; the release goes on meanwhile, and may have passed the goal's phase then: a miss."""
    while not _is_whole(release.rig, strikes) and not release.is_ended:
        release.look()
        time.sleep(release.poll_seconds())


def _is_hit(release: Followed, struck: Strike, schedule: Schedule, results: Results) -> bool:
    """Whether the signal came in some phase of the release; one that came in another than was meant counts for that one."""
    phase = phase_hit(release, struck)
    if phase != struck.cell.phase:
        schedule.note_miss(struck.cell)
        results.note_miss(struck.cell)
    return phase in PHASES


def _tidy(rig: Rig, release: Followed, settled: Settled) -> tuple[str, str, bool]:
    """Make the stack fit for the next release: Prefect's state of the run, what was done to mend it, and whether it is."""
    repair = []
    run_state = await_run_state(release)
    if run_state not in ENDED_STATES:
        end_run(release)
        repair.append(f"the run was still {run_state} in Prefect: called Crashed")
    if settled.troubles:
        roll_back(rig)
        repair.append("interlock rollback")
        if settle(rig, None, limit_seconds=REPAIR_SECONDS).troubles:
            return run_state, "; ".join([*repair, "a new stack"]), False
    return run_state, "; ".join(repair), True
