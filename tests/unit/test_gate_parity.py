"""The parity gate finds a server that answers otherwise than the same version offline, and a model that answers a row by its neighbours."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.adapters.fakes import FakeClock
from interlock.control.gates.parity import Server, difference, judge_parity
from interlock.control.gates.run import run_parity
from interlock.control.gates.stage import encode_rows
from interlock.errors import ArtifactError, ServiceRefused, ServiceUnavailable
from interlock.model.verdict import Measurement, Outcome, Verdict
from interlock.profile.gates import Parity
from tests.worlds import Rows, World

POLICY = Parity(row_count=40, batch_row_count=10, max_difference=1e-9)
ROWS = pd.DataFrame({"x": np.random.default_rng(3).random(400), "y": range(400)})
Answers = Callable[[pd.DataFrame], Sequence[Any]]


@dataclass(frozen=True)
class Offline:
    """The version in this process."""

    answer: Answers
    input_columns: tuple[str, ...] = ("x", "y")

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        return self.answer(frame)


def doubled(frame: pd.DataFrame) -> list[Any]:
    return [2 * x for x in frame["x"].tolist()]


def centred(frame: pd.DataFrame) -> list[Any]:
    return (frame["x"] - frame["x"].mean()).tolist()


def summed(frame: pd.DataFrame) -> list[Any]:
    return frame["x"].cumsum().tolist()


def counted() -> Answers:
    calls = itertools.count()
    return lambda frame: [next(calls) for _ in range(len(frame))]


def documents(frame: pd.DataFrame) -> list[Any]:
    return [{"score": x, "words": ["a", None, True, x > 0.5]} for x in frame["x"].tolist()]


def serving(answer: Answers) -> Callable[[bytes], str]:
    """A server that does with each request what the model does offline."""

    def ask(payload: bytes) -> str:
        split = json.loads(payload)["dataframe_split"]
        return json.dumps({"predictions": list(answer(pd.DataFrame(split["data"], columns=split["columns"])))})

    return ask


def judge(offline: Answers, ask: Callable[[bytes], str], *, rows: pd.DataFrame = ROWS, **server: Any) -> Verdict:
    found = Server(ask, encode_rows, server.get("hold", lambda: None), server.get("clock", FakeClock()))
    return judge_parity(POLICY, rows, seed=11, candidate=Offline(offline), server=found)


def measured(verdict: Verdict, name: str) -> Measurement:
    return next(m for m in verdict.measurements if m.name == name)


def differing(verdict: Verdict) -> tuple[float | None, ...]:
    return tuple(measured(verdict, f"rows_that_differ_{way}").value for way in ("alone", "in_batches", "shuffled"))


@pytest.mark.parametrize("model", [doubled, documents], ids=["numbers", "documents"])
def test_a_server_that_answers_as_the_model_does_offline_passes(model: Answers) -> None:
    verdict = judge(model, serving(model))
    assert (verdict.outcome, differing(verdict)) == (Outcome.PASS, (0.0, 0.0, 0.0)), verdict.reason
    assert measured(verdict, "largest_difference").value == 0.0


@pytest.mark.parametrize(
    ("model", "ask", "expected"),
    [
        pytest.param(doubled, serving(lambda f: doubled(f / 10)), (40.0, 40.0, 40.0), id="the server scales its inputs otherwise"),
        pytest.param(doubled, serving(centred), (40.0, 40.0, 40.0), id="the server has another version"),
        pytest.param(centred, serving(centred), (40.0, 40.0, 40.0), id="the mean of the batch is taken off"),
        pytest.param(counted(), serving(counted()), (0.0, 40.0, 40.0), id="what was asked before counts"),
        pytest.param(doubled, serving(lambda f: [str(v) for v in doubled(f)]), (40.0, 40.0, 40.0), id="text instead of numbers"),
        pytest.param(
            doubled, serving(lambda f: doubled(f) if len(f) == 1 else doubled(f)[::-1]), (0.0, 40.0, 40.0), id="a batch turned round"
        ),
    ],
)
def test_answers_that_differ_fail(model: Answers, ask: Callable[[bytes], str], expected: tuple[float, ...]) -> None:
    verdict = judge(model, ask)
    assert (verdict.outcome, differing(verdict)) == (Outcome.FAIL, expected), verdict.reason


def test_a_model_that_adds_up_its_rows_fails_in_every_way_but_for_the_first_row_of_all() -> None:
    verdict = judge(summed, serving(summed))
    assert verdict.outcome is Outcome.FAIL
    assert differing(verdict)[:2] == (39.0, 30.0)


def test_a_model_that_sorts_its_batch_differs_only_where_the_order_is_another() -> None:
    ordered = ROWS.sort_values("x", ignore_index=True)

    def ranked(frame: pd.DataFrame) -> list[Any]:
        return [2 * x for x in sorted(frame["x"].tolist())]

    verdict = judge(ranked, serving(ranked), rows=ordered)
    assert verdict.outcome is Outcome.FAIL
    assert differing(verdict)[:2] == (0.0, 0.0)
    assert (differing(verdict)[2] or 0) > 20


def test_the_first_row_that_differs_is_named_with_both_values_cut_short() -> None:
    ask = serving(lambda frame: [{"text": "b" * 500} if y == 50 else {"text": "a"} for y in frame["y"]])
    reason = judge(lambda frame: [{"text": "a"}] * len(frame), ask).reason
    assert 'alone, row 50 of the data is the first that differs: offline {"text": "a"}, served {"text": "bbb' in reason
    assert "b" * 100 not in reason


def test_a_model_that_depends_on_its_neighbours_is_told_so() -> None:
    def padded(frame: pd.DataFrame) -> list[Any]:
        return [x + (len(frame) > 1) for x in frame["x"].tolist()]

    verdict = judge(doubled, serving(lambda f: doubled(f) if len(f) == 1 else padded(f)))
    assert verdict.outcome is Outcome.FAIL
    assert "by what else is in the request" in verdict.reason


def failing(error: Exception, every: int) -> Callable[[bytes], str]:
    calls, good = itertools.count(1), serving(doubled)

    def ask(payload: bytes) -> str:
        if next(calls) % every == 0:
            raise error
        return good(payload)

    return ask


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(failing(ServiceRefused("answered 400"), 45), id="one refusal"),
        pytest.param(failing(ServiceUnavailable("answered 500"), 1), id="nothing but errors"),
        pytest.param(lambda _: "<html>", id="a page"),
        pytest.param(lambda _: '{"predictions": 1}', id="one number for all rows"),
        pytest.param(serving(lambda f: doubled(f)[: max(1, len(f) - 1)]), id="a prediction fewer than rows"),
        pytest.param(serving(lambda f: [*doubled(f), 1.0]), id="a prediction more than rows"),
    ],
)
def test_a_request_without_one_usable_answer_a_row_fails(ask: Callable[[bytes], str]) -> None:
    verdict = judge(doubled, ask)
    assert verdict.outcome is Outcome.FAIL
    assert "unanswered_request_count" in verdict.reason
    assert "first failure of the candidate: Service" in verdict.reason


def test_what_fails_and_what_differs_are_both_named() -> None:
    good, calls = serving(centred), itertools.count(1)

    def ask(payload: bytes) -> str:
        if next(calls) == 45:
            raise ServiceRefused("answered 400")
        return good(payload)

    reason = judge(doubled, ask).reason
    assert all(
        words in reason for words in ("unanswered_request_count 1 > 0", "rows_that_differ_in_batches 40", "rows_that_differ_shuffled 30")
    )


def test_a_server_that_keeps_failing_is_not_asked_for_ever() -> None:
    calls: list[bytes] = []

    def ask(payload: bytes) -> str:
        calls.append(payload)
        raise ServiceUnavailable("answered 503")

    judge(doubled, ask)
    assert len(calls) == 3 * 5 - 2  # each way ends after five failures; there are four batches of ten


def test_columns_of_lists_are_records_as_they_are_offline() -> None:
    def records(frame: pd.DataFrame) -> list[Any]:
        return [{"a": x, "b": 1} for x in frame["x"].tolist()]

    def ask(payload: bytes) -> str:
        rows = json.loads(serving(records)(payload))["predictions"]
        return json.dumps({"predictions": {key: [row[key] for row in rows] for key in ("a", "b")}})

    assert judge(records, ask).outcome is Outcome.PASS


def offline_error(_: pd.DataFrame) -> list[Any]:
    raise ArtifactError("the model version failed on 40 rows")


@pytest.mark.parametrize(
    ("offline", "rows", "reason"),
    [
        pytest.param(offline_error, ROWS, "failed on 40 rows", id="offline it raises"),
        pytest.param(lambda f: doubled(f)[1:], ROWS, "39 answers for 40 rows", id="offline one answer is missing"),
        pytest.param(doubled, ROWS.head(39), "there are 39 rows, needs 40", id="too few rows"),
    ],
)
def test_what_cannot_be_compared_is_inconclusive(offline: Answers, rows: pd.DataFrame, reason: str) -> None:
    verdict = judge(offline, serving(doubled), rows=rows)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert reason in verdict.reason


def test_a_server_that_answers_too_slowly_ends_the_gate() -> None:
    clock = FakeClock()

    def ask(payload: bytes) -> str:
        clock.sleep(9.0)
        return serving(doubled)(payload)

    verdict = judge(doubled, ask, clock=clock)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "5 of 40 rows were answered within 40 s" in verdict.reason


def test_a_plane_that_is_lost_is_no_fault_of_the_candidate() -> None:
    def hold() -> None:
        raise ServiceUnavailable("the plane does not answer")

    assert judge(doubled, serving(doubled), hold=hold).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        pytest.param(0.5, 0.5, 0.0, id="the same number"),
        pytest.param(1, 1.0, 0.0, id="a whole number is a number"),
        pytest.param(0.5, 0.5 + 1e-10, 1e-10, id="absolute below one"),
        pytest.param(1e6, 1e6 + 1, 1e-6, id="relative above one"),
        pytest.param(math.nan, math.nan, 0.0, id="nan is nan"),
        pytest.param(math.nan, 0.5, math.inf, id="nan is nothing else"),
        pytest.param(math.inf, math.inf, 0.0, id="infinity is infinity"),
        pytest.param(math.inf, -math.inf, math.inf, id="of the same sign"),
        pytest.param(10**400, 0.5, math.inf, id="a number beyond every float"),
        pytest.param(True, 1, math.inf, id="true is no number"),
        pytest.param(None, 0.0, math.inf, id="nothing is not zero"),
        pytest.param("a", "b", math.inf, id="another text"),
        pytest.param([0.1, 0.2], [0.1, 0.25], 0.05, id="lists by their numbers"),
        pytest.param([0.1], [0.1, 0.2], math.inf, id="lists of another length"),
        pytest.param({"a": [1.0]}, {"a": [1.5]}, 0.5 / 1.5, id="into objects"),
        pytest.param({"a": 1}, {"b": 1}, math.inf, id="objects with other names"),
        pytest.param({"a": 1}, [1], math.inf, id="an object is no list"),
    ],
)
def test_json_values_are_compared_by_their_numbers(one: Any, other: Any, apart: float) -> None:
    assert difference(one, other) == pytest.approx(apart)
    assert difference(other, one) == pytest.approx(apart)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_that_went_through_json_is_the_same(value: Any) -> None:
    assert difference(value, json.loads(json.dumps(value))) == 0.0


@given(VALUES, VALUES)
def test_a_difference_is_never_nan_and_never_negative(one: Any, other: Any) -> None:
    assert difference(one, other) >= 0.0
    assert difference(one, other) == difference(other, one)


def test_a_release_writes_the_rows_and_the_verdict_into_its_evidence() -> None:
    world = World()
    verdict = run_parity(world.session())
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert [(r["gate"], r["outcome"]) for r in world.records("gate")] == [("parity", "PASS")]
    assert world.records("data")[0]["digest"] == "5" * 64


def test_a_release_whose_server_has_another_version_fails() -> None:
    world = World()
    world.candidate_answer = lambda: 0.3
    verdict = run_parity(world.session())
    assert (verdict.outcome, differing(verdict)) == (Outcome.FAIL, (40.0, 40.0, 40.0))
    assert [(r["gate"], r["outcome"]) for r in world.records("gate")] == [("parity", "FAIL")]


def test_rows_of_other_bytes_than_the_profile_names_prove_nothing() -> None:
    world = World()
    session = world.session()
    services = replace(session.services, read_rows=lambda _: Rows(ROWS.assign(label=0), digest="6" * 64))
    verdict = run_parity(replace(session, services=services))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "SHA-256" in verdict.reason
