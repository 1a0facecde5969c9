"""The disagreement gate: nobody is exposed to a candidate that differs beyond tolerance, or to one that no canary could judge."""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from interlock.adapters.fakes import FakeClock
from interlock.control.gates.disagreement import DisagreementPolicy, Servers, judge_disagreement, spread
from interlock.control.gates.inputs import Asker
from interlock.control.gates.run import run_disagreement
from interlock.errors import ServiceUnavailable
from interlock.judge.comparators import Compare, Layout, label_comparator, probability_comparator
from interlock.model.verdict import Outcome, Verdict, judge_measurements
from tests.worlds import World

POLICY = DisagreementPolicy(request_count=200, tolerance=0.1, beta=0.05)
PAYLOADS = [str(n).encode() for n in range(500)]


def always(value: Any) -> Asker:
    return lambda _: json.dumps({"predictions": [value]})


def each(values: Iterable[Any]) -> Asker:
    answers = iter(values)
    return lambda _: json.dumps({"predictions": [next(answers)]})


def failing(every: int, answer: Asker) -> Asker:
    calls = itertools.count(1)

    def ask(payload: bytes) -> str:
        if next(calls) % every == 0:
            raise ServiceUnavailable("connection refused")
        return answer(payload)

    return ask


def judge(
    candidate: Asker,
    incumbent: Asker,
    *,
    compare: Compare | None = None,
    payloads: list[bytes] = PAYLOADS,
    policy: DisagreementPolicy = POLICY,
    hold: Callable[[], None] = lambda: None,
    clock: FakeClock | None = None,
) -> Verdict:
    servers = Servers(candidate, incumbent, hold, clock or FakeClock())
    return judge_disagreement(policy, compare=compare or probability_comparator(), servers=servers, payloads=payloads)


def values(verdict: Verdict) -> dict[str, float | None]:
    return {m.name: m.value for m in verdict.measurements}


@pytest.mark.parametrize(
    ("candidate", "incumbent", "outcome"),
    [
        pytest.param(always(0.5), always(0.5), Outcome.PASS, id="the same answers pass"),
        pytest.param(always(0.55), always(0.5), Outcome.PASS, id="a better model may differ"),
        pytest.param(always(0.61), always(0.5), Outcome.PASS, id="a little beyond is not yet proof: the canary's to find out"),
        pytest.param(always(0.8), always(0.5), Outcome.FAIL, id="far beyond the tolerance fails"),
        pytest.param(always("x"), always(0.5), Outcome.FAIL, id="unusable answers are full divergence"),
        pytest.param(always(0.5), always("x"), Outcome.INCONCLUSIVE, id="an incumbent that cannot be compared is not a pass"),
        pytest.param(
            always(0.5), each(itertools.cycle([0.2, 0.6, 0.9])), Outcome.INCONCLUSIVE, id="an incumbent noisier than the tolerance"
        ),
        pytest.param(
            always(0.8), each(itertools.cycle([0.2, 0.6, 0.9])), Outcome.INCONCLUSIVE, id="its noise says nothing about a bad candidate"
        ),
        pytest.param(failing(1, always(0.5)), always(0.5), Outcome.FAIL, id="a candidate that never answers"),
        pytest.param(always(0.5), failing(1, always(0.5)), Outcome.INCONCLUSIVE, id="an incumbent that never answers"),
        pytest.param(always(0.5), failing(150, always(0.5)), Outcome.INCONCLUSIVE, id="an incumbent that misses one"),
        pytest.param(always(0.8), failing(150, always(0.5)), Outcome.INCONCLUSIVE, id="one missing answer of the incumbent is no limit"),
    ],
)
def test_answers_are_judged(candidate: Asker, incumbent: Asker, outcome: Outcome) -> None:
    verdict = judge(candidate, incumbent)
    assert verdict.outcome is outcome, verdict
    required = [m for m in verdict.measurements if m.name == "disagreement_at_least"]
    assert judge_measurements(verdict.gate, required, required=["disagreement_at_least"]).outcome is outcome, "recomputed from evidence"


def test_a_rejection_names_both_numbers_and_that_nobody_was_exposed() -> None:
    reason = judge(always(0.8), always(0.5)).reason
    assert all(words in reason for words in ("differ by 0.3 on 200 inputs", "the tolerance is 0.1", "no user was exposed")), reason


def test_a_noisy_incumbent_names_its_noise_and_the_remedy() -> None:
    verdict = judge(always(0.5), each(itertools.cycle([0.5, 0.5, 0.9])))
    assert values(verdict)["noise_floor"] == pytest.approx(0.4 * 2 / 3, abs=0.01)
    assert all(words in verdict.reason for words in ("differs from itself by", "the tolerance is 0.1", "repeatable")), verdict.reason


def test_noise_below_the_tolerance_is_measured_with_its_bound_and_passes() -> None:
    noise = np.random.default_rng(5).normal(0.5, 0.02, 2000).clip(0, 1).tolist()
    verdict = judge(always(0.52), each(noise))
    found = values(verdict)
    assert verdict.outcome is Outcome.PASS
    floor, bound = found["noise_floor"], found["noise_floor_at_most"]
    assert floor is not None
    assert bound is not None
    assert 0.015 < floor < 0.03 < bound < 0.08


def test_each_payload_goes_to_the_incumbent_twice_and_to_the_candidate_once_from_the_whole_file() -> None:
    asked: dict[str, list[bytes]] = {"candidate": [], "incumbent": []}

    def recorded(who: str) -> Asker:
        def ask(payload: bytes) -> str:
            asked[who].append(payload)
            return '{"predictions": [0.5]}'

        return ask

    judge(recorded("candidate"), recorded("incumbent"))
    assert len(set(asked["candidate"])) == len(asked["candidate"]) == 200
    assert asked["incumbent"] == asked["candidate"] * 2, "again only after all others: an answer that is kept for a moment is no repetition"
    assert max(int(payload) for payload in asked["candidate"]) > 490


def test_too_few_rows_are_no_evidence_and_none_is_sent_twice_to_make_up_for_it() -> None:
    for payloads in ([], PAYLOADS[:199]):
        verdict = judge(always(0.5), always(0.5), payloads=payloads)
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert f"{len(payloads)} payloads, needs 200" in verdict.reason


@pytest.mark.parametrize(
    ("candidate", "incumbent", "most"),
    [(failing(1, always(0.5)), always(0.5), 10), (always(0.5), failing(1, always(0.5)), 5)],
    ids=["candidate", "incumbent"],
)
def test_a_server_that_keeps_failing_is_not_asked_for_ever(candidate: Asker, incumbent: Asker, most: int) -> None:
    calls = [0]

    def counted(ask: Asker) -> Asker:
        def asking(payload: bytes) -> str:
            calls[0] += 1
            return ask(payload)

        return asking

    verdict = judge(candidate, counted(incumbent))
    assert "connection refused" in verdict.reason
    assert calls[0] <= most


def test_a_candidate_that_fails_now_and_then_ends_the_gate_without_a_pass() -> None:
    verdict = judge(failing(30, always(0.5)), always(0.5))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "first failure of the candidate" in verdict.reason


def test_law_good_candidates_are_rejected_no_more_often_than_beta() -> None:
    """At the tolerance itself: labels that differ with probability .1, judged 300 times; Chernoff's bound is wider than exact."""
    rng, failed = np.random.default_rng(9), 0
    for _ in range(300):
        differs = rng.random(200) < 0.1
        verdict = judge(each(np.where(differs, "b", "a").tolist()), always("a"), compare=label_comparator())
        failed += verdict.outcome is Outcome.FAIL
    assert failed / 300 <= 0.05


@pytest.mark.parametrize("error", [ValueError("bug"), MemoryError("full")])
def test_an_exception_while_comparing_is_not_a_pass(error: Exception) -> None:
    def broken(*_: object) -> None:
        raise error

    comparing: Callable[..., Any] = broken
    assert judge(always(0.5), always(0.5), compare=comparing).outcome is Outcome.INCONCLUSIVE


def test_nan_never_passes() -> None:
    assert judge(always(0.5), always(0.5), policy=DisagreementPolicy(200, math.nan, 0.05)).outcome is not Outcome.PASS


def test_only_the_measurement_that_decides_has_a_limit() -> None:
    limits = {m.name: m.limit for m in judge(always(0.55), always(0.5)).measurements}
    assert limits.pop("disagreement_at_least") == POLICY.tolerance
    assert len(limits) == 4
    assert all(map(math.isnan, limits.values())), "a bound above the tolerance stands beside a PASS, and is no failure"


@pytest.mark.parametrize("slow", ["candidate", "incumbent"])
def test_models_too_slow_for_the_gate_end_it_without_a_verdict_of_their_answers(slow: str) -> None:
    clock = FakeClock()

    def slowly(payload: bytes) -> str:
        clock.sleep(4.0)
        return always(0.9)(payload)

    asking = {"candidate": always(0.5), "incumbent": always(0.5)} | {slow: slowly}
    verdict = judge(asking["candidate"], asking["incumbent"], clock=clock)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "of 600 answers came within 600 s" in verdict.reason, verdict.reason
    assert clock.seconds - 1000 <= POLICY.deadline_seconds + 4


def test_a_plane_that_cannot_be_held_is_not_blamed_on_a_server() -> None:
    def gone() -> None:
        raise ServiceUnavailable("the plane does not answer")

    verdict = judge(always(0.5), always(0.5), hold=gone)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "disagreement: the plane does not answer")


def test_an_outage_of_the_plane_in_a_release_names_the_plane_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    session = world.session()
    renew, calls = world.traffic.renew, itertools.count(1)

    def renewed(**values: Any) -> None:
        if next(calls) == 2:
            raise ServiceUnavailable("the plane does not answer")
        renew(**values)

    def slowly() -> float:
        world.clock.sleep(1.0)
        return 0.3

    world.incumbent_answer = slowly
    monkeypatch.setattr(world.traffic, "renew", renewed)
    verdict = run_disagreement(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the plane does not answer" in verdict.reason
    assert "incumbent" not in verdict.reason


@pytest.mark.parametrize("total", [0, 1, 499, 500, 501, 750, 999, 1000, 1499, 1999, 5000])
def test_payloads_come_from_the_whole_file(total: int) -> None:
    positions = spread(total, 500)
    assert len(set(positions)) == len(positions) == min(total, 500)
    gaps = np.diff([*positions, total])
    assert positions[:1] == [0][:total]
    assert not len(gaps) or gaps.max() - gaps.min() <= 1, "the end of the file is as far from the last row as one row from the next"


@pytest.mark.parametrize("answer", [[0.9, 0.1], {"probs": [0.9, 0.1]}])
def test_a_model_that_answers_one_row_as_several_is_not_compared(answer: Any) -> None:
    """A signature that promises one number a row, and a vector in the place of the rows: D of the vector would be diluted."""
    compare = probability_comparator(layout=Layout(row_count=1))

    def ask(_: bytes) -> str:
        return json.dumps({"predictions": answer})

    verdict = judge(ask, ask, compare=compare)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "each is one row, and so must be its answer" in verdict.reason
    assert judge(ask, always(0.9), compare=compare).outcome is Outcome.FAIL


def test_a_release_compares_its_one_row_answers_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    session = world.session()
    answer = '{"predictions": [0.3, 0.7]}'
    monkeypatch.setattr("tests.worlds.FakeSender.ask", lambda *_: answer)
    assert run_disagreement(session).outcome is Outcome.INCONCLUSIVE
