"""Whether the profile's comparator can compare what the two versions answer, by their signatures, before anything is loaded."""

from collections.abc import Callable, Mapping
from typing import Any

from interlock.errors import ArtifactError
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput, described
from interlock.profile.output import AnyOutput

Outputs = tuple[ModelOutput, ...]

WHOLE = frozenset({"integer", "long"})
REAL = frozenset({"float", "double"})
CLASSES = WHOLE | {"string", "boolean"}
NUMBERS = WHOLE | REAL
IDS = WHOLE | {"string"}


def check_pairing(output: AnyOutput, *, candidate: tuple[ModelVersion, Outputs], incumbent: tuple[ModelVersion, Outputs]) -> None:
    """
    Refuse a release whose evidence could only be nonsense: labels compared as vectors, vectors of two lengths.

    Raises:
        ArtifactError: a version's signature has no outputs, or not those that the comparator compares; or the two do not match.
    """
    fits, wanted = RULES[output.comparator]
    for version, outputs in (candidate, incumbent):
        if not outputs or not fits(outputs):
            raise ArtifactError(
                f"{version.label} cannot be compared by {output.comparator} ({output.type}): its signature says that it answers "
                f"{described(outputs)}, needs {wanted}; log the model with a signature (mlflow.models.infer_signature), "
                f"or release it under a profile whose comparator fits"
            )
    ours, theirs = _width(candidate[1]), _width(incumbent[1])
    if output.comparator in SAME_WIDTH and None not in (ours, theirs) and ours != theirs:
        raise ArtifactError(
            f"{candidate[0].label} answers {described(candidate[1])} and {incumbent[0].label} answers {described(incumbent[1])}: "
            f"{ours} and {theirs} numbers a row cannot be compared by {output.comparator}; {_remedy(output)}"
        )


def pairing_values(output: AnyOutput, *, candidate: Outputs, incumbent: Outputs) -> dict[str, Any]:
    """The choice for the evidence: comparator with its parameters, and what both signatures say."""
    return {
        "output": output.model_dump(mode="json"),
        "candidate_outputs": [one.described for one in candidate],
        "incumbent_outputs": [one.described for one in incumbent],
    }


def _remedy(output: AnyOutput) -> str:
    if output.type == "embedding":
        return "where the spaces differ, answer the neighbours' ids and use the comparator neighbours"
    return "log the model with the signature of what it answers (mlflow.models.infer_signature)"


def _flat(kinds: frozenset[str], *, only_one: bool = False) -> Callable[[Outputs], bool]:
    """One value of such a kind in each column; or a tensor of them, of one value or several in each row."""

    def fits(outputs: Outputs) -> bool:
        if only_one and len(outputs) != 1:
            return False
        return all(_is_flat(one, kinds) and not (only_one and _width(outputs) not in (None, 1)) for one in outputs)

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
    one = len(outputs) == 1 and (outputs[0].kind in {"string", "object", "any"} or _is_flat(outputs[0], frozenset({"string"})))
    return one or all(output.name for output in outputs)


def _width(outputs: Outputs) -> int | None:
    """How many numbers a row holds; None when the signature does not say."""
    if any(output.kind not in NUMBERS | {"tensor"} for output in outputs):
        return None
    if len(outputs) == 1 and outputs[0].kind == "tensor":
        shape = outputs[0].shape
        return 1 if len(shape) == 1 else None if len(shape) != 2 or shape[1] < 0 else shape[1]
    return len(outputs)


IDS_WANTED = "one array of ids (string, integer or long), or a tensor of them of shape (-1, k)"
RULES: Mapping[str, tuple[Callable[[Outputs], bool], str]] = {
    "differs": (_flat(CLASSES), "labels: string, integer, long or boolean"),
    "cost_matrix": (_flat(CLASSES, only_one=True), "one label: string, integer, long or boolean"),
    "total_variation": (_probabilities, "probabilities: float or double, one column or tensor of them"),
    "absolute": (_flat(NUMBERS), "numbers: integer, long, float or double"),
    "exceeds": (_flat(NUMBERS), "numbers: integer, long, float or double"),
    "rank_biased_overlap": (_list_of(IDS), IDS_WANTED),
    "overlap": (_list_of(IDS), IDS_WANTED),
    "cosine": (_list_of(REAL, min_count=2), "one array of floats or doubles, or a tensor of them of shape (-1, d) with d of 2 or more"),
    "neighbours": (_list_of(IDS), IDS_WANTED),
    "token_f1": (_flat(frozenset({"string"}), only_one=True), "one string"),
    "fields": (_documents, "one string or object, or named columns"),
}
SAME_WIDTH = frozenset({"total_variation", "absolute", "exceeds", "cosine"})
