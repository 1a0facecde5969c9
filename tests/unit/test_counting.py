"""How the journal becomes counts: by the phase in which a request was asked, and by key where keys are the unit."""

import dataclasses

import pytest

from interlock.control.counting import PairCounter, step_at
from interlock.judge.pairs import Fate
from interlock.judge.tally import FRESH, KEYLESS
from interlock.model.journal import Arm, Leg, Role
from interlock.plan.phases import Phase
from interlock.profile.reader import parse_profile
from tests.worlds import World, read_test_profile

GOOD = '{"predictions": [0.3]}'


def counter(world: World, *, is_keyed: bool) -> PairCounter:
    text = read_test_profile().text
    loaded = parse_profile(text.replace("unit: request", "unit: key") if is_keyed else text, source="test")
    return PairCounter(dataclasses.replace(world.session(), loaded=loaded))


def legs(request_id: str, asked_at: float, *, key: str, fails: bool, live: Arm = Arm.INCUMBENT) -> list[tuple[float, Leg]]:
    """Both halves with the moment at which the collector gets them; a failing candidate is known two seconds later."""
    found = []
    for arm in Arm:
        is_late = fails and arm is Arm.CANDIDATE
        at, role = asked_at + (2.0 if is_late else 0.0), Role.LIVE if arm is live else Role.MIRROR
        answer = (0, None, None) if is_late else (200, 9.0, GOOD)
        found.append((at, Leg(request_id, arm, role, at, answer[0], answer[1], "0" * 16, answer[2], "m", key=key)))
    return found


def run_canary(counting: PairCounter, world: World, *, failing_share: float) -> None:
    """30 s in which a hundred customers come one after the other, each ten times at half-second intervals."""
    counting.begin(Phase(0, "shadow", 0, 30.0))
    start, waiting = world.clock.utc_now().timestamp(), list[tuple[float, Leg]]()
    for customer in range(100):
        for turn in range(10):
            fails = turn == 0 and customer % 10 < 10 * failing_share  # the first request of some, the good ones after it settle sooner
            waiting += legs(f"{customer}-{turn}", start + customer * 0.2 + turn * 0.5, key=f"{customer:016x}", fails=fails)
    while world.clock.utc_now().timestamp() < start + 35:
        world.clock.sleep(1.0)
        now = world.clock.utc_now().timestamp()
        world.journal.waiting += [leg for at, leg in waiting if at <= now]
        waiting = [(at, leg) for at, leg in waiting if at > now]
        counting.count()


def test_a_key_counts_by_its_first_request_also_when_that_one_timed_out() -> None:
    """Counted as they settle, the failures of customers who ask again would all be discarded, and a failing candidate pass."""
    world = World(has_users=False)
    counting = counter(world, is_keyed=True)
    run_canary(counting, world, failing_share=0.2)
    counts = counting.tally.errors.totals()
    assert counting.tally.counters[FRESH] == 100
    assert (counts[2] + counts[3]) / counts.sum() == pytest.approx(0.2)


def test_request_by_request_every_pair_counts() -> None:
    world = World(has_users=False)
    counting = counter(world, is_keyed=False)
    run_canary(counting, world, failing_share=0.2)
    assert counting.tally.counters[FRESH] == counting.tally.counters[Fate.JUDGED] == 1000
    assert counting.tally.counters[KEYLESS] == 0


def test_what_may_have_been_routed_before_a_step_tells_nothing_of_its_split() -> None:
    world = World(has_users=False)
    counting = counter(world, is_keyed=False)
    start = world.clock.utc_now().timestamp()
    counting.begin(Phase(0, "shadow", 0, 10.0))
    for second in range(10):
        world.journal.waiting += [leg for _, leg in legs(str(second), start + second, key="", fails=False)]
        world.clock.sleep(1.0)
        counting.count()
    settled = [second for second in range(10) if second >= 3.0]  # the pair deadline of the profile
    assert sum(counting.tally.assigned.values()) == len(settled)
    assert counting.tally.counters[FRESH] == 10, "as evidence of everything else they count"


@pytest.mark.parametrize(
    ("at", "expected"),
    [(9.0, (0, True)), (10.0, (0, True)), (12.9, (0, True)), (13.0, (0, False)), (19.9, (0, False)), (20.0, (1, True)), (23.0, (1, False))],
)
def test_a_step_settles_for_one_deadline(at: float, expected: tuple[int, bool]) -> None:
    assert step_at([(10.0, 0), (20.0, 1)], at, settling_seconds=3.0) == expected
