"""The drift gate sees what Evidently's stock preset calls a success: nulls, infinities, absent columns, shifted columns (F23)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.drift import judge_drift, required_names
from interlock.control.gates.drift_page import ROW_COUNT, draw_page
from interlock.control.gates.run import run_drift
from interlock.errors import ArtifactError
from interlock.model.verdict import Measurement, Outcome, Verdict, judge_measurements
from interlock.profile.gates import CategoryColumn, Drift, NumberColumn, PredictionDrift
from interlock.profile.output import AnyOutput, Output
from tests.worlds import World

N = 500
NUMBERS = tuple(f"x{i}" for i in range(9))
CARRIERS = ("AA", "DL", "UA")
Change = Callable[[pd.DataFrame], pd.DataFrame]


def number(name: str, **given: Any) -> NumberColumn:
    limits: dict[str, Any] = {"method": "wasserstein", "drift_distance": 0.5, "max_distance": 8.0, "max_null_percent": 1.0}
    limits |= {"minimum": -100.0, "maximum": 100.0, "max_outside_percent": 0.0}
    return NumberColumn(name=name, kind="number", **(limits | given))


def category(name: str, **given: Any) -> CategoryColumn:
    limits: dict[str, Any] = {"method": "jensenshannon", "drift_distance": 0.2, "max_distance": 0.5, "max_null_percent": 1.0}
    return CategoryColumn(name=name, kind="category", **(limits | {"categories": None, "max_outside_percent": 0.0} | given))


def policy(*columns: NumberColumn | CategoryColumn, **given: Any) -> Drift:
    limits: dict[str, Any] = {"min_row_count": 400, "sample_row_count": None, "max_drifted_share": 0.3}
    limits["prediction"] = PredictionDrift(method="wasserstein", max_distance=0.5)
    return Drift(reference="r.parquet", current="c.parquet", columns=columns, **(limits | given))


POLICY = policy(*map(number, NUMBERS), category("carrier"))


@dataclass(frozen=True)
class Rows:
    frame: pd.DataFrame
    digest: str = "7" * 64


@dataclass(frozen=True)
class Model:
    answer: Callable[[pd.DataFrame], Any] = lambda frame: frame["x8"].tolist()

    def answers(self, frame: pd.DataFrame) -> Any:
        return self.answer(frame)


def output(text: str = '{"type": "regression", "comparator": "absolute", "scale_units": 1.0}') -> AnyOutput:
    return TypeAdapter[AnyOutput](Output).validate_json(text, strict=True)


def same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def rows(seed: int, change: Change = same, n: int = N) -> Rows:
    generator = np.random.default_rng(seed)
    numbers = {name: generator.normal(10, 2, n) for name in NUMBERS}
    return Rows(change(pd.DataFrame({**numbers, "carrier": generator.choice(CARRIERS, n)})))


def shifted(count: int, sigmas: float) -> Change:
    return lambda frame: frame.assign(**{name: frame[name] + 2 * sigmas for name in NUMBERS[:count]})


def spoiled(value: Any, percent: int, name: str = "x3") -> Change:
    return lambda frame: frame.assign(**{name: frame[name].where(frame.index % 100 >= percent, value)})


def judge(change: Change = same, **given: Any) -> Verdict:
    answers = PlainAnswers(given.pop("output", output()), given.pop("candidate", Model()))
    reference, current = given.pop("reference", rows(1)), given.pop("current", rows(2, change))
    return judge_drift(given.pop("policy", POLICY), reference, current, answers=answers, confidence=given.pop("confidence", 0.95))


def read(verdict: Verdict) -> dict[str, Measurement]:
    return {m.name: m for m in verdict.measurements}


def test_rows_of_the_same_kind_pass_and_show_every_column_with_bounds() -> None:
    verdict = judge()
    assert verdict.outcome is Outcome.PASS, verdict.reason
    shown = read(verdict)
    assert set(required_names(POLICY)) == set(shown)
    distance = shown["distance of x4"]
    assert (distance.limit, distance.sample_count) == (8.0, N)
    assert distance.bounds is not None
    assert (distance.bounds.low, distance.bounds.confidence_percent) == (0.0, 95.0)
    assert 0 < (distance.value or 0) < distance.bounds.high < 0.3
    assert shown["columns_measured"].value == 10
    assert "all measurements of 10 columns are within their limits; drifted: none" in verdict.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(spoiled(math.nan, 60), "x3 is null in 60 % of current rows", id="60 percent nulls"),
        pytest.param(spoiled(math.inf, 60), "x3 is infinite in 300 current rows", id="60 percent infinities"),
        pytest.param(lambda f: f.drop(columns="x3"), "x3 is absent from the current rows", id="a missing column"),
        pytest.param(shifted(4, 5.0), "drifted_share 0.4 [0.4, 0.4] > 0.3", id="4 of 10 columns shifted by 5 sigma"),
    ],
)
def test_f23_what_the_stock_preset_calls_a_success_fails(change: Change, reason: str) -> None:
    verdict = judge(change)
    assert verdict.outcome is Outcome.FAIL, verdict.reason
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("change", "outcome", "reason"),
    [
        pytest.param(spoiled(-math.inf, 1), Outcome.FAIL, "x3 is infinite in 5 current rows", id="1 percent negative infinities fail"),
        pytest.param(spoiled(math.nan, 100), Outcome.FAIL, "columns_measured 9 < 10", id="a column of nulls fails"),
        pytest.param(lambda f: f.assign(x3=None), Outcome.FAIL, "x3 is null in 100 %", id="a column of untyped nulls fails"),
        pytest.param(shifted(1, 3.0), Outcome.PASS, "drifted: x0", id="one drifted column alone passes"),
        pytest.param(shifted(1, 9.0), Outcome.FAIL, "distance of x0 9.8", id="one column in another unit fails"),
        pytest.param(lambda f: f.assign(x3=f["x3"] * 1.8 + 32), Outcome.FAIL, "distance of x3 20", id="fahrenheit fails"),
        pytest.param(lambda f: f.assign(x3=10.0), Outcome.FAIL, "x3 is stuck on one value", id="a feed stuck on its mean fails"),
        pytest.param(lambda f: f.assign(carrier="AA"), Outcome.FAIL, "carrier is stuck on one value", id="a stuck category fails"),
        pytest.param(
            spoiled("XX", 1, "carrier"), Outcome.FAIL, "5 current rows have a carrier that is not known (1 diff", id="unseen category"
        ),
        pytest.param(spoiled(-120.0, 1), Outcome.FAIL, "5 current rows have a x3 outside -100 to 100", id="values below the range fail"),
        pytest.param(lambda f: f.rename(columns={"x3": "X3"}), Outcome.FAIL, "x3 is absent", id="a renamed column fails"),
        pytest.param(
            lambda f: pd.concat([f, f[["x3"]]], axis=1), Outcome.FAIL, "x3 is there twice in the current rows", id="a column twice fails"
        ),
        pytest.param(
            lambda f: f.assign(x3=f["x3"].astype(str)), Outcome.FAIL, "x3 holds text in the current rows", id="numbers as text fail"
        ),
        pytest.param(
            lambda f: f.assign(x3=f["x3"] > 10), Outcome.FAIL, "x3 holds numbers in the reference rows and booleans", id="booleans fail"
        ),
        pytest.param(lambda f: f.assign(carrier=1), Outcome.FAIL, "carrier holds text in the reference rows", id="numbers for text fail"),
        pytest.param(
            lambda f: f.assign(carrier=[["AA"]] * len(f)), Outcome.FAIL, "carrier holds mixed in the current", id="lists are no category"
        ),
        pytest.param(
            lambda f: f.assign(x3=pd.Timestamp("2026-01-01")), Outcome.FAIL, "x3 holds datetime64 in the current", id="times are no numbers"
        ),
        pytest.param(lambda f: f.head(399), Outcome.INCONCLUSIVE, "399 samples, needs 400", id="one row too few is not a pass"),
        pytest.param(lambda f: f.head(0), Outcome.INCONCLUSIVE, "no rows", id="no rows are not a pass"),
        pytest.param(spoiled(math.nan, 1), Outcome.PASS, "drifted: none", id="nulls within the limit pass"),
        pytest.param(lambda f: f.assign(carrier=f["carrier"].astype("category")), Outcome.PASS, "none", id="pandas categories are text"),
        pytest.param(lambda f: f.assign(x3=f["x3"].astype("Float64")), Outcome.PASS, "none", id="nullable doubles are numbers"),
    ],
)
def test_current_rows_are_judged(change: Change, outcome: Outcome, reason: str) -> None:
    verdict = judge(change)
    assert verdict.outcome is outcome, verdict.reason
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(spoiled(math.nan, 60), id="nulls"),
        pytest.param(spoiled(math.inf, 1), id="infinities"),
        pytest.param(spoiled(200.0, 1), id="values out of range"),
        pytest.param(lambda f: f.drop(columns="x3"), id="an absent column"),
    ],
)
def test_a_spoiled_reference_does_not_pass_either(change: Change) -> None:
    verdict = judge(reference=rows(1, change))
    assert verdict.outcome is Outcome.FAIL
    assert "reference rows" in verdict.reason


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(x3=frame["x3"].round().astype("Int64"))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        pytest.param(number("z"), lambda g: pd.array(g.integers(0, 9, N), dtype="Int64"), id="nullable integers are numbers"),
        pytest.param(number("z"), lambda g: g.random(N) < 0.3, id="booleans on both sides are numbers"),
        pytest.param(number("z"), lambda g: g.normal(0, 1e-9, N), id="tiny numbers"),
        pytest.param(number("z"), lambda _: np.full(N, 4.0), id="one constant on both sides"),
        pytest.param(number("z", method="psi"), lambda g: g.integers(0, 5, N), id="few distinct numbers"),
        pytest.param(category("z"), lambda g: g.random(N) < 0.3, id="booleans are categories"),
        pytest.param(category("z"), lambda _: ["EWR"] * N, id="one category on both sides"),
        pytest.param(category("z", categories=(0.0, 1.0)), lambda g: g.integers(0, 2, N), id="1 and 1.0 are one category"),
    ],
)
def test_columns_of_every_kind_pass_when_nothing_moved(column: NumberColumn | CategoryColumn, values: Callable[[Any], Any]) -> None:
    def side(seed: int) -> Rows:
        return rows(seed, lambda f: f.assign(z=values(np.random.default_rng(seed))))

    verdict = judge(policy=policy(column), reference=side(1), current=side(2))
    assert verdict.outcome is Outcome.PASS, verdict.reason


def test_categories_are_of_one_kind_true_is_not_1() -> None:
    flags = policy(category("z", categories=(True, False)))
    drawn = [rows(seed, lambda f: f.assign(z=(f["x0"] > 10).astype(int))) for seed in (1, 2)]
    verdict = judge(policy=flags, reference=drawn[0], current=drawn[1])
    assert "outside_percent of z 100 > 0 %" in verdict.reason


def test_a_shift_of_tiny_numbers_is_seen() -> None:
    drawn = [rows(seed, lambda f, by=by: f.assign(z=(f["x0"] - 10 + by) * 1e-9)) for seed, by in ((1, 0), (2, 8))]  # type: ignore[misc]
    assert (read(judge(policy=policy(number("z")), reference=drawn[0], current=drawn[1]))["distance of z"].value or 0) > 3.5


def test_a_constant_that_changed_however_little_is_not_a_pass() -> None:
    def constant(value: float) -> Change:
        return lambda frame: frame.assign(x0=value)

    verdict = judge(constant(1e-5), reference=rows(1, constant(0.0)))
    assert verdict.outcome is Outcome.FAIL
    assert "x0 has no distance: it is constant in the reference" in verdict.reason


def flagged(rare_count: int, row_count: int) -> Rows:
    return Rows(pd.DataFrame({"x8": np.random.default_rng(1).normal(10, 2, row_count), "z": np.arange(row_count) < rare_count}))


@pytest.mark.parametrize("column", [number("z", max_distance=50.0), category("z")], ids=["numbers", "categories"])
@pytest.mark.parametrize(
    ("before", "now", "is_stuck"),
    [
        pytest.param((10, 100_000), (0, 2000), False, id="a rare flag that nobody had lately"),
        pytest.param((10, 2000), (0, 2000), True, id="one row in 200 had it, and none has now"),
        pytest.param((50_000, 100_000), (1, 5000), True, id="a dead feed that lets one odd row through"),
        pytest.param((50_000, 100_000), (5, 5000), False, id="one row in 1000 is no longer stuck"),
        pytest.param((50, 100_000), (10, 20_000), False, id="as rare as it was"),
        pytest.param((1, 2000), (10, 100_000), False, id="a share that the reference knows roughly"),
        pytest.param((4, 2000), (1, 5000), True, id="few before, one now: all of them are counted together"),
        pytest.param((0, 2000), (0, 2000), False, id="a constant"),
    ],
)
def test_a_column_is_stuck_when_chance_does_not_explain_it(
    column: NumberColumn | CategoryColumn, before: tuple[int, int], now: tuple[int, int], is_stuck: bool
) -> None:
    verdict = judge(policy=policy(column), reference=flagged(*before), current=flagged(*now))
    assert read(verdict)["stuck_column_count"].value == float(is_stuck)
    assert ("z is stuck on one value" in verdict.reason) == is_stuck


def test_values_of_users_do_not_get_into_the_reason() -> None:
    verdict = judge(lambda f: spoiled("anna@example.com", 2, "carrier")(spoiled(123.25, 1)(f)))
    assert "10 current rows have a carrier that is not known (1 different)" in verdict.reason
    assert "5 current rows have a x3 outside -100 to 100" in verdict.reason
    assert "anna" not in str(verdict)
    assert "123.25" not in str(verdict)


def test_values_of_the_reference_are_told_they_are_ours_to_repair() -> None:
    known = policy(category("carrier", categories=CARRIERS), number("x3"))
    verdict = judge(policy=known, reference=rows(1, lambda f: spoiled("XX", 2, "carrier")(spoiled(-120.0, 1)(f))))
    assert "10 reference rows have a carrier that is not known: XX" in verdict.reason
    assert "5 reference rows have a x3 outside -100 to 100 (-120 to" in verdict.reason


@pytest.mark.parametrize("method", ["psi", "jensenshannon", "hellinger", "kl_div"])
def test_one_row_far_out_hides_no_shift(method: Any) -> None:
    def far_out(seed: int, by: float) -> Rows:
        return rows(seed, lambda f: f.assign(z=(f["x0"] + by).where(f.index > 0, 1e6)))

    column = number("z", method=method, drift_distance=0.1, max_distance=0.3, maximum=1e7)
    assert judge(policy=policy(column), reference=far_out(1, 0.0), current=far_out(2, 0.0)).outcome is not Outcome.FAIL
    for before in (far_out(1, 0.0), rows(1, lambda f: f.assign(z=f["x0"]))):
        assert "distance of z" in judge(policy=policy(column), reference=before, current=far_out(2, 10.0)).reason
        assert judge(policy=policy(column), reference=before, current=far_out(2, 10.0)).outcome is Outcome.FAIL


def test_two_columns_swapped_fail() -> None:
    def apart(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(x0=frame["x0"] * 100, x1=frame["x1"] / 100)

    wide = policy(*(number(name, minimum=-1e6, maximum=1e6, max_distance=2.0) for name in NUMBERS))
    swapped = rows(2, lambda f: apart(f).rename(columns={"x0": "x1", "x1": "x0"}))
    assert judge(policy=wide, reference=rows(1, apart), current=rows(2, apart)).outcome is Outcome.PASS
    assert judge(policy=wide, reference=rows(1, apart), current=swapped).outcome is Outcome.FAIL


def test_a_distance_that_noise_could_explain_is_undecided() -> None:
    tight = policy(number("x0", drift_distance=0.04, max_distance=0.05), max_drifted_share=0.0)
    verdict = judge(policy=tight)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "distance of x0" in verdict.reason
    assert "is not proved to be within 0.05" in verdict.reason
    assert judge(policy=tight, reference=rows(1, n=200_000), current=rows(2, n=200_000)).outcome is Outcome.PASS


def missing_at(position: int, value: Any) -> Callable[[pd.DataFrame], Any]:
    return lambda frame: [value if index == position else answer for index, answer in enumerate(frame["x8"].tolist())]


def refuse(frame: pd.DataFrame) -> Any:
    raise ArtifactError(f"the model refused {len(frame)} rows")


@pytest.mark.parametrize(
    ("candidate", "outcome", "reason"),
    [
        pytest.param(Model(), Outcome.PASS, "prediction_distance 0.0", id="steady answers pass"),
        pytest.param(Model(lambda f: (f["x0"] ** 3).tolist()), Outcome.FAIL, "prediction_distance", id="answers that moved fail"),
        pytest.param(Model(missing_at(0, math.nan)), Outcome.INCONCLUSIVE, "1 answers to the reference rows are", id="t06 nan"),
        pytest.param(Model(missing_at(9, math.inf)), Outcome.INCONCLUSIVE, "missing or not finite", id="t06 infinity"),
        pytest.param(Model(missing_at(9, None)), Outcome.INCONCLUSIVE, "missing or not finite", id="t06 null"),
        pytest.param(Model(missing_at(9, "")), Outcome.INCONCLUSIVE, "missing or not finite", id="t06 empty text"),
        pytest.param(Model(missing_at(9, "<html>502</html>")), Outcome.INCONCLUSIVE, "missing or not finite", id="t06 an error page"),
        pytest.param(Model(lambda f: f["x8"].tolist()[1:]), Outcome.INCONCLUSIVE, "499 answers to 500 rows", id="one answer too few"),
        pytest.param(Model(refuse), Outcome.INCONCLUSIVE, "the model refused 500 rows", id="a candidate that refuses"),
        pytest.param(Model(lambda f: f["absent"].tolist()), Outcome.INCONCLUSIVE, "could not be judged, KeyError", id="one that raises"),
    ],
)
def test_t06_answers_are_judged(candidate: Model, outcome: Outcome, reason: str) -> None:
    verdict = judge(shifted(1, 2.0), candidate=candidate)
    assert verdict.outcome is outcome, verdict.reason
    assert reason in verdict.reason


def test_what_the_columns_say_is_not_lost_with_the_answers() -> None:
    assert judge(shifted(4, 5.0), candidate=Model(refuse)).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("text", "answer", "moved"),
    [
        pytest.param('{"type": "label", "comparator": "differs"}', "a", "b", id="labels"),
        pytest.param('{"type": "label", "comparator": "differs"}', True, False, id="booleans"),
        pytest.param('{"type": "probability", "comparator": "total_variation"}', 0.2, 0.7, id="a probability"),
        pytest.param('{"type": "probability", "comparator": "total_variation"}', [0.8, 0.2], [0.3, 0.7], id="two probabilities"),
        pytest.param('{"type": "probability", "comparator": "total_variation"}', [0.4, 0.3, 0.3], [0.8, 0.1, 0.1], id="three"),
        pytest.param('{"type": "regression", "comparator": "absolute", "scale_units": 1.0}', {"y": 1.0}, {"y": 9.0}, id="a named number"),
        pytest.param('{"type": "ranking", "comparator": "overlap", "depth": 3}', ["a", "b"], ["b", "a"], id="rankings"),
        pytest.param('{"type": "ranking", "comparator": "overlap", "depth": 3}', [7, 8], [], id="empty rankings"),
        pytest.param('{"type": "embedding", "comparator": "cosine"}', [1.0, 0.0], [3.0, 4.0], id="vectors"),
        pytest.param('{"type": "embedding", "comparator": "neighbours"}', [1, 2], [3, 4], id="neighbours"),
        pytest.param('{"type": "text", "comparator": "token_f1"}', "yes", "I am sorry Dave", id="text"),
        pytest.param('{"type": "json", "comparator": "fields", "required_fields": []}', {"a": 1}, {"a": [1, 2, {"b": 3}]}, id="json"),
    ],
)
def test_answers_of_any_kind_drift(text: str, answer: Any, moved: Any) -> None:
    def answers(share: float) -> Model:
        return Model(lambda f: [answer if value < 10 + (share if len(f) == N else 0) else moved for value in f["x0"]])

    kind = output(text)
    wanted = PredictionDrift(method="wasserstein" if PlainAnswers(kind, Model()).kind == "number" else "jensenshannon", max_distance=0.3)
    of_answers = policy(*map(number, NUMBERS), prediction=wanted)
    more = rows(2, n=N + 1)
    steady = judge(policy=of_answers, current=more, candidate=answers(0.0), output=kind)
    assert steady.outcome is Outcome.PASS, steady.reason
    drifted = judge(policy=of_answers, current=more, candidate=answers(3.0), output=kind)
    assert drifted.outcome is Outcome.FAIL, drifted.reason


def test_categories_have_no_wasserstein_distance_and_the_message_says_what_to_choose() -> None:
    verdict = judge(output=output('{"type": "label", "comparator": "differs"}'), candidate=Model(lambda f: ["a"] * len(f)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "jensenshannon" in verdict.reason


def test_the_candidate_cannot_change_the_rows_that_are_judged() -> None:
    def write(frame: pd.DataFrame) -> Any:
        frame["x0"] = 0.0
        return frame["x8"].tolist()

    assert judge(candidate=Model(write)) == judge()


def test_large_data_is_sampled_only_when_the_profile_says_so_the_same_way_every_time() -> None:
    large, sampled = rows(2, n=3000), POLICY.model_copy(update={"sample_row_count": 1000})
    first, second = judge(current=large, policy=sampled), judge(current=large, policy=sampled)
    assert first == second
    assert first.outcome is Outcome.PASS
    assert "distances on 1000 of 3000 current rows" in first.reason
    assert "distances on" not in judge(current=large).reason


def test_faults_are_counted_on_all_rows_not_on_the_sample() -> None:
    large = rows(2, lambda f: f.assign(x3=f["x3"].where(f.index >= 60)), n=3000)
    sampled = POLICY.model_copy(update={"sample_row_count": 1000})
    assert read(judge(current=large, policy=sampled))["null_percent of x3"].value == pytest.approx(2.0)


@pytest.mark.parametrize("change", [shifted(4, 5.0), spoiled(math.nan, 60)], ids=["shifted", "nulls"])
def test_the_verdict_can_be_recomputed_from_its_measurements(change: Change) -> None:
    verdict = judge(change)
    again = judge_measurements("drift", verdict.measurements, required=required_names(POLICY))
    assert again.outcome is verdict.outcome
    assert verdict.reason.startswith(again.reason)


@settings(max_examples=25, deadline=None)
@given(few=st.integers(0, 100), more=st.integers(0, 100), shift=st.sampled_from([0.0, 5.0]))
def test_more_nulls_are_never_better(few: int, more: int, shift: float) -> None:
    def nulled(percent: int) -> Verdict:
        return judge(lambda f: spoiled(math.nan, percent)(shifted(4, shift)(f)))

    fewer, worse = nulled(few), nulled(min(100, few + more))
    assert worse.outcome >= fewer.outcome
    assert (read(worse)["null_percent of x3"].value or 0) >= (read(fewer)["null_percent of x3"].value or 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(0, 6))
def test_the_order_of_rows_changes_nothing(seed: int, shift: float) -> None:
    moved = rows(2, shifted(2, shift))
    shuffled = replace(moved, frame=moved.frame.sample(frac=1.0, random_state=seed))
    one, two = judge(current=moved), judge(current=shuffled)
    assert one.outcome is two.outcome
    for mine, theirs in zip(one.measurements, two.measurements, strict=True):
        assert mine.value == pytest.approx(theirs.value, abs=1e-12)


def test_the_page_is_of_a_sample_of_what_was_measured_the_furthest_column_first() -> None:
    drawn: list[tuple[pd.DataFrame, pd.DataFrame, list[str]]] = []
    current = rows(2, lambda f: shifted(1, 5.0)(f).drop(columns="x3"), n=6000)
    assert (
        draw_page(
            judge(current=current), POLICY, rows(1), current, draw=lambda r, c, columns: drawn.append((r, c, [x.name for x in columns]))
        )
        is None
    )
    ((reference, sampled, names),) = drawn
    assert (len(reference), len(sampled), names[0]) == (N, ROW_COUNT, "x0")
    assert "x3" not in names
    assert list(sampled.columns) == names


def drift_record(world: World) -> dict[str, Any]:
    (record,) = [gate for gate in world.records("gate") if gate["gate"] == "drift"]
    return record


def test_the_gate_keeps_the_page_and_says_where() -> None:
    world = World()
    assert run_drift(world.session()).outcome is Outcome.PASS
    assert world.drawn_drift == ["late-2"]
    assert [page["name"] for page in world.records("page")] == ["drift.html"]


def test_a_page_that_cannot_be_drawn_is_a_remark_and_no_more() -> None:
    def fail(*_: object) -> object:
        raise ValueError("no space left")

    world = World()
    session = world.session()
    verdict = run_drift(replace(session, services=replace(session.services, draw_drift=lambda _: fail)))
    assert verdict.outcome is Outcome.PASS
    assert "the page of the drift could not be drawn, ValueError: no space left" in drift_record(world)["reason"]
    assert not world.records("page")
