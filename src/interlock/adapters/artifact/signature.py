"""A model version's signature and input example, held against each other by MLflow, which reads YAML and JSON for it and loads no model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from interlock.errors import ArtifactError
from interlock.model.artifact import SignatureReading
from interlock.model.redaction import one_line

FIT_REMEDY = "log both from the same rows"
# How JSON writes MLflow's plain types; the others are written as text.
_WRITTEN_AS: dict[str, set[type]] = {
    "integer": {int, float},  # a column with gaps is written as floats
    "long": {int, float},
    "float": {int, float},
    "double": {int, float},
    "boolean": {bool},
    "string": {str},
}


def read_signature(directory: Path) -> SignatureReading:
    """Counts of inputs, outputs and example rows; what is wrong is told as problems, none of it is raised."""
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow.models import Model

    input_count = output_count = row_count = 0
    try:
        with _translated("MLmodel cannot be read", "log the model again"):
            described = Model.load(str(directory / "MLmodel"))
            signature = described.signature
        if signature is None or not signature.inputs or not signature.outputs:
            raise ArtifactError("there is no signature with inputs and outputs: log the model with mlflow.models.infer_signature")
        input_count, output_count = len(signature.inputs), len(signature.outputs)
        with _translated("the input example cannot be read", "log the model again with it"):
            example = described.load_input_example(str(directory))
        if example is None:
            raise ArtifactError("there is no input example: log the model with input_example=")
        row_count = _row_count(example)
        _require_fit(example, signature.inputs)
        described.signature = None  # so that it is read as it was written: MLflow makes numbers of text where the signature wants them
        with _translated("the input example does not fit the signature", FIT_REMEDY):
            _require_types(described.load_input_example(str(directory)), signature.inputs)
    except ArtifactError as error:
        return SignatureReading(input_count, output_count, row_count, (str(error),))
    return SignatureReading(input_count, output_count, row_count)


def _require_fit(example: Any, inputs: Any) -> None:
    from mlflow.models.utils import _enforce_schema  # what MLflow's own server does to every request

    names = inputs.input_names() if inputs.has_input_names() else None
    columns = [str(name) for name in example.columns] if isinstance(example, pd.DataFrame) else []
    if names and (unknown := [name for name in columns if name not in names]):
        raise ArtifactError(f"the input example has columns that the signature does not know ({', '.join(unknown[:5])}): {FIT_REMEDY}")
    with _translated("the input example does not fit the signature", FIT_REMEDY):
        _enforce_schema(example, inputs)


def _require_types(written: Any, inputs: Any) -> None:
    if not isinstance(written, pd.DataFrame) or not inputs.has_input_names():
        return
    wanted = {spec.name: getattr(spec.type, "name", "") for spec in inputs}
    for name in written.columns:
        kinds = _WRITTEN_AS.get(wanted.get(str(name), ""))
        if kinds and (others := {type(value) for value in written[name].dropna().tolist()} - kinds):
            told = ", ".join(sorted(kind.__name__ for kind in others))
            raise ArtifactError(f"the input example has {told} in {name}, the signature wants {wanted[str(name)]}")


def _row_count(example: Any) -> int:
    """Rows of a frame, an array or a list; anything else is one row."""
    if shape := getattr(example, "shape", None):
        return int(shape[0])
    return len(example) if isinstance(example, list) else 1


@contextmanager
def _translated(what: str, remedy: str) -> Iterator[None]:
    """MLflow's parsers raise whatever they meet, and each means the same."""
    try:
        yield
    except Exception as error:
        raise ArtifactError(f"{what} ({type(error).__name__}: {one_line(error)}): {remedy}") from error
