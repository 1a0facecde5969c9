"""Divergence of two answers: whatever is wrong with the candidate's is 1, an unreadable incumbent says nothing."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.errors import PolicyError
from interlock.judge.comparators import divergence


def body(predictions: Any) -> str:
    return json.dumps({"predictions": predictions})


@pytest.mark.parametrize(
    ("kind", "incumbent", "candidate", "expected"),
    [
        pytest.param("label", ["a"], ["a"], 0.0, id="the same label"),
        pytest.param("label", ["a"], ["b"], 1.0, id="another label"),
        pytest.param("label", ["a", "b", "c", "d"], ["a", "b", "c", "x"], 0.25, id="one of four rows differs"),
        pytest.param("label", [1, 2], [1.0, 2.0], 0.0, id="1 and 1.0 are the same number"),
        pytest.param("label", [{"y": 1, "z": 2}], [{"z": 2, "y": 1}], 0.0, id="records do not depend on the order of keys"),
        pytest.param("label", {"y": [1, 2]}, {"y": [1, 3]}, 0.5, id="columns are read by row"),
        pytest.param("label", {"y": [1, 2]}, [{"y": 1}, {"y": 2}], 0.0, id="columns and records hold the same rows"),
        pytest.param("label", "a", "b", 1.0, id="a single value"),
        pytest.param("label", [1], [True], 1.0, id="true is not the label 1"),
        pytest.param("label", [1], ["1"], 1.0, id="text is not a number"),
        pytest.param("label", ["a", "b"], ["a"], 1.0, id="a row is missing"),
        pytest.param("label", ["a"], [], 1.0, id="no row at all"),
        pytest.param("label", ["a"], [None], 1.0, id="null is not a label"),
        pytest.param("label", [["a", "b"]], [["a", ["b"]]], 1.0, id="another nesting"),
        pytest.param("probability", [0.2], [0.5], 0.3, id="binary probabilities: distance of P"),
        pytest.param("probability", [[0.2, 0.8]], [[0.5, 0.5]], 0.3, id="two classes give the same distance"),
        pytest.param("probability", [[1, 0, 0]], [[0, 0, 1]], 1.0, id="disjoint classes are as far as can be"),
        pytest.param("probability", [[0.5, 0.5], [0.1, 0.9]], [[0.5, 0.5], [0.3, 0.7]], 0.1, id="averaged over rows"),
        pytest.param("probability", [{"n": 0.2, "y": 0.8}], [{"n": 0.4, "y": 0.6}], 0.2, id="records of probabilities"),
        pytest.param("probability", [{"n": 0.2, "y": 0.8}], [{"n": 0.2, "x": 0.8}], 1.0, id="another class name"),
        pytest.param("probability", [0.2], [1.2], 1.0, id="a probability above 1"),
        pytest.param("probability", [[0.2, 0.8]], [[0.9, 0.9]], 1.0, id="probabilities that do not sum to 1"),
        pytest.param("probability", [[0.2, 0.8]], [[0.2, 0.4, 0.4]], 1.0, id="another number of classes"),
        pytest.param("probability", [0.2], [True], 1.0, id="true is not a probability"),
        pytest.param("regression", [10.0, 20.0], [11.0, 20.0], 0.1, id="share of the scale, averaged over rows"),
        pytest.param("regression", [10.0], [1000.0], 1.0, id="beyond the scale is 1"),
    ],
)
def test_divergence(kind: str, incumbent: Any, candidate: Any, expected: float) -> None:
    assert divergence(kind, body(incumbent), body(candidate), regression_scale=5.0) == pytest.approx(expected)


BROKEN = [
    pytest.param(None, id="nothing"),
    pytest.param("", id="an empty body"),
    pytest.param("null", id="null"),
    pytest.param("[0.5]", id="not the protocol"),
    pytest.param("<html>502 Bad Gateway</html>", id="an HTML error page"),
    pytest.param('{"predictions": [NaN]}', id="nan"),
    pytest.param('{"predictions": [Infinity]}', id="infinity"),
    pytest.param('{"predictions": [1e999]}', id="a number that overflows to infinity"),
    pytest.param('{"predictions": [' + "9" * 400 + "]}", id="an integer beyond any float"),
    pytest.param('{"predictions": ' + "[" * 100_000 + "]" * 100_000 + "}", id="nested beyond the stack"),
    pytest.param('{"predictions": []}', id="no predictions"),
    pytest.param('{"predictions": [[]]}', id="an empty row"),
    pytest.param('{"predictions": [null]}', id="a null prediction"),
    pytest.param('{"predictions": [0.5', id="a body that was cut"),
    pytest.param('{"error": "boom"}', id="an error document"),
]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("kind", ["label", "probability", "regression"])
def test_a_broken_candidate_answer_diverges_fully_and_a_broken_incumbent_says_nothing(kind: str, text: str | None) -> None:
    good = body([0.5])
    assert divergence(kind, good, text, regression_scale=1.0) == 1.0
    assert divergence(kind, text, good, regression_scale=1.0) is None
    assert divergence(kind, text, text, regression_scale=1.0) is None, "identical nonsense is no agreement"


def test_an_unknown_output_type_is_refused() -> None:
    with pytest.raises(PolicyError, match="unknown"):
        divergence("ranking", body([1]), body([1]))


@pytest.mark.parametrize("scale", [None, 0.0, -1.0, math.nan, math.inf])
def test_regression_without_a_scale_is_refused(scale: float | None) -> None:
    with pytest.raises(PolicyError, match="scale"):
        divergence("regression", body([1]), body([1]), regression_scale=scale)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(a=JSON_VALUES, b=JSON_VALUES, kind=st.sampled_from(["label", "probability", "regression"]))
def test_divergence_of_anything_is_none_or_within_0_and_1_and_symmetric(a: Any, b: Any, kind: str) -> None:
    forth = divergence(kind, body(a), body(b), regression_scale=1.0)
    back = divergence(kind, body(b), body(a), regression_scale=1.0)
    assert forth is None or 0.0 <= forth <= 1.0
    if forth is not None and back is not None:
        assert forth == pytest.approx(back)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.text(max_size=20))
def test_text_that_is_not_an_answer_never_agrees(probabilities: list[float], text: str) -> None:
    assert divergence("probability", body(probabilities), text) in (1.0, None)
    assert divergence("probability", body(probabilities), body(probabilities)) == 0.0
