"""The memory gate weighs a server while it works, sees it grow, and passes none that it could not weigh."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.adapters.fakes import FakeClock
from interlock.control.gates.edge import judge_required
from interlock.control.gates.growth import growth_per_1000_requests
from interlock.control.gates.inputs import Sender
from interlock.control.gates.load import ArmReadings, Targets
from interlock.control.gates.memory import REQUIRED, Reading, judge_memory, memory_measurements
from interlock.control.gates.run import run_memory
from interlock.errors import ServiceUnavailable
from interlock.model.plane import PlaneState, ServerState
from interlock.model.release import ModelVersion
from interlock.model.verdict import Measurement, Outcome, Verdict
from interlock.profile.gates import Memory
from tests.worlds import World

POLICY = Memory(
    request_count=600,
    requests_per_second=200.0,
    max_resident_mib=900.0,
    max_ratio_to_incumbent=1.3,
    max_growth_mib_per_1000_requests=0.5,
    max_growth_above_incumbent_mib_per_1000_requests=0.3,
)
BETA = 0.05
VERSION = ModelVersion("late", "2", "sha256:" + "2" * 64)

Mib = Callable[[int], float | None]


def server(mib: float, *, peak_mib: float | None = None, pid: int = 7) -> ServerState:
    return ServerState(VERSION, pid, 8000, True, mib, 0, mib if peak_mib is None else peak_mib)


@dataclass
class Plane:
    """Two servers whose memory follows from how often they were looked at; look 0 is before the load, and 10 requests are between two."""

    candidate: Callable[[int], ServerState | None] = lambda _: server(500.0)
    incumbent: Callable[[int], ServerState | None] = lambda _: server(480.0)
    is_down_at: Callable[[int], bool] = lambda _: False
    looks: int = 0

    def observe(self) -> PlaneState:
        look, self.looks = self.looks, self.looks + 1
        if self.is_down_at(look):
            raise ServiceUnavailable("the plane does not answer")
        return PlaneState(self.incumbent(look), self.candidate(look), 0, False, "r", 1, 60.0)


def judge(
    plane: Plane | None = None,
    *,
    send: Sender = lambda _: None,
    failure: str | None = None,
    payloads: Sequence[bytes] = (b"a", b"b"),
    policy: Memory = POLICY,
) -> Verdict:
    targets = Targets(send, lambda _: None, FakeClock(), candidate_failure=lambda: failure)
    return judge_memory(policy, targets, observe=(plane or Plane()).observe, payloads=payloads, error=BETA)


def measured(verdict: Verdict) -> dict[str, Measurement]:
    return {m.name: m for m in verdict.measurements}


def fixed(candidate: ServerState | None, incumbent: ServerState | None) -> Plane:
    return Plane(lambda _: candidate, lambda _: incumbent)


@pytest.mark.parametrize(
    ("candidate", "incumbent", "outcome"),
    [
        pytest.param(server(500.0), server(480.0), Outcome.PASS, id="within all limits passes"),
        pytest.param(server(624.0), server(480.0), Outcome.PASS, id="exactly at the ratio passes"),
        pytest.param(server(624.1), server(480.0), Outcome.FAIL, id="beyond the incumbent fails"),
        pytest.param(server(901.0), server(890.0), Outcome.FAIL, id="beyond the absolute limit fails"),
        pytest.param(server(500.0, peak_mib=901.0), server(890.0), Outcome.FAIL, id="a peak while loading counts"),
        pytest.param(server(620.0), server(400.0, peak_mib=480.0), Outcome.PASS, id="the incumbent's peak counts as well"),
        pytest.param(None, server(480.0), Outcome.INCONCLUSIVE, id="no candidate is not a pass"),
        pytest.param(server(500.0), None, Outcome.INCONCLUSIVE, id="no incumbent is not a pass"),
        pytest.param(server(math.nan), server(480.0), Outcome.INCONCLUSIVE, id="T06: nan is not a pass"),
        pytest.param(server(0.0), server(480.0), Outcome.INCONCLUSIVE, id="T06: a process without memory is not a pass"),
        pytest.param(server(500.0), server(math.inf), Outcome.INCONCLUSIVE, id="T06: an infinite incumbent is no yardstick"),
        pytest.param(server(500.0, peak_mib=math.nan), server(480.0), Outcome.INCONCLUSIVE, id="T06: a peak of nan is not a pass"),
        pytest.param(server(500.0, peak_mib=-1.0), server(480.0), Outcome.INCONCLUSIVE, id="T06: a negative peak is not a pass"),
        pytest.param(
            replace(server(500.0), peak_resident_mib=None),
            server(480.0),
            Outcome.INCONCLUSIVE,
            id="a plane that reads no peak is not a pass",
        ),
    ],
)
def test_readings_are_judged(candidate: ServerState | None, incumbent: ServerState | None, outcome: Outcome) -> None:
    verdict = judge(fixed(candidate, incumbent))
    assert verdict.outcome is outcome, verdict.reason


def test_every_measurement_is_shown_with_its_count() -> None:
    verdict = judge()
    assert [m.name for m in verdict.measurements] == [*REQUIRED, "warm_up_growth_mib"]
    assert measured(verdict)["peak_mib"].sample_count == 600
    assert measured(verdict)["growth_mib_per_1000_requests"].sample_count == 61, "before the load, and after each 10 requests"


def growing(mib_per_1000_requests: float, *, from_mib: float = 500.0, noise_mib: float = 0.02) -> Callable[[int], ServerState]:
    noise = np.random.default_rng(4).normal(0, noise_mib, 100)
    return lambda look: server(from_mib + look * 10 / 1000 * mib_per_1000_requests + float(noise[look]))


@pytest.mark.parametrize(
    ("candidate", "incumbent", "outcome", "word"),
    [
        pytest.param(0.0, 0.0, Outcome.PASS, "", id="no growth passes"),
        pytest.param(1.0, 0.0, Outcome.FAIL, "growth_mib_per_1000_requests", id="a leak of 1 MiB per 1,000 requests fails"),
        pytest.param(1.0, 1.0, Outcome.FAIL, "growth_mib_per_1000_requests", id="a leak that the incumbent has too fails"),
        pytest.param(0.4, 0.0, Outcome.FAIL, "growth_above_incumbent", id="a growth that the incumbent has not fails"),
        pytest.param(0.4, 0.3, Outcome.PASS, "", id="what both have is allowed up to the absolute limit"),
        pytest.param(-5.0, 0.0, Outcome.PASS, "", id="what shrinks passes"),
    ],
)
def test_growth_is_judged(candidate: float, incumbent: float, outcome: Outcome, word: str) -> None:
    verdict = judge(Plane(growing(candidate), growing(incumbent)))
    assert verdict.outcome is outcome, verdict.reason
    assert word in verdict.reason


def test_growth_that_the_noise_hides_is_undecided() -> None:
    assert judge(Plane(growing(0.45, noise_mib=0.4))).outcome is Outcome.INCONCLUSIVE


def test_caches_that_fill_in_the_first_fifth_are_no_growth_but_are_shown() -> None:
    verdict = judge(Plane(lambda look: server(min(500.0 + look, 510.0))))
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert measured(verdict)["warm_up_growth_mib"].value == 10.0


def test_a_leak_that_begins_late_is_seen() -> None:
    assert judge(Plane(lambda look: server(500.0 + max(0.0, look - 25) * 0.05))).outcome is not Outcome.PASS


def test_memory_is_read_when_both_servers_have_answered() -> None:
    sent, seen = list[bytes](), list[int]()

    def candidate(_: int) -> ServerState:
        seen.append(len(sent))
        return server(500.0)

    judge(Plane(candidate), send=sent.append)
    assert seen == list(range(0, 601, 10))


def test_t05_one_look_that_fails_is_left_out_and_three_in_a_row_are_the_reason() -> None:
    assert judge(Plane(is_down_at=lambda look: look % 3 == 1)).outcome is Outcome.PASS
    verdict = judge(Plane(is_down_at=lambda look: look >= 20))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the plane does not answer" in verdict.reason


def test_t05_a_reader_that_raises_is_no_pass_and_is_quoted() -> None:
    def broken(_: int) -> ServerState:
        raise MemoryError("no memory to read memory")

    verdict = judge(Plane(broken))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no memory to read memory" in verdict.reason


def test_a_candidate_that_dies_at_work_fails_with_its_last_words_and_is_not_asked_for_ever() -> None:
    asked = itertools.count(1)

    def dies(_: bytes) -> None:
        if next(asked) > 20:
            raise ServiceUnavailable("connection refused")

    words = "the model server of late/2 ended with exit code 1: MemoryError"
    verdict = judge(Plane(lambda look: server(500.0 if look < 3 else 0.0, peak_mib=900.0)), send=dies, failure=words)
    assert verdict.outcome is Outcome.FAIL
    assert words in verdict.reason
    assert "connection refused" in verdict.reason
    assert next(asked) < 80


def test_a_candidate_that_ended_after_its_last_answer_fails() -> None:
    verdict = judge(failure="the fuse has ended it: it holds 2100 MiB, more than its limit of 2048 MiB")
    assert verdict.outcome is Outcome.FAIL
    assert "more than its limit of 2048 MiB" in verdict.reason


@pytest.mark.parametrize("changed", [server(500.0, pid=8), replace(server(500.0), restart_count=1), None])
def test_a_candidate_that_is_another_process_by_the_end_fails(changed: ServerState | None) -> None:
    verdict = judge(Plane(lambda look: server(500.0) if look < 30 else changed))
    assert verdict.outcome is Outcome.FAIL
    assert "ended_count 1 > 0" in verdict.reason


def test_an_incumbent_that_was_started_again_is_no_yardstick() -> None:
    verdict = judge(Plane(incumbent=lambda look: server(480.0, pid=1 if look < 30 else 2)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "peak_next_to_incumbent_mib has no usable limit" in verdict.reason


def test_without_payloads_nothing_is_proved() -> None:
    assert judge(payloads=()).outcome is Outcome.INCONCLUSIVE


def test_a_loose_policy_can_pass_on_the_fewest_requests() -> None:
    loose = {"request_count": 10, "max_growth_mib_per_1000_requests": 1e4, "max_growth_above_incumbent_mib_per_1000_requests": 1e4}
    verdict = judge(policy=POLICY.model_copy(update=loose))
    assert verdict.outcome is Outcome.PASS, verdict.reason


def judge_readings(mib: Sequence[float], incumbent_mib: Sequence[float]) -> Verdict:
    readings = [
        Reading(look * 10, server(ours, peak_mib=850.0), server(theirs, peak_mib=850.0))
        for look, (ours, theirs) in enumerate(zip(mib, incumbent_mib, strict=True))
    ]
    measurements = memory_measurements(POLICY, ArmReadings((1.0,) * 600), readings, has_ended=False, error=BETA)
    return judge_required("memory", measurements, required=REQUIRED)


@st.composite
def wandering(draw: st.DrawFn) -> list[float]:
    """61 readings of memory that wanders by some step."""
    random, step = np.random.default_rng(draw(st.integers(0, 10**6))), draw(st.sampled_from([0.0, 0.01, 0.1, 1.0, 20.0]))
    return [float(each) for each in 500 + np.cumsum(random.normal(0, 1, 61)) * step]


@settings(deadline=None)
@given(mib=wandering(), incumbent=wandering(), slope=st.floats(min_value=0, max_value=100))
def test_a_leak_on_top_never_improves_the_verdict(mib: list[float], incumbent: list[float], slope: float) -> None:
    leaking = [value + slope * look / 100 for look, value in enumerate(mib)]
    assert judge_readings(leaking, incumbent).outcome >= judge_readings(mib, incumbent).outcome


@settings(deadline=None)
@given(
    mib=wandering(),
    at=st.integers(min_value=0, max_value=60),
    garbage=st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0]),
    is_candidate=st.booleans(),
)
def test_t06_one_garbage_reading_among_many_never_passes(mib: list[float], at: int, garbage: float, is_candidate: bool) -> None:
    spoilt = [garbage if look == at else value for look, value in enumerate(mib)]
    arms = (spoilt, mib) if is_candidate else (mib, spoilt)
    assert judge_readings(*arms).outcome is not Outcome.PASS


@settings(deadline=None)
@given(mib=st.lists(st.floats(min_value=1, max_value=1000), min_size=0, max_size=40), scale=st.floats(min_value=0.1, max_value=10))
def test_growth_lies_within_its_bounds_and_scales_with_memory(mib: list[float], scale: float) -> None:
    requests = range(0, 100 * len(mib), 100)
    found = growth_per_1000_requests(requests, mib, request_count=1, error=BETA)
    scaled = growth_per_1000_requests(requests, [value * scale for value in mib], request_count=1, error=BETA)
    if found is None or scaled is None:
        assert len(mib) < 9
        return
    assert found.bounds.low <= found.value <= found.bounds.high
    assert scaled.value == pytest.approx(found.value * scale, rel=1e-6, abs=1e-6)


def test_readings_at_one_moment_have_no_growth() -> None:
    assert growth_per_1000_requests([100.0] * 20, [500.0] * 20, request_count=100, error=BETA) is None
    assert growth_per_1000_requests([], [], request_count=100, error=BETA) is None


def test_neighbours_that_are_alike_make_bounds_wider() -> None:
    requests = [at * 100.0 for at in range(48)]
    wave = [500 + math.sin(at / 6) for at in range(48)]
    mixed = [wave[at * 29 % 48] for at in range(48)]
    slow, quick = (growth_per_1000_requests(requests, mib, request_count=1, error=BETA) for mib in (wave, mixed))
    assert slow is not None
    assert quick is not None
    assert slow.bounds.high - slow.bounds.low > 1.3 * (quick.bounds.high - quick.bounds.low)


@pytest.mark.parametrize(("dead_reason", "outcome"), [(None, Outcome.PASS), ("it ended with exit code -9", Outcome.FAIL)])
def test_a_release_asks_the_plane_for_both_servers_and_for_last_words(dead_reason: str | None, outcome: Outcome) -> None:
    world = World()
    session = world.session()
    world.traffic.dead_reason = dead_reason
    verdict = run_memory(session)
    assert verdict.outcome is outcome, verdict.reason
    assert (dead_reason or "") in verdict.reason
    assert measured(verdict)["peak_mib"].value == 210.0


def test_a_leak_in_a_few_large_steps_is_no_growth_of_nothing() -> None:
    """A median of slopes does not see one step; the way from the first block to the last does."""
    requests = list(range(0, 5000, 80))
    mib = [200.0 + (60.0 if at >= 4400 else 0.0) for at in requests]
    found = growth_per_1000_requests(requests, mib, request_count=5000, error=0.05)
    assert found is not None
    assert found.bounds.high > 10
