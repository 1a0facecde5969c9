"""A model version loaded into this process through MLflow's pyfunc, for the offline gates."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.adapters.version_code import VersionCode
from interlock.errors import ArtifactError, EvidenceError
from interlock.model.redaction import one_line

logger = logging.getLogger(__name__)


class LoadedModel:
    """A model version that answers rows. `input_columns` are the signature's, in its order."""

    def __init__(self, model: Any, input_columns: tuple[str, ...], directory: Path, code: VersionCode) -> None:
        self._model = model
        self._directory = directory
        self._code = code
        self.input_columns = input_columns

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        """
        One answer a row, shape (n,): numbers as floats, anything else as labels (objects). The model sees the signature's columns only.

        Probabilities of two classes, shape (n, 2), become those of the second class.

        Raises:
            EvidenceError: the rows lack a column of the signature.
            ArtifactError: the model refused the rows, raised, or did not give one answer for each row.
        """
        return self._one_for_each(_plain(self._ask(frame)), len(frame))

    def answers(self, frame: pd.DataFrame) -> list[Any]:
        """
        One JSON value a row: exactly what the model server puts into `predictions` for these rows. Columns of lists become records.

        Raises:
            EvidenceError: the rows lack a column of the signature.
            ArtifactError: the model refused the rows, raised, or gave what is no JSON or not one value for each row.
        """
        from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

        answers = self._ask(frame)
        try:
            predictions = json.loads(json.dumps(_get_jsonable_obj(answers, pandas_orient="records"), cls=NumpyEncoder))
        except (TypeError, ValueError, RecursionError) as error:
            raise ArtifactError(f"what the model version in {self._directory} answers is no JSON, {_told(error)}") from error
        rows = _records(predictions)
        if not isinstance(rows, list) or len(rows) != len(frame):
            found = f"{len(rows)} values" if isinstance(rows, list) else f"one {type(rows).__name__}"
            raise ArtifactError(f"the model version in {self._directory} gave {found} for {len(frame)} rows: it must give one for each")
        return rows

    def _ask(self, frame: pd.DataFrame) -> Any:
        if absent := [name for name in self.input_columns if name not in frame.columns]:
            raise EvidenceError(
                f"the rows have no column {', '.join(absent)}, which the model version's signature wants: add it to the data"
            )
        try:
            with self._code.in_place(), _quiet():
                return self._model.predict(frame[list(self.input_columns)])
        except Exception as error:
            raise ArtifactError(f"the model version in {self._directory} failed on {len(frame)} rows, {_told(error)}") from error

    def _one_for_each(self, answers: NDArray[Any], row_count: int) -> NDArray[Any]:
        if answers.shape == (row_count, 2) and _are_distributions(answers):
            answers = answers[:, 1]
        elif answers.shape == (row_count, 1):
            answers = answers[:, 0]
        if answers.shape != (row_count,):
            raise ArtifactError(
                f"the model version in {self._directory} gave answers of shape {answers.shape} for {row_count} rows: it must give one each"
            )
        return answers.astype(np.float64) if answers.dtype.kind in "biuf" else answers.astype(object)


def load_model(directory: Path) -> LoadedModel:
    """
    Load the model version whose files lie in `directory`. It runs the research's code in this process.

    Modules that came with it are its own: another version's of the same name are neither used nor replaced, here and at every answer.

    Raises:
        ArtifactError: there is no MLmodel, no signature with named input columns, or loading failed.
    """
    if not (directory / "MLmodel").is_file():
        raise ArtifactError(f"{directory} has no MLmodel file: log the model again with MLflow")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    sys.dont_write_bytecode = True  # code that came with the artifact is imported from it, and the digest is over every file there
    code = VersionCode(directory)
    try:
        import mlflow.pyfunc

        with code.in_place(), _quiet():
            model = mlflow.pyfunc.load_model(str(directory.resolve()))
            inputs = model.metadata.get_input_schema()
    except Exception as error:
        raise ArtifactError(f"the model version in {directory} cannot be loaded, {_told(error)}: log the model again") from error
    if inputs is None or not inputs.has_input_names() or not inputs.input_names():
        raise ArtifactError(f"{directory} has no signature with named columns: log the model with mlflow.models.infer_signature")
    return LoadedModel(model, tuple(inputs.input_names()), directory, code)


def _plain(answers: Any) -> NDArray[Any]:
    if isinstance(answers, pd.DataFrame | pd.Series):
        return answers.to_numpy()
    return np.asarray(answers)


def _records(predictions: Any) -> Any:
    """Columns of lists of one length as one record a row, as the comparators read them; anything else as it is."""
    columns = list(predictions.values()) if isinstance(predictions, dict) else []
    if not columns or any(not isinstance(column, list) or len(column) != len(columns[0]) for column in columns):
        return predictions
    return [dict(zip(predictions, row, strict=True)) for row in zip(*columns, strict=True)]


def _are_distributions(answers: NDArray[Any]) -> bool:
    return answers.dtype.kind == "f" and bool((answers >= -1e-6).all() and np.allclose(answers.sum(axis=1), 1.0, atol=1e-6))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's and the model's warnings go to the log, not to the terminal of whoever runs a release."""
    mlflow_logger = logging.getLogger("mlflow")
    mlflow_logger.handlers[:] = [logging.NullHandler()]
    mlflow_logger.propagate = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for warning in caught:
        logger.info("%s: %s", warning.category.__name__, one_line(ValueError(str(warning.message))))
