"""The laws of verdicts: PASS is built in one place, from present, finite and sufficient evidence."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.model.verdict import Better, Measurement, Outcome, Verdict, inconclusive, judge_measurements, worst

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
GOOD = Measurement("auc", 0.8, 0.7, "higher", "", 100, 50)

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(-2, 2))
MEASUREMENTS = st.builds(
    Measurement,
    name=st.sampled_from(["a", "b", "c"]),
    value=NUMBERS,
    limit=st.one_of(st.floats(-2, 2), st.just(math.nan)),
    better=st.sampled_from(["lower", "higher"]),
    unit=st.just(""),
    sample_count=st.integers(-1, 5),
    min_sample_count=st.integers(-1, 5),
)
VERDICTS = st.lists(st.builds(Verdict, st.just("g"), st.sampled_from(Outcome), st.just("r")), max_size=6)


def judged(measurement: Measurement) -> Outcome:
    return judge_measurements("gate", [measurement], required=[measurement.name]).outcome


def test_no_gates_at_all_is_never_a_pass() -> None:
    assert worst([]).outcome is Outcome.INCONCLUSIVE
    assert judge_measurements("gate", [], required=[]).outcome is Outcome.INCONCLUSIVE
    assert judge_measurements("gate", [GOOD], required=[]).outcome is Outcome.INCONCLUSIVE
    assert judge_measurements("gate", [], required=["auc"]).outcome is Outcome.INCONCLUSIVE
    assert inconclusive("gate", "down").outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        pytest.param({}, Outcome.PASS, id="present, finite, enough and within the limit passes"),
        pytest.param({"value": 0.7}, Outcome.PASS, id="exactly at the limit is within it"),
        pytest.param({"value": 0.69}, Outcome.FAIL, id="beyond the limit fails"),
        pytest.param({"value": math.nan}, Outcome.INCONCLUSIVE, id="nan is not a pass"),
        pytest.param({"value": math.inf}, Outcome.INCONCLUSIVE, id="infinity in the good direction is not a pass"),
        pytest.param({"value": -math.inf}, Outcome.INCONCLUSIVE, id="minus infinity proves nothing either"),
        pytest.param({"value": None}, Outcome.INCONCLUSIVE, id="nothing to read is not a pass"),
        pytest.param({"limit": math.nan}, Outcome.INCONCLUSIVE, id="a limit that is no number is not a pass"),
        pytest.param({"limit": -math.inf}, Outcome.INCONCLUSIVE, id="a limit that everything keeps is not a pass"),
        pytest.param({"sample_count": 49}, Outcome.INCONCLUSIVE, id="one sample too few is not a pass"),
        pytest.param({"sample_count": 0, "min_sample_count": 0}, Outcome.INCONCLUSIVE, id="no samples wanted and none there is not a pass"),
    ],
)
def test_one_measurement(change: dict[str, float | None], outcome: Outcome) -> None:
    assert judged(dataclasses.replace(GOOD, **change)) is outcome  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "required"),
    [
        pytest.param(["auc"], ["auc", "loss"], id="one that is required is missing"),
        pytest.param(["auc", "auc"], ["auc"], id="one is measured twice"),
    ],
)
def test_what_is_required_must_be_measured_exactly_once(names: list[str], required: list[str]) -> None:
    verdict = judge_measurements("gate", [dataclasses.replace(GOOD, name=name) for name in names], required=required)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "exactly once" in verdict.reason


def test_a_failure_outweighs_missing_evidence_and_the_reason_has_value_limit_and_count() -> None:
    beyond = dataclasses.replace(GOOD, name="loss", better="lower", value=0.9, unit="nats")
    verdict = judge_measurements("evaluation", [GOOD, beyond], required=["auc", "loss", "absent"])
    assert (verdict.outcome, verdict.reason) == (Outcome.FAIL, "evaluation: loss 0.9 > 0.7 nats (n=100)")
    assert verdict.measurements == (GOOD, beyond)


@QUICK
@given(VERDICTS)
def test_a_release_passes_exactly_when_there_are_gates_and_all_of_them_pass(verdicts: list[Verdict]) -> None:
    all_pass = bool(verdicts) and all(v.outcome is Outcome.PASS for v in verdicts)
    assert (worst(verdicts).outcome is Outcome.PASS) == all_pass


@QUICK
@given(VERDICTS.filter(bool), VERDICTS)
def test_more_verdicts_never_improve_the_one_that_decides(verdicts: list[Verdict], extra: list[Verdict]) -> None:
    assert worst([*verdicts, *extra]).outcome >= worst(verdicts).outcome
    assert worst([*extra, *verdicts]).outcome >= worst(verdicts).outcome


@QUICK
@given(st.lists(MEASUREMENTS, max_size=5), MEASUREMENTS, st.sets(st.sampled_from(["a", "b", "c"])))
def test_a_measurement_nobody_asked_for_never_improves_a_verdict(found: list[Measurement], extra: Measurement, required: set[str]) -> None:
    extra = dataclasses.replace(extra, name="extra")
    before, after = (judge_measurements("g", ms, required=required).outcome for ms in (found, [*found, extra]))
    assert after >= before


@QUICK
@given(st.lists(MEASUREMENTS, max_size=4))
def test_a_pass_has_every_required_value_finite_sufficient_and_within_its_limit(found: list[Measurement]) -> None:
    required = {"a", "b"}
    if judge_measurements("g", found, required=required).outcome is Outcome.PASS:
        assert required <= {m.name for m in found}
        for m in found:
            assert m.value is not None
            assert math.isfinite(m.value)
            assert m.sample_count >= max(1, m.min_sample_count)
            assert m.value <= m.limit if m.better == "lower" else m.value >= m.limit


@QUICK
@given(MEASUREMENTS)
def test_a_mirrored_metric_with_a_mirrored_direction_has_the_same_outcome(m: Measurement) -> None:
    other: Better = "higher" if m.better == "lower" else "lower"
    mirrored = dataclasses.replace(m, value=None if m.value is None else -m.value, limit=-m.limit, better=other)
    assert judged(mirrored) is judged(m)
