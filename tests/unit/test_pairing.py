"""A release is refused at intake when its comparator cannot compare what the two signatures promise."""

import pytest
from pydantic import TypeAdapter

from interlock.control.pairing import RULES, check_pairing, pairing_values
from interlock.errors import ArtifactError
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput
from interlock.profile.output import AnyOutput, Output

INCUMBENT, CANDIDATE = ModelVersion("late", "1", "sha256:1"), ModelVersion("late", "2", "sha256:2")
SECTIONS: dict[str, str] = {
    "differs": '{"type": "label", "comparator": "differs"}',
    "cost_matrix": '{"type": "label", "comparator": "cost_matrix", "labels": ["a", "b"], "costs": [[0, 1], [1, 0]]}',
    "total_variation": '{"type": "probability", "comparator": "total_variation"}',
    "absolute": '{"type": "regression", "comparator": "absolute", "scale_units": 1.0}',
    "exceeds": '{"type": "regression", "comparator": "exceeds", "tolerance_units": 1.0, "scale_units": 1.0}',
    "rank_biased_overlap": '{"type": "ranking", "comparator": "rank_biased_overlap", "persistence": 0.9, "depth": 10}',
    "overlap": '{"type": "ranking", "comparator": "overlap", "depth": 10}',
    "cosine": '{"type": "embedding", "comparator": "cosine"}',
    "neighbours": '{"type": "embedding", "comparator": "neighbours"}',
    "token_f1": '{"type": "text", "comparator": "token_f1"}',
    "fields": '{"type": "json", "comparator": "fields", "required_fields": []}',
}


def one(kind: str, items: str = "", *shape: int, name: str = "") -> tuple[ModelOutput, ...]:
    return (ModelOutput(name, kind, items, shape),)


STRING, LONG, BOOLEAN, DOUBLE = one("string"), one("long"), one("boolean"), one("double")
TWO_DOUBLES = (ModelOutput("no", "double"), ModelOutput("yes", "double"))
RECORD = (ModelOutput("decision", "string"), ModelOutput("limit", "double"), ModelOutput("tags", "array", "string"))
STRINGS, DOUBLES = one("array", "string"), one("array", "double")
TEXTS, VECTORS, SCORES = one("tensor", "string", -1), one("tensor", "double", -1, 3), one("tensor", "double", -1)
TOP, OBJECT, ANY, TIME, CUBE = one("tensor", "long", -1, 10), one("object"), one("any"), one("datetime"), one("tensor", "double", -1, 3, 3)
EVERYTHING = {
    "a string": STRING,
    "a long": LONG,
    "a boolean": BOOLEAN,
    "a double": DOUBLE,
    "two doubles": TWO_DOUBLES,
    "a record": RECORD,
    "an array of strings": STRINGS,
    "an array of doubles": DOUBLES,
    "a tensor of texts": TEXTS,
    "a tensor of vectors": VECTORS,
    "a tensor of scores": SCORES,
    "a tensor of ids": TOP,
    "an object": OBJECT,
    "anything": ANY,
    "a time": TIME,
    "a tensor of matrices": CUBE,
    "nothing": (),
}
FITTING = {
    "differs": {"a string", "a long", "a boolean", "a tensor of texts", "a tensor of ids"},
    "cost_matrix": {"a string", "a long", "a boolean", "a tensor of texts"},
    "total_variation": {"a double", "two doubles", "an array of doubles", "a tensor of vectors", "a tensor of scores"},
    "absolute": {"a long", "a double", "two doubles", "a tensor of vectors", "a tensor of scores", "a tensor of ids"},
    "exceeds": {"a long", "a double", "two doubles", "a tensor of vectors", "a tensor of scores", "a tensor of ids"},
    "rank_biased_overlap": {"an array of strings", "a tensor of ids"},
    "overlap": {"an array of strings", "a tensor of ids"},
    "cosine": {"an array of doubles", "a tensor of vectors"},
    "neighbours": {"an array of strings", "a tensor of ids"},
    "token_f1": {"a string", "a tensor of texts"},
    "fields": {"a string", "a record", "a tensor of texts", "an object", "anything", "two doubles"},
}


def section(name: str) -> AnyOutput:
    output: AnyOutput = TypeAdapter(Output).validate_json(SECTIONS[name])
    return output


def refusal(name: str, candidate: tuple[ModelOutput, ...], incumbent: tuple[ModelOutput, ...]) -> str:
    with pytest.raises(ArtifactError) as caught:
        check_pairing(section(name), candidate=(CANDIDATE, candidate), incumbent=(INCUMBENT, incumbent))
    return str(caught.value)


def test_every_comparator_has_a_rule() -> None:
    assert set(RULES) == set(SECTIONS) == set(FITTING)


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.parametrize("name", SECTIONS)
def test_a_comparator_takes_the_outputs_it_can_compare_and_no_others(name: str, what: str) -> None:
    outputs = EVERYTHING[what]
    if what in FITTING[name]:
        check_pairing(section(name), candidate=(CANDIDATE, outputs), incumbent=(INCUMBENT, outputs))
    else:
        message = refusal(name, outputs, outputs)
        assert all(word in message for word in ("late/2", name, "infer_signature", "needs")), message


def test_the_incumbent_is_held_to_the_same() -> None:
    message = refusal("total_variation", DOUBLE, LONG)
    assert message.startswith("late/1 cannot be compared by total_variation (probability): its signature says that it answers long, needs")


def test_a_label_that_is_written_as_a_double_is_no_label() -> None:
    assert "answers score: double" in refusal("differs", one("double", name="score"), LONG)


@pytest.mark.parametrize("name", ["cosine", "total_variation", "absolute", "exceeds"])
def test_rows_of_two_lengths_cannot_be_compared(name: str) -> None:
    message = refusal(name, VECTORS, one("tensor", "double", -1, 4))
    assert all(words in message for words in ("late/2", "(-1, 3)", "late/1", "(-1, 4)", "3 and 4 numbers a row", name)), message
    assert ("neighbours" in message) is (name == "cosine")


@pytest.mark.parametrize(
    ("name", "candidate", "incumbent"),
    [
        pytest.param(
            "cosine", one("tensor", "double", -1, -1), VECTORS, id="a length that the signature leaves open is the gate's to find"
        ),
        pytest.param("cosine", DOUBLES, VECTORS, id="an array has no length in its signature"),
        pytest.param("total_variation", DOUBLE, SCORES, id="a column and a tensor of one number"),
        pytest.param("total_variation", TWO_DOUBLES, one("tensor", "double", -1, 2), id="two columns and a tensor of two"),
        pytest.param("overlap", TOP, one("tensor", "long", -1, 20), id="lists may have two lengths"),
    ],
)
def test_what_may_match_is_let_through(name: str, candidate: tuple[ModelOutput, ...], incumbent: tuple[ModelOutput, ...]) -> None:
    check_pairing(section(name), candidate=(CANDIDATE, candidate), incumbent=(INCUMBENT, incumbent))


def test_a_vector_of_one_number_has_no_direction() -> None:
    refusal("cosine", one("tensor", "double", -1, 1), one("tensor", "double", -1, 1))


def test_the_choice_is_written_out_with_its_parameters() -> None:
    found = pairing_values(section("exceeds"), candidate=VECTORS, incumbent=TWO_DOUBLES)
    assert found == {
        "output": {"type": "regression", "comparator": "exceeds", "tolerance_units": 1.0, "scale_units": 1.0},
        "candidate_outputs": ["tensor of double (-1, 3)"],
        "incumbent_outputs": ["no: double", "yes: double"],
    }
