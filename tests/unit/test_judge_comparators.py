"""Divergence of two answers: whatever is wrong with the candidate's is 1, an unreadable incumbent says nothing."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.errors import PolicyError
from interlock.judge.comparators import (
    Compare,
    Layout,
    cosine_comparator,
    difference_comparator,
    document_comparator,
    exceeds_comparator,
    label_comparator,
    neighbour_comparator,
    overlap_comparator,
    probability_comparator,
    rank_biased_comparator,
    text_comparator,
)

LABELS, COSTS = ("approve", "review", "decline"), ((0.0, 1.0, 4.0), (1.0, 0.0, 2.0), (10.0, 2.0, 0.0))
COMPARATORS: dict[str, Compare] = {
    "label": label_comparator(),
    "costs": label_comparator(LABELS, COSTS),
    "probability": probability_comparator(),
    "absolute": difference_comparator(scale_units=5.0),
    "exceeds": exceeds_comparator(tolerance_units=2.0, scale_units=5.0),
    "rank_biased": rank_biased_comparator(persistence=0.9, depth=10),
    "overlap": overlap_comparator(depth=3),
    "cosine": cosine_comparator(),
    "neighbours": neighbour_comparator(),
    "text": text_comparator(),
    "json": document_comparator({"decision": "string"}),
    "any json": document_comparator({}),
}
SPECIAL: dict[str, Compare] = {
    "field": document_comparator({"answer": "string"}),
    "whole": document_comparator({"n": "integer"}),
    "vectors": probability_comparator(layout=Layout(row_is_list=True)),
    "three numbers": exceeds_comparator(tolerance_units=2.0, scale_units=5.0, layout=Layout(row_is_list=True)),
}
# One good row of each, and how a good row is drawn.
NUMBERS = st.floats(-1e6, 1e6)
IDS = st.lists(st.integers(0, 30) | st.sampled_from("abcdef"), max_size=12, unique=True)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
FINITE_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e3, 1e3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), FINITE_VALUES, max_size=4)
ROWS: dict[str, st.SearchStrategy[Any]] = {
    "label": st.integers() | st.text(max_size=3) | st.booleans(),
    "costs": st.sampled_from(LABELS),
    "probability": st.floats(0, 1),
    "absolute": NUMBERS,
    "exceeds": NUMBERS,
    "rank_biased": IDS,
    "overlap": IDS,
    "cosine": st.lists(NUMBERS, min_size=3, max_size=3).filter(any),
    "neighbours": IDS,
    "text": st.text(max_size=30) | st.lists(st.sampled_from(["one", "two", "three", "1.5"]), max_size=8).map(" ".join),
    "json": DOCUMENTS.map(lambda document: {**document, "decision": "yes"}),
    "any json": DOCUMENTS,
}
GOOD: dict[str, Any] = {
    "label": "a",
    "costs": "review",
    "probability": 0.5,
    "absolute": 0.5,
    "exceeds": 0.5,
    "rank_biased": [1, 2],
    "overlap": [1, 2],
    "cosine": [0.5, 0.5],
    "neighbours": [1, 2],
    "text": "a b",
    "json": {"decision": "yes"},
    "any json": {"a": 1},
}
ALL = sorted(COMPARATORS)
SYMMETRIC = [name for name in ALL if name != "costs"]
KEPT = settings(max_examples=100, deadline=None, derandomize=True)


def body(predictions: Any) -> str:
    return json.dumps({"predictions": predictions})


def divergence(name: str, incumbent: str | None, candidate: str | None) -> float | None:
    difference = (COMPARATORS | SPECIAL)[name](incumbent, candidate)
    return None if difference is None else difference.divergence


def between(name: str, incumbent: Any, candidate: Any) -> float:
    """D of two rows that are both good."""
    distance = divergence(name, body([incumbent]), body([candidate]))
    assert distance is not None
    return distance


@pytest.mark.parametrize(
    ("name", "incumbent", "candidate", "expected"),
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
        pytest.param("costs", ["approve"], ["decline"], 0.4, id="a cost is scaled by the largest"),
        pytest.param("costs", ["decline"], ["approve"], 1.0, id="the dear direction is 1"),
        pytest.param("costs", ["approve", "decline"], ["review", "decline"], 0.05, id="costs are averaged over rows"),
        pytest.param("costs", [{"answer": "approve"}], [{"answer": "review"}], 0.1, id="a record with one label"),
        pytest.param("costs", ["approve"], ["cancel"], 1.0, id="a label without a cost"),
        pytest.param("costs", ["approve"], [["approve", "review"]], 1.0, id="two labels where one is wanted"),
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
        pytest.param("absolute", [10.0, 20.0], [11.0, 20.0], 0.1, id="share of the scale, averaged over rows"),
        pytest.param("absolute", [10.0], [1000.0], 1.0, id="beyond the scale is 1"),
        pytest.param("absolute", [-1.7e308], [1.7e308], 1.0, id="a difference that overflows"),
        pytest.param("exceeds", [10.0], [12.0], 0.0, id="exactly at the tolerance is no difference"),
        pytest.param("exceeds", [10.0], [12.1], 1.0, id="beyond the tolerance is one"),
        pytest.param("exceeds", [[10.0, 0.0, 0.0]], [[12.1, 0.0, 0.0]], 1.0, id="one number of a row is enough"),
        pytest.param("exceeds", [10.0, 0.0], [12.1, 0.0], 0.5, id="a batch averages"),
        pytest.param("rank_biased", [["a", "b"]], [["c", "d"]], 1.0, id="nothing in common"),
        pytest.param("rank_biased", [["a", "b"]], [["b", "a"]], 1 / 1.9, id="two swapped: .9^0 of .9^0 + .9^1"),
        pytest.param("rank_biased", [[]], [[]], 0.0, id="two empty lists agree"),
        pytest.param("rank_biased", [["a"]], [[]], 1.0, id="an empty list where there was one"),
        pytest.param("rank_biased", [{"items": [1, 2]}], [[1, 2]], 0.0, id="a frame's only column"),
        pytest.param("rank_biased", [[1]], [["1"]], 1.0, id="the text 1 is another id"),
        pytest.param("rank_biased", [["a", "b"]], [["a", "a"]], 1.0, id="an id twice is no ranking"),
        pytest.param("rank_biased", [["a", "b"]], [[["a"], ["b"]]], 1.0, id="lists in a list are no ranking"),
        pytest.param("rank_biased", [[*range(10), 98]], [[*range(10), 99]], 0.0, id="what is below the depth is not seen"),
        pytest.param("overlap", [["a", "b", "c"]], [["c", "b", "a"]], 0.0, id="overlap does not see order"),
        pytest.param("overlap", [["a", "b", "c"]], [["a", "x", "y"]], 2 / 3, id="two of three are others"),
        pytest.param("overlap", [["a", "b", "c", "d"]], [["d", "a", "b", "c"]], 1 / 3, id="only the first three count"),
        pytest.param("overlap", [["a", "b", "c"]], [["a"]], 2 / 3, id="a list that is shorter lacks the rest"),
        pytest.param("cosine", [[1.0, 0.0]], [[0.0, 3.0]], 0.5, id="a right angle"),
        pytest.param("cosine", [[1.0, 0.0]], [[-2.0, 0.0]], 1.0, id="the opposite"),
        pytest.param("cosine", [[1.0, 2.0]], [[2.0, 4.0]], 0.0, id="length does not count"),
        pytest.param("cosine", [[1e300, 1e300]], [[1e-300, 1e-300]], 0.0, id="no square overflows or vanishes"),
        pytest.param("cosine", [[1.0, 0.0]], [[0.0, 0.0]], 1.0, id="zeros have no direction"),
        pytest.param("cosine", [[1.0, 0.0]], [[1.0, 0.0, 0.0]], 1.0, id="another length"),
        pytest.param("cosine", [[1.0, 0.0]], [["1.0", "0.0"]], 1.0, id="text is no vector"),
        pytest.param("cosine", [[1.0, 0.0]], [[True, False]], 1.0, id="truth is no vector"),
        pytest.param("neighbours", [[1, 2, 3]], [[3, 2, 1]], 0.0, id="neighbours have no order"),
        pytest.param("neighbours", [[1, 2, 3]], [[3, 4, 5]], 0.8, id="one of five in common"),
        pytest.param("text", ["The answer is 42."], ["the ANSWER is 42"], 0.0, id="case and full stops do not count"),
        pytest.param("text", ["a b c d"], ["a b x y"], 0.5, id="half of the words"),
        pytest.param("text", ["a a a b"], ["a b b b"], 0.5, id="as often as it stands there"),
        pytest.param("text", ["1.5 mg"], ["5.1 mg"], 0.5, id="1.5 is not 5.1"),
        pytest.param("text", ["-5"], ["5"], 1.0, id="a sign counts"),
        pytest.param("text", ["東京です"], ["東京だ"], 1 - 4 / 7, id="text without spaces is compared sign by sign"),
        pytest.param("text", ["???"], ["!!!"], 1.0, id="where there are no words signs count"),
        pytest.param("text", ["पिता"], ["पता"], 1.0, id="a vowel that is a mark makes another word"),
        pytest.param("text", ["यह सही है कि"], ["यह सही है का"], 0.25, id="one of four words of Hindi"),
        pytest.param("text", ["ลูกค้าดี"], ["ลูกคาดิ"], 1.0, id="tones and vowels of Thai"),
        pytest.param("text", ["cafe\u0301"], ["CAF\u00c9"], 0.0, id="a letter with its accent is one sign, however written"),
        pytest.param("text", ["approve ✅"], ["approve ❌"], 0.5, id="an emoji is a token"),
        pytest.param("text", ["✔️ done"], ["✔ done"], 0.0, id="its colour does not count"),
        pytest.param("text", ["x == 3"], ["x != 3"], 0.25, id="equal or not"),
        pytest.param("text", ["a < b"], ["a > b"], 1 / 3, id="less or more"),
        pytest.param("text", ["5 %"], ["5 $"], 0.5, id="per cent or dollars"),
        pytest.param("text", ["5 €"], ["5 £"], 0.5, id="euros or pounds"),
        pytest.param("text", ["C++ is"], ["C is"], 1 / 3, id="C++ is not C"),
        pytest.param("text", ["10²"], ["102"], 1.0, id="a power is no digit"),
        pytest.param("text", ["not (x), y!"], ["Not x: 'y'"], 0.0, id="what only divides sentences does not count"),
        pytest.param("text", ["a"], [""], 1.0, id="no word at all"),
        pytest.param("text", [{"answer": "a b"}], ["a b"], 0.0, id="a frame's only column of text"),
        pytest.param("text", ["a"], [7], 1.0, id="a number is no text"),
        pytest.param("json", [{"decision": "yes", "limit": 5}], [{"limit": 5.0, "decision": "yes"}], 0.0, id="order and 5.0 do not count"),
        pytest.param("json", [{"decision": "yes", "limit": 5}], [{"decision": "yes", "limit": 6}], 0.5, id="one of two fields"),
        pytest.param("json", [{"decision": "yes"}], [{"decision": "yes", "why": "x"}], 0.5, id="a field that the other lacks"),
        pytest.param("json", [{"decision": "yes", "tags": ["a", "b"]}], [{"decision": "yes", "tags": ["a", "c"]}], 1 / 3, id="items"),
        pytest.param("json", [{"decision": "yes", "n": 1}], [{"decision": "yes", "n": True}], 0.5, id="true is not 1 in a document"),
        pytest.param("json", [{"decision": "yes", "n": None}], [{"decision": "yes", "n": None}], 0.0, id="null is a value of a document"),
        pytest.param("json", ['{"decision": "yes"}'], [{"decision": "yes"}], 0.0, id="text that holds a document"),
        pytest.param("json", [{"out": '{"decision": "yes"}'}], ['{"decision": "yes"}'], 0.0, id="a frame's column of documents"),
        pytest.param("json", {"decision": "yes"}, [{"decision": "yes"}], 0.0, id="one document without a list"),
        pytest.param("json", ['{"decision": "yes"}'], ['{"decision": "no", "decision": "yes"}'], 1.0, id="a key twice in a text"),
        pytest.param("field", [{"answer": '{"a": 1}'}], [{"answer": '{"a": 1}'}], 0.0, id="a required text that holds JSON"),
        pytest.param("field", [{"answer": '{"a": 1}'}], [{"answer": '{"a": 2}'}], 1.0, id="a required text that holds other JSON"),
        pytest.param("field", [{"out": '{"answer": "x"}'}], [{"answer": "x"}], 0.0, id="a column of documents with a required text"),
        pytest.param("whole", [{"n": 3}], [{"n": 3.0}], 0.0, id="3.0 is a whole number"),
        pytest.param("whole", [{"n": 3}], [{"n": 3.5}], 1.0, id="3.5 is none"),
        pytest.param("whole", [{"n": 1}], [{"n": True}], 1.0, id="and neither is true"),
        pytest.param("json", [{"decision": "yes"}], [{"verdict": "yes"}], 1.0, id="a required field is missing"),
        pytest.param("json", [{"decision": "yes", "a": 1}], [{"decision": 1, "a": 1}], 1.0, id="a required field of another type"),
        pytest.param("json", [{"decision": "yes"}], ["{decision: yes"], 1.0, id="broken JSON"),
        pytest.param("json", [{"decision": "yes"}], ['{"decision": NaN}'], 1.0, id="nan in a document"),
        pytest.param("any json", [{}], [{}], 0.0, id="two empty documents"),
        pytest.param("any json", [{"a": {}}], [{"a": []}], 1.0, id="an empty list is no empty object"),
        pytest.param("any json", [{"a": 1}], ["[1]"], 1.0, id="a list is no document"),
    ],
)
def test_divergence(name: str, incumbent: Any, candidate: Any, expected: float) -> None:
    assert divergence(name, body(incumbent), body(candidate)) == pytest.approx(expected)


def one_hot(index: int, count: int = 100) -> list[float]:
    return [float(index == i) for i in range(count)]


WAYS_OF_ONE_ROW = [
    pytest.param(lambda row: [row], id="a list of rows"),
    pytest.param(lambda row: row, id="the row alone"),
    pytest.param(lambda row: {"x": row}, id="one record"),
    pytest.param(lambda row: {"x": [row]}, id="a column"),
    pytest.param(lambda row: [{"x": row}], id="records"),
]


@pytest.mark.parametrize("written", WAYS_OF_ONE_ROW)
@pytest.mark.parametrize(
    ("name", "incumbent", "candidate", "expected"),
    [
        pytest.param("vectors", one_hot(0), one_hot(1), 1.0, id="probabilities of a hundred classes"),
        pytest.param("vectors", [0.9, 0.1], [0.6, 0.4], 0.3, id="probabilities of two"),
        pytest.param("three numbers", [10.0, 0.0, 0.0], [13.0, 0.0, 0.0], 1.0, id="one of three quantities"),
        pytest.param("cosine", [1.0, 0.0], [0.0, 1.0], 0.5, id="vectors"),
        pytest.param("overlap", ["a", "b"], ["a", "c"], 0.5, id="ids"),
        pytest.param("rank_biased", ["a", "b"], ["c", "d"], 1.0, id="ranks"),
        pytest.param("neighbours", [1, 2, 3], [3, 4, 5], 0.8, id="neighbours"),
    ],
)
def test_a_list_in_each_row_is_one_row_however_it_is_written(
    name: str, written: Callable[[Any], Any], incumbent: Any, candidate: Any, expected: float
) -> None:
    assert divergence(name, body(written(incumbent)), body(written(candidate))) == pytest.approx(expected)
    assert divergence(name, body(written(incumbent)), body(written(incumbent))) == 0.0


@pytest.mark.parametrize("name", ["vectors", "cosine"])
@pytest.mark.parametrize("written", [lambda rows: rows, lambda rows: {"x": rows}, lambda rows: [{"x": row} for row in rows]])
def test_a_batch_of_lists_is_read_by_row(name: str, written: Callable[[Any], Any]) -> None:
    before, after = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert divergence(name, body(written(before)), body(written(after))) == (0.5 if name == "vectors" else 0.25)


def test_where_one_row_was_asked_for_an_answer_of_several_is_unusable() -> None:
    compare = probability_comparator(layout=Layout(row_count=1))
    several, one_row = body(one_hot(0)), body([1.0])
    assert compare(several, several) is None
    assert compare(one_row, several) == (1.0, None)
    assert compare(one_row, one_row) == (0.0, None)


BROKEN = [
    pytest.param(None, id="nothing"),
    pytest.param("", id="an empty body"),
    pytest.param("null", id="null"),
    pytest.param("[0.5]", id="not the protocol"),
    pytest.param("<html>502 Bad Gateway</html>", id="an HTML error page"),
    pytest.param('{"predictions": [NaN]}', id="nan"),
    pytest.param('{"predictions": [Infinity]}', id="infinity"),
    pytest.param('{"predictions": [[1, -Infinity]]}', id="infinity in a row"),
    pytest.param('{"predictions": [1e999]}', id="a number that overflows to infinity"),
    pytest.param('{"predictions": [[1e999, 1]]}', id="a vector that overflows"),
    pytest.param('{"predictions": [{"a": 1e999}]}', id="a document that overflows"),
    pytest.param('{"predictions": [' + "9" * 400 + "]}", id="an integer beyond any float"),
    pytest.param('{"predictions": ' + "[" * 100_000 + "]" * 100_000 + "}", id="nested beyond the stack"),
    pytest.param('{"predictions": [' + "[" * 300 + "1" + "]" * 300 + "]}", id="nested deeper than any answer"),
    pytest.param('{"predictions": [' + '{"a":' * 300 + "1" + "}" * 300 + "]}", id="documents in documents"),
    pytest.param('{"predictions": []}', id="no predictions"),
    pytest.param('{"predictions": [null]}', id="a null prediction"),
    pytest.param('{"predictions": ["a"], "predictions": [0.5]}', id="predictions given twice"),
    pytest.param('{"predictions": [{"a": 1, "a": 1}]}', id="a key given twice"),
    pytest.param('{"predictions": [0.5', id="a body that was cut"),
    pytest.param('{"error": "boom"}', id="an error document"),
]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("name", ALL)
def test_a_broken_candidate_answer_diverges_fully_and_a_broken_incumbent_says_nothing(name: str, text: str | None) -> None:
    good = body([GOOD[name]])
    assert divergence(name, good, good) == 0.0
    assert divergence(name, good, text) == 1.0
    assert divergence(name, text, good) is None
    assert divergence(name, text, text) is None, "identical nonsense is no agreement"


@pytest.mark.parametrize("name", ["absolute", "exceeds"])
@pytest.mark.parametrize(
    ("incumbent", "candidate", "expected"),
    [
        pytest.param([10.0], [11.0], 0.2, id="larger is above 0"),
        pytest.param([10.0], [9.0], -0.2, id="smaller is below 0"),
        pytest.param([10.0], [10.0], 0.0, id="the same is 0"),
        pytest.param([10.0, 10.0], [9.0, 11.0], 0.0, id="errors both ways cancel"),
        pytest.param([10.0, 10.0], [1000.0, 11.0], 0.6, id="each is clipped before the mean"),
        pytest.param([0.0], [-1e308], -1.0, id="never below -1"),
        pytest.param([10.0], ["x"], None, id="an unusable candidate says nothing about the direction"),
    ],
)
def test_quantities_have_a_signed_difference(name: str, incumbent: Any, candidate: Any, expected: float | None) -> None:
    difference = COMPARATORS[name](body(incumbent), body(candidate))
    assert difference is not None
    assert difference.signed == (None if expected is None else pytest.approx(expected))


def test_what_is_no_quantity_has_no_sign() -> None:
    for name in set(ALL) - {"absolute", "exceeds"}:
        difference = COMPARATORS[name](body([GOOD[name]]), body([GOOD[name]]))
        assert difference is not None
        assert difference.signed is None


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: difference_comparator(scale_units=0.0), id="a scale of nothing"),
        pytest.param(lambda: difference_comparator(scale_units=-1.0), id="a scale below nothing"),
        pytest.param(lambda: difference_comparator(scale_units=math.nan), id="a scale that is nan"),
        pytest.param(lambda: difference_comparator(scale_units=math.inf), id="an endless scale"),
        pytest.param(lambda: exceeds_comparator(tolerance_units=0.0, scale_units=1.0), id="a tolerance of nothing"),
        pytest.param(lambda: rank_biased_comparator(persistence=1.0, depth=5), id="a persistence of 1"),
        pytest.param(lambda: rank_biased_comparator(persistence=0.9, depth=0), id="no depth"),
        pytest.param(lambda: overlap_comparator(depth=0), id="no depth of overlap"),
        pytest.param(lambda: label_comparator(("a",), ((0.0,),)), id="one label"),
        pytest.param(lambda: label_comparator((), ((0.0,),)), id="costs of no labels"),
        pytest.param(lambda: label_comparator(("a", "a"), ((0.0, 1.0), (1.0, 0.0))), id="a label twice"),
        pytest.param(lambda: label_comparator(("a", "b"), ((0.0, 1.0),)), id="costs that are not square"),
        pytest.param(lambda: label_comparator(("a", "b"), ((0.0, math.nan), (1.0, 0.0))), id="a cost that is nan"),
        pytest.param(lambda: label_comparator(("a", "b"), ((0.0, 0.0), (0.0, 0.0))), id="no cost at all"),
        pytest.param(lambda: label_comparator(("a", "b"), ((1.0, 1.0), (1.0, 0.0))), id="a cost of the same label"),
        pytest.param(lambda: document_comparator({"a": "text"}), id="an unknown type of field"),
    ],
)
def test_a_parameter_that_measures_nothing_is_refused(make: Callable[[], Compare]) -> None:
    with pytest.raises(PolicyError):
        make()


@pytest.mark.parametrize("name", ALL)
@KEPT
@given(a=JSON_VALUES, b=JSON_VALUES)
def test_divergence_of_anything_is_none_or_within_0_and_1(name: str, a: Any, b: Any) -> None:
    good = body([GOOD[name]])
    for incumbent, candidate in ((body(a), body(b)), (good, body(b)), (good, body([b])), (body([a]), body([b]))):
        distance = divergence(name, incumbent, candidate)
        assert distance is None or 0.0 <= distance <= 1.0


@pytest.mark.parametrize("name", ALL)
@KEPT
@given(text=st.text(max_size=40), other=st.text(max_size=40))
def test_text_that_is_not_an_answer_never_agrees(name: str, text: str, other: str) -> None:
    assert divergence(name, body([GOOD[name]]), text) == 1.0
    assert divergence(name, text, other) is None


@pytest.mark.parametrize("name", ALL)
@KEPT
@given(data=st.data())
def test_an_answer_agrees_with_itself_however_it_is_written(name: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(ROWS[name], min_size=1, max_size=4))
    assert divergence(name, body(rows), body(rows)) == 0.0
    assert divergence(name, body(rows), json.dumps({"predictions": rows}, indent=1, sort_keys=True)) == 0.0


@pytest.mark.parametrize("name", SYMMETRIC)
@KEPT
@given(data=st.data())
def test_divergence_does_not_depend_on_who_is_the_candidate(name: str, data: st.DataObject) -> None:
    rows = st.lists(ROWS[name], min_size=2, max_size=2)
    a, b = data.draw(rows), data.draw(rows)
    forth, back = COMPARATORS[name](body(a), body(b)), COMPARATORS[name](body(b), body(a))
    assert forth is not None
    assert back is not None
    assert forth.divergence == pytest.approx(back.divergence)
    assert forth.signed is back.signed is None or forth.signed == pytest.approx(-(back.signed or 0.0))


@pytest.mark.parametrize("name", ALL)
@KEPT
@given(data=st.data(), kept=st.integers(1, 3))
def test_rows_given_to_the_wrong_inputs_never_make_two_answers_more_alike(name: str, data: st.DataObject, kept: int) -> None:
    """Permuting answers keeps every marginal; paired, it shows as soon as two of the answers differ."""
    rows = data.draw(st.lists(ROWS[name], min_size=4, max_size=4))
    shifted = rows[kept:] + rows[:kept]
    distance = divergence(name, body(rows), body(shifted))
    assert distance is not None
    alone = [between(name, a, b) for a, b in zip(rows, shifted, strict=True)]
    shapes_differ = distance == 1.0
    assert shapes_differ or distance == pytest.approx(sum(alone) / 4)


WORSE: dict[str, list[Any]] = {
    "label": ["a", "b"],
    "costs": ["approve", "review", "decline"],
    "probability": [0.5, 0.6, 0.75, 1.0],
    "absolute": [0.0, 0.1, 1.0, -4.0, 5.0],
    "exceeds": [0.0, 2.5],
    "rank_biased": [
        [*range(8)],
        [0, 1, 2, 3, 4, 5, 7, 6],
        [0, 1, 3, 2, 4, 5, 7, 6],
        [1, 0, 3, 2, 5, 4, 7, 6],
        [*range(7, -1, -1)],
        [*range(8, 16)],
    ],
    "overlap": [[1, 2, 3], [1, 2, 9], [1, 8, 9], [7, 8, 9]],
    "cosine": [[1.0, 0.0], [1.0, 0.1], [1.0, 1.0], [0.0, 1.0], [-1.0, 1.0], [-1.0, 0.0]],
    "neighbours": [[1, 2, 3], [1, 2, 9], [1, 8, 9], [7, 8, 9]],
    "text": ["a b c d", "a b c x", "a b y x", "a z y x", "w z y x"],
    "json": [
        {"decision": "yes", "a": 1, "b": 2},
        {"decision": "yes", "a": 1, "b": 3},
        {"decision": "yes", "a": 4, "b": 3},
        {"a": 1, "b": 2},
    ],
    "any json": [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 4, "b": 3}],
}


@pytest.mark.parametrize("name", ALL)
def test_the_more_an_answer_is_disturbed_the_further_it_is(name: str) -> None:
    distances = [between(name, WORSE[name][0], row) for row in WORSE[name]]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert len(set(distances)) == len(distances)
