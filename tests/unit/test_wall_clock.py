"""The journal is stamped by another process's wall clock; when that jumps, pairs are counted as before, and nothing expires."""

from collections.abc import Callable

import pytest

from interlock.control.analysis import Analysis
from interlock.control.counting import PairCounter
from interlock.judge.readings import JudgeOutcome
from interlock.plan.phases import Phase, plan_phases
from tests.worlds import World


def counted(*, jumps: Callable[[World, int], None] = lambda world, slept: None) -> tuple[JudgeOutcome, dict[str, int]]:
    """Outcome and counters of a whole canary, with something done to the world at every sleep."""
    world, slept = World(), [0]
    session = world.session()

    def pass_time() -> None:
        slept[0] += 1
        jumps(world, slept[0])

    world.while_time_passes = pass_time
    analysis = Analysis(session)
    for phase in plan_phases(session.profile.canary):
        assert analysis.watch(phase).outcome is JudgeOutcome.CONTINUE
    outcome = analysis.final_look().outcome
    (counts,) = world.records("counts")
    return outcome, counts["tally"]["counters"]


@pytest.mark.parametrize("seconds", [600.0, -600.0, 7.0, 86_400.0])
@pytest.mark.parametrize("at_sleep", [3, 15, 25])
def test_a_jump_costs_no_pair_and_no_decision(seconds: float, at_sleep: int) -> None:
    def jump(world: World, slept: int) -> None:
        if slept == at_sleep:
            world.clock.jumped_seconds += seconds

    outcome, counters = counted(jumps=jump)
    _, steady = counted()
    assert outcome is JudgeOutcome.PASS
    assert abs(counters["judged"] - steady["judged"]) <= 0.02 * steady["judged"]
    assert {name: count for name, count in counters.items() if "missing" in name} == {name: 0 for name in counters if "missing" in name}


def test_a_clock_that_jumps_there_and_back_again_and_again_is_borne() -> None:
    def jump(world: World, slept: int) -> None:
        if slept % 5 == 0:
            world.clock.jumped_seconds = 600.0 - world.clock.jumped_seconds

    assert counted(jumps=jump)[0] is JudgeOutcome.PASS


@pytest.mark.parametrize("late_seconds", [3, 8, 20])
def test_segments_that_come_late_are_no_jump(late_seconds: int) -> None:
    """A busy disk holds a segment back; behind it come fresh legs, and none of them is from the future."""
    world = World()
    counter = PairCounter(world.session())
    waiting = world.journal
    counter.begin(Phase(0, "shadow", 0, 100.0))
    world.traffic.set_mirroring(enabled=True, token=1)
    for second in range(60):
        world.clock.sleep(1.0)
        held, waiting.waiting = (waiting.waiting, []) if 10 <= second < 10 + late_seconds else ([], waiting.waiting)
        counter.count()
        waiting.waiting = held
    assert counter.tally.to_dict()["counters"]["judged"] > 9000
    assert {count for name, count in counter.tally.to_dict()["counters"].items() if "missing" in name} <= {0}
    assert counter._jumped_seconds == 0
