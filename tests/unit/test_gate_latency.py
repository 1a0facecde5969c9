"""The latency gate sees a slow, a failing and a stalling candidate, and passes none of them."""

import itertools
import threading
import time

import pytest

from interlock.adapters.clock import SystemClock
from interlock.control.gates.latency import judge_latency, latency_measurements
from interlock.control.gates.load import ArmReadings, Load, LoadReadings, offer_load
from interlock.errors import ServiceUnavailable
from interlock.model.verdict import Outcome, judge_measurements
from interlock.profile.schema import Latency, LatencyLimit

P50 = LatencyLimit(max_ms=50.0, max_ratio_to_incumbent=1.5, slack_ms=10.0)
P99 = LatencyLimit(max_ms=200.0, max_ratio_to_incumbent=2.0, slack_ms=20.0)
POLICY = Latency(request_count=100, warm_up_request_count=5, requests_per_second=2000.0, p50=P50, p99=P99)
LOOSE = LatencyLimit(max_ms=3000.0, max_ratio_to_incumbent=2.0, slack_ms=3000.0)  # whatever else this machine does meanwhile
GENTLE = POLICY.model_copy(update={"p50": LOOSE, "p99": LOOSE})
NAMES = ("failed_request_count", "p50_ms", "p99_ms", "p50_next_to_incumbent_ms", "p99_next_to_incumbent_ms")


def arm(ms: float = 10.0, *, count: int = 100, slow_count: int = 0, slow_ms: float = 0.0, failures: tuple[str, ...] = ()) -> ArmReadings:
    return ArmReadings((ms,) * (count - slow_count - len(failures)) + (slow_ms,) * slow_count, failures)


@pytest.mark.parametrize(
    ("candidate", "incumbent", "outcome"),
    [
        pytest.param(arm(10), arm(10), Outcome.PASS, id="as fast as the incumbent passes"),
        pytest.param(arm(20), arm(10), Outcome.PASS, id="within the slack passes"),
        pytest.param(arm(20.1), arm(10), Outcome.FAIL, id="beyond ratio and slack fails"),
        pytest.param(arm(45), arm(30), Outcome.PASS, id="within the ratio passes"),
        pytest.param(arm(46), arm(30), Outcome.FAIL, id="beyond the ratio fails"),
        pytest.param(arm(50.1), arm(50), Outcome.FAIL, id="a slow incumbent does not lift the absolute limit"),
        pytest.param(arm(10, slow_count=2, slow_ms=190), arm(10), Outcome.FAIL, id="two slow answers of a hundred are the p99"),
        pytest.param(arm(10, failures=("boom",)), arm(10), Outcome.FAIL, id="one failed request fails"),
        pytest.param(arm(count=0), arm(10), Outcome.INCONCLUSIVE, id="no answer at all is not a pass"),
        pytest.param(arm(count=99), arm(10), Outcome.INCONCLUSIVE, id="one request too few is not a pass"),
        pytest.param(arm(10), arm(count=0), Outcome.INCONCLUSIVE, id="no incumbent to compare with is not a pass"),
        pytest.param(arm(10), arm(10, count=99), Outcome.INCONCLUSIVE, id="a thin incumbent is not a pass"),
        pytest.param(arm(10), arm(10, count=101, failures=("boom",)), Outcome.INCONCLUSIVE, id="a failing incumbent is no yardstick"),
        pytest.param(arm(float("nan")), arm(10), Outcome.INCONCLUSIVE, id="nan is not a pass"),
    ],
)
def test_readings_are_judged(candidate: ArmReadings, incumbent: ArmReadings, outcome: Outcome) -> None:
    verdict = judge_measurements("latency", latency_measurements(POLICY, LoadReadings(candidate, incumbent)), required=NAMES)
    assert verdict.outcome is outcome, verdict.reason


def answers(_: bytes) -> None:
    """A server that answers at once."""


def refuses(_: bytes) -> None:
    raise ServiceUnavailable("503 from http://user:hunter2@127.0.0.1/invocations")


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
    verdict = judge_latency(GENTLE, send_candidate=answers, send_incumbent=answers, payloads=[b"{}"], clock=SystemClock())
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert [m.name for m in verdict.measurements] == ["failed_request_count", *sorted(NAMES[1:], key=lambda name: name[:3])]
    assert all(m.sample_count == 100 for m in verdict.measurements)


def test_a_slow_candidate_fails() -> None:
    slow = lambda _: time.sleep(0.08)  # noqa: E731
    verdict = judge_latency(POLICY, send_candidate=slow, send_incumbent=answers, payloads=[b"{}"], clock=SystemClock())
    assert verdict.outcome is Outcome.FAIL
    assert "p50_ms" in verdict.reason


def test_one_failed_request_fails_and_is_quoted() -> None:
    verdict = judge_latency(GENTLE, send_candidate=Once(50), send_incumbent=answers, payloads=[b"{}"], clock=SystemClock())
    assert verdict.outcome is Outcome.FAIL
    assert "failed_request_count 1 > 0" in verdict.reason
    assert "one answer was 503" in verdict.reason


def test_a_failing_candidate_fails_early_and_keeps_its_secrets() -> None:
    verdict = judge_latency(GENTLE, send_candidate=refuses, send_incumbent=answers, payloads=[b"{}"], clock=SystemClock())
    assert verdict.outcome is Outcome.FAIL
    assert "hunter2" not in verdict.reason
    assert verdict.measurements[0].sample_count < 100


def test_a_failing_incumbent_is_inconclusive() -> None:
    verdict = judge_latency(GENTLE, send_candidate=answers, send_incumbent=refuses, payloads=[b"{}"], clock=SystemClock())
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_without_payloads_nothing_is_proved() -> None:
    verdict = judge_latency(GENTLE, send_candidate=answers, send_incumbent=answers, payloads=[], clock=SystemClock())
    assert verdict.outcome is Outcome.INCONCLUSIVE


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
    read = offer_load(load, candidate=candidate, incumbent=incumbent, payloads=[b"{}"], clock=SystemClock())
    slower_count = sum(ours > theirs for ours, theirs in zip(read.candidate.latencies_ms, read.incumbent.latencies_ms, strict=True))
    assert slower_count > 90, "what was due during the stall waited for it, also where no thread was free to send it"


def test_slow_answers_do_not_hold_back_the_requests_behind_them() -> None:
    eight_at_once = threading.Barrier(8, timeout=20)

    def candidate(_: bytes) -> None:
        eight_at_once.wait()

    load = Load(request_count=96, warm_up_request_count=0, requests_per_second=400.0)
    read = offer_load(load, candidate=candidate, incumbent=answers, payloads=[b"{}"], clock=SystemClock())
    assert (len(read.candidate.latencies_ms), read.candidate.failures) == (96, ())


def test_both_arms_get_the_same_payloads_and_neither_is_always_first() -> None:
    sent: list[tuple[str, bytes]] = []
    load = Load(request_count=4, warm_up_request_count=0, requests_per_second=100.0)
    payloads = [b"1", b"2", b"3"]
    offer_load(
        load,
        candidate=lambda p: sent.append(("candidate", p)),
        incumbent=lambda p: sent.append(("incumbent", p)),
        payloads=payloads,
        clock=SystemClock(),
    )
    assert sent == [
        (who, payload)
        for pair, payload in zip([("candidate", "incumbent"), ("incumbent", "candidate")] * 2, [b"1", b"2", b"3", b"1"], strict=True)
        for who in pair
    ]


def test_the_warm_up_is_sent_and_not_counted() -> None:
    cold = Once(150)
    load = Load(request_count=100, warm_up_request_count=150, requests_per_second=1000.0)
    read = offer_load(load, candidate=cold, incumbent=answers, payloads=[b"{}"], clock=SystemClock())
    assert len(read.candidate.latencies_ms) == len(read.incumbent.latencies_ms) == 100
    assert read.candidate.failures == ()
