"""A release is refused at intake when its comparator cannot compare what the two signatures promise."""

import pytest
from pydantic import TypeAdapter

from interlock.control.pairing import RULES, Outputs, PairedOutputs, check_pairing, pairing_values
from interlock.control.session import open_session
from interlock.errors import ArtifactError, PolicyError, ServiceRefused
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput
from interlock.profile.output import AnyOutput, Output
from tests.worlds import World, read_test_profile

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
    "cost_matrix": {"a string", "a tensor of texts"},
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
    output: AnyOutput = TypeAdapter(Output).validate_json(SECTIONS.get(name, name))
    return output


def pair(name: str, candidate: Outputs, incumbent: Outputs) -> PairedOutputs:
    return check_pairing(section(name), candidate=(CANDIDATE, candidate), incumbent=(INCUMBENT, incumbent))


def refusal(name: str, candidate: tuple[ModelOutput, ...], incumbent: tuple[ModelOutput, ...]) -> str:
    with pytest.raises(ArtifactError) as caught:
        pair(name, candidate, incumbent)
    return str(caught.value)


def test_every_comparator_has_a_rule() -> None:
    assert set(RULES) == set(SECTIONS) == set(FITTING)


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.parametrize("name", SECTIONS)
def test_a_comparator_takes_the_outputs_it_can_compare_and_no_others(name: str, what: str) -> None:
    outputs = EVERYTHING[what]
    good = EVERYTHING[min(FITTING[name])]
    if what in FITTING[name]:
        pair(name, outputs, outputs)
    else:
        message = refusal(name, outputs, good)
        assert all(word in message for word in ("late/2", name, "infer_signature", "needs")), message


@pytest.mark.parametrize("candidate", [DOUBLE, LONG], ids=["a good candidate", "a candidate as bad"])
def test_an_incumbent_that_does_not_fit_is_no_fault_of_the_candidate(candidate: Outputs) -> None:
    with pytest.raises(PolicyError) as caught:
        pair("total_variation", candidate, LONG)
    message = str(caught.value)
    assert message.startswith(
        "the incumbent late/1 cannot be compared by total_variation (probability): its signature says that it answers"
    )
    assert "adopt a version with such a signature" in message


def test_an_incumbent_without_a_readable_signature_is_no_fault_of_the_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    outputs = world.files.read_outputs

    def read(version: ModelVersion) -> Outputs:
        if version.version == "1":
            raise ArtifactError("late/1 has no signature")
        return outputs(version)

    monkeypatch.setattr(world.files, "read_outputs", read)
    with pytest.raises(ServiceRefused, match=r"the incumbent cannot be compared with: late/1 has no signature"):
        open_session(world.services(), read_test_profile(), model_name="late", version="2")
    assert world.traffic.token == 0


NAMED = one("double", name="score")


@pytest.mark.parametrize(
    ("name", "candidate", "incumbent", "why"),
    [
        pytest.param("differs", LONG, STRING, "number and text", id="numbers beside text"),
        pytest.param("differs", BOOLEAN, LONG, "truth and number", id="truth beside numbers"),
        pytest.param("differs", TOP, LONG, "a list and a single value", id="ten labels beside one"),
        pytest.param("differs", (*one("long", name="a"), *one("long", name="b")), one("long", name="a"), "other names", id="two columns"),
        pytest.param("differs", one("long", name="a"), one("long", name="b"), "other names", id="another name"),
        pytest.param("differs", one("long", name="a"), LONG, "other names", id="a name where there was none"),
        pytest.param("overlap", one("array", "long"), STRINGS, "number and text", id="ids of two kinds"),
        pytest.param("neighbours", TOP, STRINGS, "number and text", id="neighbours of two kinds"),
        pytest.param("overlap", one("array", "string", name="ids"), STRINGS, "other names", id="ids with another name"),
        pytest.param("total_variation", DOUBLES, DOUBLE, "a list and a single value", id="an array beside a number"),
        pytest.param("total_variation", one("tensor", "double", -1, 1), DOUBLE, "a list and a single value", id="a list of one"),
        pytest.param("total_variation", TWO_DOUBLES, one("tensor", "double", -1, 2), "other names", id="two columns and a tensor of two"),
        pytest.param("absolute", one("tensor", "double", -1, 10), LONG, "a list and a single value", id="ten numbers beside one"),
        pytest.param("absolute", NAMED, DOUBLE, "other names", id="a number with a name"),
        pytest.param("exceeds", TWO_DOUBLES, NAMED, "other names", id="two numbers beside one"),
        pytest.param("cosine", one("array", "double", name="v"), DOUBLES, "other names", id="a vector with a name"),
        pytest.param("token_f1", one("string", name="answer"), STRING, "other names", id="text with a name"),
    ],
)
def test_two_versions_whose_rows_are_not_alike_cannot_be_compared(name: str, candidate: Outputs, incumbent: Outputs, why: str) -> None:
    pair(name, candidate, candidate)
    pair(name, incumbent, incumbent)
    message = refusal(name, candidate, incumbent)
    assert all(words in message for words in ("late/2 answers", "late/1 answers", why, f"cannot be compared by {name}")), message


COSTS = '{{"type": "label", "comparator": "cost_matrix", "labels": {}, "costs": [[0, 1], [1, 0]]}}'


@pytest.mark.parametrize(
    ("labels", "fitting"),
    [('["a", "b"]', STRING), ("[0, 1]", LONG), ("[false, true]", BOOLEAN), ('["a", 1]', ())],
    ids=["text", "numbers", "truth", "labels of two kinds fit nothing"],
)
def test_the_labels_of_a_cost_matrix_are_what_the_signature_answers(labels: str, fitting: Outputs) -> None:
    for outputs in (STRING, LONG, BOOLEAN):
        if outputs == fitting:
            pair(COSTS.format(labels), outputs, outputs)
        else:
            with pytest.raises(PolicyError, match="as the labels of the profile"):
                pair(COSTS.format(labels), outputs, outputs)


def test_documents_may_change_their_fields_but_columns_must_hold_those_that_are_required() -> None:
    pair("fields", RECORD, TWO_DOUBLES)
    pair("fields", OBJECT, RECORD)
    required = '{"type": "json", "comparator": "fields", "required_fields": [{"name": "decision", "holds": "string"}]}'
    pair(required, RECORD, STRING)
    assert "with decision" in refusal(required, TWO_DOUBLES, RECORD)


@pytest.mark.parametrize("name", ["token_f1", "fields"])
def test_lists_of_text_are_no_text(name: str) -> None:
    """Nothing would ever be readable, and every release held."""
    for width in (1, -1, 3):
        refusal(name, one("tensor", "string", -1, width), STRING)


@pytest.mark.parametrize(
    ("outputs", "is_list"),
    [(DOUBLE, False), (TWO_DOUBLES, False), (SCORES, False), (one("tensor", "double", -1, 1), False), (DOUBLES, True), (VECTORS, True)],
)
def test_the_signature_says_what_a_row_is(outputs: Outputs, is_list: bool) -> None:
    found = pair("total_variation", outputs, outputs)
    assert found.layout() == (is_list, None)
    assert found.layout(row_count=1) == (is_list, 1)


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
        pytest.param("total_variation", TWO_DOUBLES, TWO_DOUBLES[::-1], id="columns in another order"),
        pytest.param("absolute", LONG, DOUBLE, id="whole numbers and others"),
        pytest.param("overlap", TOP, one("tensor", "long", -1, 20), id="lists may have two lengths"),
    ],
)
def test_what_may_match_is_let_through(name: str, candidate: tuple[ModelOutput, ...], incumbent: tuple[ModelOutput, ...]) -> None:
    pair(name, candidate, incumbent)


def test_a_vector_of_one_number_has_no_direction() -> None:
    refusal("cosine", one("tensor", "double", -1, 1), VECTORS)


def test_the_choice_is_written_out_with_its_parameters() -> None:
    found = pairing_values(section("exceeds"), PairedOutputs(VECTORS, TWO_DOUBLES))
    assert found == {
        "output": {"type": "regression", "comparator": "exceeds", "tolerance_units": 1.0, "scale_units": 1.0},
        "candidate_outputs": ["tensor of double (-1, 3)"],
        "incumbent_outputs": ["no: double", "yes: double"],
    }
