"""The latency gate sees a slow, a failing and a stalling candidate, and passes none of them."""

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.adapters.clock import SystemClock
from interlock.adapters.fakes import FakeClock
from interlock.control.gates.edge import judge_required
from interlock.control.gates.inputs import Sender
from interlock.control.gates.latency import REQUIRED, ColdStart, judge_latency, latency_measurements
from interlock.control.gates.load import ArmReadings, Load, LoadReadings, Pause, Targets, offer_load
from interlock.control.gates.run import run_latency
from interlock.errors import ServiceUnavailable
from interlock.model.verdict import Outcome, Verdict
from interlock.profile.gates import Latency, LatencyLimit
from tests.worlds import World

P50 = LatencyLimit(max_ms=50.0, max_ratio_to_incumbent=1.5, slack_ms=10.0)
P95 = LatencyLimit(max_ms=100.0, max_ratio_to_incumbent=2.0, slack_ms=20.0)
P99 = LatencyLimit(max_ms=200.0, max_ratio_to_incumbent=2.0, slack_ms=20.0)
POLICY = Latency(request_count=400, warm_up_request_count=5, requests_per_second=4000.0, p50=P50, p95=P95, p99=P99)
LOOSE = LatencyLimit(max_ms=9000.0, max_ratio_to_incumbent=2.0, slack_ms=9000.0)  # whatever else this machine does meanwhile
GENTLE = POLICY.model_copy(update={"p50": LOOSE, "p95": LOOSE, "p99": LOOSE})
STARTED = ColdStart(5.0, 60.0)
BETA = 0.05


def arm(ms: float = 10.0, *, count: int = 400, slow_count: int = 0, slow_ms: float = 0.0, failures: tuple[str, ...] = ()) -> ArmReadings:
    """Slow answers are spread evenly, failures come last."""
    latencies = [ms] * (count - len(failures)) + [math.inf] * len(failures)
    for index in range(slow_count):
        latencies[index * (count // slow_count)] = slow_ms
    return ArmReadings(tuple(latencies), failures)


def judge_readings(candidate: ArmReadings, incumbent: ArmReadings, *, start: ColdStart = STARTED, policy: Latency = POLICY) -> Verdict:
    measurements = latency_measurements(policy, LoadReadings(candidate, incumbent), start=start, error=BETA)
    return judge_required("latency", measurements, required=REQUIRED)


@pytest.mark.parametrize(
    ("candidate", "incumbent", "outcome"),
    [
        pytest.param(arm(10), arm(10), Outcome.PASS, id="as fast as the incumbent passes"),
        pytest.param(arm(20), arm(10), Outcome.PASS, id="within the slack passes"),
        pytest.param(arm(20.1), arm(10), Outcome.FAIL, id="beyond ratio and slack fails"),
        pytest.param(arm(45), arm(30), Outcome.PASS, id="within the ratio passes"),
        pytest.param(arm(46), arm(30), Outcome.FAIL, id="beyond the ratio fails"),
        pytest.param(arm(50.1), arm(50), Outcome.FAIL, id="a slow incumbent does not lift the absolute limit"),
        pytest.param(arm(10, slow_count=80, slow_ms=190), arm(10), Outcome.FAIL, id="a fifth slow is beyond p95 and p99"),
        pytest.param(arm(10, slow_count=12, slow_ms=190), arm(10), Outcome.FAIL, id="twelve slow answers of 400 are the p99"),
        pytest.param(arm(10, slow_count=4, slow_ms=190), arm(10), Outcome.INCONCLUSIVE, id="four of 400 may be one in a hundred or not"),
        pytest.param(arm(10, slow_count=4, slow_ms=25), arm(10), Outcome.PASS, id="four that are hardly slow pass"),
        pytest.param(arm(10, slow_count=8, slow_ms=190), arm(10, slow_count=8, slow_ms=190), Outcome.PASS, id="stalls of both cancel"),
        pytest.param(arm(10, failures=("boom",)), arm(10), Outcome.FAIL, id="one failed request fails"),
        pytest.param(arm(count=0), arm(10), Outcome.INCONCLUSIVE, id="no answer at all is not a pass"),
        pytest.param(arm(count=399), arm(10), Outcome.INCONCLUSIVE, id="one request too few is not a pass"),
        pytest.param(arm(10), arm(count=0), Outcome.INCONCLUSIVE, id="no incumbent to compare with is not a pass"),
        pytest.param(arm(10), arm(10, count=399), Outcome.INCONCLUSIVE, id="a thin incumbent is not a pass"),
        pytest.param(arm(10), arm(10, count=401, failures=("boom",)), Outcome.INCONCLUSIVE, id="a failing incumbent is no yardstick"),
        pytest.param(arm(math.nan), arm(10), Outcome.INCONCLUSIVE, id="T06: nan is not a pass"),
        pytest.param(arm(10), arm(math.nan), Outcome.INCONCLUSIVE, id="T06: an incumbent that is nan is no yardstick"),
        pytest.param(arm(10), arm(math.inf), Outcome.INCONCLUSIVE, id="T06: an infinite incumbent is no yardstick"),
    ],
)
def test_readings_are_judged(candidate: ArmReadings, incumbent: ArmReadings, outcome: Outcome) -> None:
    verdict = judge_readings(candidate, incumbent)
    assert verdict.outcome is outcome, verdict.reason


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(60.0, Outcome.PASS), (60.1, Outcome.FAIL), (None, Outcome.INCONCLUSIVE), (math.nan, Outcome.INCONCLUSIVE)],
)
def test_a_cold_start_has_its_limit_and_must_have_been_recorded(seconds: float | None, outcome: Outcome) -> None:
    verdict = judge_readings(arm(), arm(), start=ColdStart(seconds, 60.0))
    assert verdict.outcome is outcome
    assert verdict.outcome is Outcome.PASS or "start_seconds" in verdict.reason


def test_too_few_requests_for_a_p99_are_inconclusive_however_quick_they_are() -> None:
    verdict = judge_readings(arm(count=300), arm(count=300), policy=POLICY.model_copy(update={"request_count": 300}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "p99_ms 10 [10, inf] is not proved to be within 200" in verdict.reason


def test_value_and_limit_beside_the_incumbent_are_milliseconds_slower() -> None:
    beside = {m.name: m for m in judge_readings(arm(45), arm(30)).measurements}["p50_next_to_incumbent_ms"]
    assert (beside.value, beside.limit) == (15.0, 15.0)


def test_the_warm_up_is_shown_and_decides_nothing() -> None:
    verdict = judge_readings(replace(arm(), warm_up_ms=(900.0, 10.0, 12.0)), arm())
    assert verdict.outcome is Outcome.PASS, verdict.reason
    shown = {m.name: m.value for m in verdict.measurements if m.name.startswith("warm_up")}
    assert shown == {"warm_up_p50_ms": 12.0, "warm_up_max_ms": 900.0}


@st.composite
def some_latencies(draw: st.DrawFn) -> list[float]:
    """400 latencies with a heavy tail, around some median."""
    random, median = np.random.default_rng(draw(st.integers(0, 10**6))), draw(st.sampled_from([5.0, 20.0, 45.0, 60.0]))
    return [float(each) for each in median * random.lognormal(0, draw(st.sampled_from([0.0, 0.2, 0.8])), 400)]


UNREADABLE = st.sampled_from([math.nan, math.inf, -math.inf])


@settings(max_examples=12, deadline=None)
@given(candidate=some_latencies(), incumbent=some_latencies(), more_ms=st.floats(min_value=0, max_value=500))
def test_a_slower_candidate_is_never_judged_better(candidate: list[float], incumbent: list[float], more_ms: float) -> None:
    slower = ArmReadings(tuple(ms + more_ms for ms in candidate))
    assert (
        judge_readings(slower, ArmReadings(tuple(incumbent))).outcome
        >= judge_readings(ArmReadings(tuple(candidate)), ArmReadings(tuple(incumbent))).outcome
    )


@settings(max_examples=12, deadline=None)
@given(latencies=some_latencies(), garbage=UNREADABLE, is_candidate=st.booleans(), share=st.floats(min_value=0.001, max_value=1))
def test_t06_garbage_among_the_latencies_never_passes(latencies: list[float], garbage: float, is_candidate: bool, share: float) -> None:
    spoilt = ArmReadings(tuple(garbage if index < share * 400 else ms for index, ms in enumerate(latencies)))
    arms = (spoilt, arm()) if is_candidate else (arm(), spoilt)
    assert judge_readings(*arms).outcome is not Outcome.PASS


def answers(_: bytes) -> None:
    """A server that answers at once."""


def refuses(_: bytes) -> None:
    raise ServiceUnavailable("503 from http://user:hunter2@127.0.0.1/invocations")


def judge(
    candidate: Sender, incumbent: Sender = answers, *, policy: Latency = GENTLE, failure: Callable[[], str | None] = lambda: None
) -> Verdict:
    targets = Targets(candidate, incumbent, SystemClock(), candidate_failure=failure)
    return judge_latency(policy, targets, payloads=[b"{}"], start=STARTED, error=BETA)


class Once:
    """Fails, or stalls, on one request only. A lock makes it a server with a single worker."""

    def __init__(self, at: int, *, stall_seconds: float = 0.0) -> None:
        self._lock, self._seen, self._at, self._stall_seconds = threading.Lock(), 0, at, stall_seconds

    def __call__(self, payload: bytes) -> None:
        with self._lock:
            self._seen += 1
            if self._seen == self._at:
                if not self._stall_seconds:
                    raise ServiceUnavailable("one answer was 503")
                time.sleep(self._stall_seconds)


def test_a_quick_candidate_passes() -> None:
    verdict = judge(answers)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert [m.name for m in verdict.measurements] == [*REQUIRED, "warm_up_p50_ms", "warm_up_max_ms"]
    assert {m.sample_count for m in verdict.measurements if m.bounds} == {400}
    assert {m.bounds.confidence_percent for m in verdict.measurements if m.bounds} == {97.5}, "half of the error is for a second look"


def test_a_slow_candidate_fails() -> None:
    slow = lambda _: time.sleep(0.08)  # noqa: E731
    verdict = judge(slow, policy=POLICY)
    assert verdict.outcome is Outcome.FAIL
    assert "p50_ms" in verdict.reason


def test_one_failed_request_fails_and_is_quoted() -> None:
    verdict = judge(Once(50))
    assert verdict.outcome is Outcome.FAIL
    assert "failed_request_count 1 > 0" in verdict.reason
    assert "one answer was 503" in verdict.reason


def test_a_request_that_fails_in_the_warm_up_fails_too() -> None:
    assert judge(Once(2)).outcome is Outcome.FAIL


def test_a_failing_candidate_fails_early_and_keeps_its_secrets() -> None:
    verdict = judge(refuses)
    assert verdict.outcome is Outcome.FAIL
    assert "hunter2" not in verdict.reason
    assert verdict.measurements[1].sample_count < 400


def test_a_candidate_that_ended_fails_with_its_last_words() -> None:
    assert "MemoryError" in judge(refuses, failure=lambda: "the model server of late/2 ended with exit code 1: MemoryError").reason


def test_a_plane_that_cannot_say_why_does_not_hide_the_failures() -> None:
    def down() -> str | None:
        raise ServiceUnavailable("the plane does not answer")

    assert judge(refuses, failure=down).outcome is Outcome.FAIL


def test_a_failing_incumbent_is_inconclusive() -> None:
    assert judge(answers, refuses).outcome is Outcome.INCONCLUSIVE


def test_without_payloads_nothing_is_proved() -> None:
    targets = Targets(answers, answers, SystemClock())
    assert judge_latency(GENTLE, targets, payloads=[], start=STARTED, error=BETA).outcome is Outcome.INCONCLUSIVE


def test_an_undecided_first_look_is_followed_by_a_second_and_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[int] = []

    def offer(load: Load, targets: Targets, *, payloads: object) -> LoadReadings:
        offered.append(load.request_count)
        slow_count = 4 if len(offered) == 1 else 0
        return LoadReadings(arm(count=load.request_count, slow_count=slow_count, slow_ms=190), arm(count=load.request_count))

    monkeypatch.setattr("interlock.control.gates.latency.offer_load", offer)
    verdict = judge(answers, policy=POLICY)
    assert offered == [400, 800]
    assert verdict.outcome is Outcome.PASS, "4 of 1,200 are surely fewer than one in a hundred"
    assert "the first look, at 400 requests, was undecided" in verdict.reason
    assert {m.sample_count for m in verdict.measurements if m.bounds} == {1200}


@pytest.mark.parametrize("candidate", [arm(100), arm(10), arm(10, slow_count=4, slow_ms=190, failures=("boom",)), arm(math.nan)])
def test_what_is_decided_or_broken_is_not_looked_at_twice(candidate: ArmReadings, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[int] = []

    def offer(load: Load, targets: Targets, *, payloads: object) -> LoadReadings:
        offered.append(load.request_count)
        return LoadReadings(candidate, arm())

    monkeypatch.setattr("interlock.control.gates.latency.offer_load", offer)
    judge(answers, policy=POLICY)
    assert offered == [400]


def test_one_stall_slows_every_request_that_was_due_meanwhile() -> None:
    """Coordinated omission: a closed loop would read one slow answer here and 99 quick ones."""
    seen, lock, everybody_else_is_done = itertools.count(1), threading.Lock(), threading.Event()

    def incumbent(_: bytes) -> None:
        if next(seen) == 100:
            everybody_else_is_done.set()

    def candidate(_: bytes) -> None:
        with lock:
            assert everybody_else_is_done.wait(20), "the stall of one arm held up the other one's requests"

    load = Load(request_count=100, warm_up_request_count=0, requests_per_second=1000.0)
    read = offer_load(load, Targets(candidate, incumbent, SystemClock()), payloads=[b"{}"])
    assert read.candidate.failures == ()
    slower_count = sum(ours > theirs for ours, theirs in zip(read.candidate.latencies_ms, read.incumbent.latencies_ms, strict=True))
    assert slower_count > 90, "what was due during the stall waited for it, also where no thread was free to send it"


def test_slow_answers_do_not_hold_back_the_requests_behind_them() -> None:
    eight_at_once = threading.Barrier(8, timeout=20)

    def candidate(_: bytes) -> None:
        eight_at_once.wait()

    load = Load(request_count=96, warm_up_request_count=0, requests_per_second=400.0)
    read = offer_load(load, Targets(candidate, answers, SystemClock()), payloads=[b"{}"])
    assert (len(read.candidate.latencies_ms), read.candidate.failures) == (96, ())


def test_both_arms_get_the_same_payloads_and_neither_is_always_first() -> None:
    sent: list[tuple[str, bytes]] = []
    load = Load(request_count=4, warm_up_request_count=0, requests_per_second=100.0)
    targets = Targets(lambda p: sent.append(("candidate", p)), lambda p: sent.append(("incumbent", p)), SystemClock())
    offer_load(load, targets, payloads=[b"1", b"2", b"3"])
    assert sent == [
        (who, payload)
        for pair, payload in zip([("candidate", "incumbent"), ("incumbent", "candidate")] * 2, [b"1", b"2", b"3", b"1"], strict=True)
        for who in pair
    ]


def test_the_warm_up_is_sent_and_its_latencies_are_apart() -> None:
    load = Load(request_count=100, warm_up_request_count=150, requests_per_second=1000.0)
    read = offer_load(load, Targets(answers, answers, FakeClock()), payloads=[b"{}"])
    assert [len(part.latencies_ms) for _, part in read.by_name()] == [100, 100]
    assert [len(part.warm_up_ms) for _, part in read.by_name()] == [150, 150]


def test_a_failed_request_keeps_its_place_among_the_pairs() -> None:
    load = Load(request_count=5, warm_up_request_count=0, requests_per_second=100.0)
    read = offer_load(load, Targets(Once(3), answers, SystemClock()), payloads=[b"{}"])
    assert [math.isinf(ms) for ms in read.candidate.latencies_ms] == [False, False, True, False, False]
    assert read.candidate.answered_count == 4


def test_a_pause_finds_both_servers_idle_and_the_plane_is_held_all_the_time() -> None:
    held, paused, under_way = itertools.count(), [], itertools.count()
    done = itertools.count()

    def slow(_: bytes) -> None:
        next(under_way)
        time.sleep(0.002)
        next(done)

    def look(count: int) -> None:
        paused.append((count, next(under_way) == next(done)))

    load = Load(request_count=10, warm_up_request_count=0, requests_per_second=5000.0)
    targets = Targets(slow, slow, SystemClock(), hold=lambda: [next(held)].clear())
    offer_load(load, targets, payloads=[b"{}"], pause=Pause(4, look))
    assert paused == [(4, True), (8, True)]
    assert next(held) == 10


@pytest.mark.parametrize(("record", "outcome"), [(True, Outcome.PASS), (False, Outcome.INCONCLUSIVE)])
def test_the_cold_start_comes_from_the_record_of_the_load(record: bool, outcome: Outcome) -> None:
    session = World().session()
    if record:
        session.record("loaded", candidate="late/2", start_seconds=5.0)
    verdict = run_latency(session)
    assert verdict.outcome is outcome, verdict.reason
    assert verdict.measurements[0].value == (5.0 if record else None)


def test_a_limit_that_both_break_in_the_same_load_blames_nobody_and_one_that_the_candidate_keeps_stands() -> None:
    """The incumbent is beyond max_ms: that may be the machine. A candidate within it needs no excuse."""
    slow = arm(POLICY.p50.max_ms * 2)
    assert judge_readings(slow, slow).outcome is Outcome.INCONCLUSIVE
    assert judge_readings(arm(), slow).outcome is Outcome.PASS
    assert judge_readings(arm(POLICY.p50.max_ms * 20), slow).outcome is Outcome.FAIL, "far slower than the incumbent all the same"
