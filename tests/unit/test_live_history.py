"""The live traffic of the last hour, whatever Envoy's counter does meanwhile."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.adapters.fakes import FakeClock, FakeTraffic
from interlock.control.gates.run import run_traffic
from interlock.control.live_traffic import read_last_hour
from interlock.errors import NoSamples
from interlock.model.plane import CaptureCounts, LiveTraffic
from interlock.plane.live_history import KEPT_EVERY_SECONDS, WINDOW_SECONDS, LiveHistory
from tests.worlds import INCUMBENT, REQUESTS_PER_SECOND, World


@dataclass
class Counter:
    """Envoy's counter and a history of it."""

    clock: FakeClock = field(default_factory=FakeClock)
    count: int = 0

    def __post_init__(self) -> None:
        self.history = LiveHistory(self.clock)

    def look(self) -> LiveTraffic:
        return self.history.complete(lambda: CaptureCounts(1, 2, self.count)).last_hour

    def serve(self, count: int, seconds: float) -> LiveTraffic:
        self.count += count
        self.clock.seconds += seconds
        return self.look()


def test_what_envoy_had_counted_before_the_plane_was_taken_over_is_not_of_this_hour() -> None:
    envoy = Counter(count=1_000_000)
    assert envoy.look() == LiveTraffic(0, 0.0)
    assert envoy.serve(50, 5.0) == LiveTraffic(50, 5.0)


def test_the_time_before_anybody_asked_for_anything_makes_no_traffic_small() -> None:
    """A plane that has just been started, and its first version judged for a minute: its users come only then."""
    envoy = Counter()
    for _ in range(6):
        assert envoy.serve(0, 10.0) == LiveTraffic(0, 0.0)
    assert envoy.serve(600, 10.0) == LiveTraffic(600, 10.0)
    assert envoy.serve(0, 10.0) == LiveTraffic(600, 20.0), "but a pause is a pause"


def test_an_envoy_that_was_restarted_counts_on() -> None:
    envoy = Counter()
    envoy.look()
    envoy.serve(500, 10.0)
    envoy.count = 0
    assert envoy.serve(40, 10.0) == LiveTraffic(540, 20.0)
    assert envoy.serve(60, 10.0) == LiveTraffic(600, 30.0)


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    envoy = Counter()
    envoy.look()
    for _ in range(720):
        envoy.serve(1_000, 5.0)
    for _ in range(720):
        seen = envoy.serve(5, 5.0)
    assert seen == LiveTraffic(720 * 5, 3600.0)


def test_a_plane_that_nobody_looked_at_for_hours_has_seen_nothing_lately() -> None:
    envoy = Counter()
    envoy.look()
    assert envoy.serve(1_000, 2 * WINDOW_SECONDS) == LiveTraffic(0, 0.0)


@given(
    steps=st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.01, 900.0), st.booleans()), min_size=1, max_size=60),
)
def test_law_the_history_never_claims_more_than_was_served_nor_more_than_an_hour(steps: list[tuple[int, float, bool]]) -> None:
    envoy, served = Counter(), 0
    envoy.look()
    for count, seconds, is_restarted in steps:
        envoy.count = 0 if is_restarted else envoy.count
        served += count
        seen = envoy.serve(count, seconds)
        assert 0 <= seen.requests_count <= served
        assert 0.0 <= seen.seen_seconds <= WINDOW_SECONDS


def test_steady_traffic_is_seen_at_its_rate_however_often_somebody_looks() -> None:
    for pause in (0.5, 2.0, KEPT_EVERY_SECONDS, 60.0):
        envoy = Counter()
        envoy.look()
        for _ in range(int(4000 / pause)):
            seen = envoy.serve(int(20 * pause), pause)
        assert seen.requests_count / seen.seen_seconds == pytest.approx(20.0)
        assert seen.seen_seconds > WINDOW_SECONDS - 2 * max(pause, KEPT_EVERY_SECONDS)


def test_readers_that_overtake_each_other_are_no_restart() -> None:
    """A count read early and noted late is smaller than the last one: it would look like a reset, and be added whole."""
    envoy, is_reading = Counter(), threading.Event()
    envoy.look()
    envoy.serve(1_000, 5.0)

    def read_slowly() -> CaptureCounts:
        counts = CaptureCounts(0, 0, envoy.count)
        is_reading.set()
        second.start()
        second.join(0.2)
        return counts

    def read_later() -> None:
        envoy.count += 10
        envoy.look()

    second = threading.Thread(target=read_later)
    envoy.history.complete(read_slowly)
    second.join()
    assert is_reading.is_set()
    assert envoy.look().requests_count == 1_010


def test_the_traffic_gate_waits_until_something_was_seen() -> None:
    world = World()
    verdict = run_traffic(world.session())
    assert "as seen in the last 5 s" in verdict.reason
    assert f"{REQUESTS_PER_SECOND} live requests a second" in verdict.reason


def test_the_traffic_gate_takes_the_whole_hour_and_does_not_wait_for_it() -> None:
    world = World()
    session = world.session()
    world.traffic.counts = CaptureCounts(0, 0, 7, LiveTraffic(600_000, 3000.0))
    began = world.clock.monotonic()
    assert "as seen in the last 3000 s" in run_traffic(session).reason
    assert world.clock.monotonic() == began


def test_a_count_that_does_not_go_on_is_no_sample() -> None:
    clock = FakeClock()
    with pytest.raises(NoSamples, match=r"0\.0 s, needs 5"):
        read_last_hour(FakeTraffic(clock, INCUMBENT), clock)
