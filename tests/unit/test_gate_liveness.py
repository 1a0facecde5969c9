"""The liveness gate: a gate that does not refuse the candidate made for it blocks the release."""

from dataclasses import replace

import pytest

from interlock.adapters.fakes import FakeClock
from interlock.control.gates import run_liveness as module
from interlock.control.gates.inputs import Dataset
from interlock.control.gates.liveness import KnownBad, judge_liveness
from interlock.control.gates.run_liveness import run_liveness
from interlock.control.gates.stage import OWN_TRAINING
from interlock.errors import ServiceUnavailable
from interlock.model.verdict import Measurement, Outcome, Verdict, judge_measurements
from tests.worlds import World

GATES = ("artifact", "readiness", "traffic", "evaluation", "parity", "latency", "memory", "disagreement", "drift")


def verdict(outcome: Outcome) -> Verdict:
    value = {Outcome.PASS: 0.0, Outcome.FAIL: 2.0, Outcome.INCONCLUSIVE: None}[outcome]
    return judge_measurements("latency", [Measurement("p50_ms", value, 1.0, "lower", "ms", 1, 1)], required=["p50_ms"])


def shown(outcome: Outcome, *, refusal: Outcome = Outcome.FAIL) -> Verdict:
    known_bad = KnownBad("latency", "answers that come too late", refusal, lambda: verdict(outcome))
    return judge_liveness([known_bad], clock=FakeClock(), hold=lambda: None)


def test_a_gate_that_refuses_its_known_bad_candidate_is_alive() -> None:
    assert shown(Outcome.FAIL).outcome is Outcome.PASS
    assert shown(Outcome.INCONCLUSIVE, refusal=Outcome.INCONCLUSIVE).outcome is Outcome.PASS


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.INCONCLUSIVE])
def test_a_gate_that_passes_it_or_cannot_judge_it_blocks_the_release_and_blames_no_candidate(outcome: Outcome) -> None:
    found = shown(outcome)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert f"latency said {outcome.name} to answers that come too late, wanted FAIL" in found.reason


def test_a_gate_that_raises_over_its_known_bad_candidate_has_shown_nothing() -> None:
    def broken() -> Verdict:
        raise ServiceUnavailable("no answer")

    for refusal in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        found = judge_liveness([KnownBad("traffic", "no traffic", refusal, broken)], clock=FakeClock(), hold=lambda: None)
        assert found.outcome is Outcome.INCONCLUSIVE
        assert "no answer" in found.reason


def test_no_gates_to_show_anything_to_is_no_pass() -> None:
    assert judge_liveness([], clock=FakeClock(), hold=lambda: None).outcome is Outcome.INCONCLUSIVE


def test_every_gate_of_a_healthy_world_is_alive_and_its_cost_is_told() -> None:
    found = run_liveness(World().session())
    assert found.outcome is Outcome.PASS, found.reason
    assert {m.name for m in found.measurements} == {f"{gate}_{what}" for gate in GATES for what in ("refused", "seconds")}


@pytest.mark.parametrize("gate", GATES)
def test_each_gate_that_has_gone_blind_is_noticed(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passing = replace(verdict(Outcome.PASS), gate=gate)
    monkeypatch.setattr(module, f"judge_{gate}", lambda *_, **__: passing)
    found = run_liveness(World().session())
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason.startswith(f"liveness: {gate}_refused has no usable value")


def test_nothing_that_the_candidate_names_is_read_before_the_gates_are_alive() -> None:
    session = World().session()
    gates, read = session.profile.gates, list[str]()

    def refuse(name: str, version: str) -> Dataset:
        raise AssertionError(f"{name}/{version} names its own training rows")

    def note(address: str) -> Dataset:
        read.append(address)
        return session.services.read_rows(address)

    services = replace(session.services, read_training_rows=refuse, read_rows=note)
    own = gates.model_copy(update={"drift": gates.drift.model_copy(update={"reference": OWN_TRAINING})})
    loaded = replace(session.loaded, profile=session.profile.model_copy(update={"gates": own}))
    found = run_liveness(replace(session, services=services, loaded=loaded))
    assert found.outcome is Outcome.PASS, found.reason
    assert set(read) == {gates.evaluation.data}
