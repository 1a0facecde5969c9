"""Whether the profile's comparator can compare what the two versions answer, by their signatures, before anything is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from interlock.errors import ArtifactError, PolicyError
from interlock.judge.comparators import Layout
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput, described
from interlock.profile.output import AnyOutput, CostMatrix, Fields

Outputs = tuple[ModelOutput, ...]

WHOLE = frozenset({"integer", "long"})
REAL = frozenset({"float", "double"})
CLASSES = WHOLE | {"string", "boolean"}
NUMBERS = WHOLE | REAL
IDS = WHOLE | {"string"}


@dataclass(frozen=True, slots=True)
class PairedOutputs:
    """What the signatures of both versions of one release say. They were checked: rows look alike in both."""

    candidate: Outputs
    incumbent: Outputs

    def layout(self, *, row_count: int | None = None) -> Layout:
        """How to find the rows of an answer. row_count: of the input; None where inputs may be batches."""
        one = self.incumbent[0]
        return Layout(len(self.incumbent) == 1 and _is_list(one) and _width(one) != 1, row_count)


def check_pairing(output: AnyOutput, *, candidate: tuple[ModelVersion, Outputs], incumbent: tuple[ModelVersion, Outputs]) -> PairedOutputs:
    """
    Both versions' outputs, unless the evidence could only be nonsense: labels compared as vectors, numbers with text.

    Raises:
        PolicyError: the comparator does not fit the incumbent's signature. The candidate is not to blame.
        ArtifactError: it does not fit the candidate's, or what the candidate answers does not match what the incumbent answers.
    """
    if missing := _unfit(output, *incumbent):
        raise PolicyError(
            f"the incumbent {missing}; release under a profile whose comparator fits what serves today, "
            f"or adopt a version with such a signature (mlflow.models.infer_signature)"
        )
    if missing := _unfit(output, *candidate):
        raise ArtifactError(
            f"{missing}; log the model with a signature (mlflow.models.infer_signature), "
            f"or release it under a profile whose comparator fits"
        )
    if unlike := _unlike(output, candidate[1], incumbent[1]):
        raise ArtifactError(
            f"{candidate[0].label} answers {described(candidate[1])} and {incumbent[0].label} answers {described(incumbent[1])}: "
            f"{unlike} cannot be compared by {output.comparator}; {_remedy(output)}"
        )
    return PairedOutputs(candidate[1], incumbent[1])


def pairing_values(output: AnyOutput, outputs: PairedOutputs) -> dict[str, Any]:
    """The choice for the evidence: comparator with its parameters, and what both signatures say."""
    return {
        "output": output.model_dump(mode="json"),
        "candidate_outputs": [one.described for one in outputs.candidate],
        "incumbent_outputs": [one.described for one in outputs.incumbent],
    }


def _unfit(output: AnyOutput, version: ModelVersion, outputs: Outputs) -> str | None:
    """Why the comparator cannot be used on what a version answers; None when it can."""
    fits, wanted = RULES[output.comparator]
    if isinstance(output, CostMatrix):
        kinds = {_LABEL_KINDS[type(label)] for label in output.labels}
        wanted += f", as the labels of the profile, which are {' and '.join(sorted(kinds))}"
        fitting = fits(outputs) and {_kind(one) for one in outputs} == kinds
    elif isinstance(output, Fields):
        names = {one.name for one in outputs}
        lacking = [] if _is_document(outputs) else [field.name for field in output.required_fields if field.name not in names]
        wanted += f" with {', '.join(lacking)}" if lacking else ""
        fitting = fits(outputs) and not lacking
    else:
        fitting = fits(outputs)
    if outputs and fitting:
        return None
    return (
        f"{version.label} cannot be compared by {output.comparator} ({output.type}): its signature says that it answers "
        f"{described(outputs)}, needs {wanted}"
    )


class _Form(NamedTuple):
    """What a column holds in each row."""

    name: str
    kind: str
    is_list: bool


def _unlike(output: AnyOutput, candidate: Outputs, incumbent: Outputs) -> str | None:
    """What is not alike in the rows of both versions; None when nothing is. Documents may differ: their fields are what is compared."""
    if output.comparator == "fields":
        return None
    ours, theirs = (sorted(_Form(one.name, _kind(one), _is_list(one)) for one in outputs) for outputs in (candidate, incumbent))
    if [form.name for form in ours] != [form.name for form in theirs]:
        return "columns of other names"
    if [form.kind for form in ours] != [form.kind for form in theirs]:
        return f"{', '.join(form.kind for form in ours)} and {', '.join(form.kind for form in theirs)}"
    if [form.is_list for form in ours] != [form.is_list for form in theirs]:
        return "a list and a single value in each row"
    widths = {_width(one) for outputs in (candidate, incumbent) for one in outputs if one.kind == "tensor"} - {None}
    if output.comparator not in ANY_LENGTH and len(candidate) == 1 and len(widths) > 1:
        return f"{_width(candidate[0])} and {_width(incumbent[0])} numbers a row"
    return None


def _remedy(output: AnyOutput) -> str:
    if output.type == "embedding":
        return "where the spaces differ, answer the neighbours' ids and use the comparator neighbours"
    return "log the model with the signature of what it answers (mlflow.models.infer_signature)"


def _kind(one: ModelOutput) -> str:
    """Of the value, or of the items: number, text, truth; anything else in its own word."""
    word = one.items or one.kind
    return "number" if word in NUMBERS else {"string": "text", "boolean": "truth"}.get(word, word)


def _is_list(one: ModelOutput) -> bool:
    """Whether a row holds a list of values."""
    return one.kind == "array" or len(one.shape) > 1


def _width(one: ModelOutput) -> int | None:
    """How many values a row of this column holds; None when the signature does not say."""
    if not _is_list(one):
        return 1
    return one.shape[1] if len(one.shape) == 2 and one.shape[1] >= 0 else None


def _flat(kinds: frozenset[str]) -> Callable[[Outputs], bool]:
    """One value of such a kind in each column; or a tensor of them, of one value or several in each row."""
    return lambda outputs: all(_is_flat(one, kinds) for one in outputs) and (len(outputs) == 1 or not any(map(_is_list, outputs)))


def _single(kinds: frozenset[str], *, may_be_list: bool = False) -> Callable[[Outputs], bool]:
    """One column with one value; where a list of one will do, also a tensor whose rows may be such lists."""

    def fits(outputs: Outputs) -> bool:
        if len(outputs) != 1 or not _is_flat(outputs[0], kinds):
            return False
        return not _is_list(outputs[0]) or (may_be_list and _width(outputs[0]) in (None, 1))

    return fits


def _is_flat(one: ModelOutput, kinds: frozenset[str]) -> bool:
    return one.items in kinds and len(one.shape) in (1, 2) if one.kind == "tensor" else one.kind in kinds


def _list_of(kinds: frozenset[str], *, min_count: int = 1) -> Callable[[Outputs], bool]:
    """One column of arrays; or a matrix whose rows hold at least so many."""

    def fits(outputs: Outputs) -> bool:
        if len(outputs) != 1 or outputs[0].items not in kinds:
            return False
        shape = outputs[0].shape
        return outputs[0].kind == "array" or (len(shape) == 2 and (shape[1] == -1 or shape[1] >= min_count))

    return fits


def _probabilities(outputs: Outputs) -> bool:
    """One number in each column, a tensor of them, or one array of them."""
    return _flat(REAL)(outputs) or (_list_of(REAL)(outputs) and outputs[0].kind == "array")


def _documents(outputs: Outputs) -> bool:
    """One text or object; or named columns, which are the fields of a record."""
    return _is_document(outputs) or all(output.name for output in outputs)


def _is_document(outputs: Outputs) -> bool:
    """Whether a row is one text or object. A tensor with a name is none: its answer is a record with a list."""
    one = outputs[0] if len(outputs) == 1 else None
    return one is not None and (one.kind in {"string", "object", "any"} or (not one.name and _single(TEXT)(outputs)))


TEXT = frozenset({"string"})
_LABEL_KINDS = {bool: "truth", int: "number", str: "text"}
IDS_WANTED = "one array of ids (string, integer or long), or a tensor of them of shape (-1, k)"
RULES: Mapping[str, tuple[Callable[[Outputs], bool], str]] = {
    "differs": (_flat(CLASSES), "labels: string, integer, long or boolean"),
    "cost_matrix": (_single(CLASSES, may_be_list=True), "one label: string, integer, long or boolean"),
    "total_variation": (_probabilities, "probabilities: float or double, one column or tensor of them"),
    "absolute": (_flat(NUMBERS), "numbers: integer, long, float or double"),
    "exceeds": (_flat(NUMBERS), "numbers: integer, long, float or double"),
    "rank_biased_overlap": (_list_of(IDS), IDS_WANTED),
    "overlap": (_list_of(IDS), IDS_WANTED),
    "cosine": (_list_of(REAL, min_count=2), "one array of floats or doubles, or a tensor of them of shape (-1, d) with d of 2 or more"),
    "neighbours": (_list_of(IDS), IDS_WANTED),
    "token_f1": (_single(TEXT), "one string a row"),
    "fields": (_documents, "one string or object, or named columns"),
}
ANY_LENGTH = frozenset({"rank_biased_overlap", "overlap", "neighbours"})
