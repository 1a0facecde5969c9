"""
The demonstration's model as it is served: MLflow copies this file into every model version ("models from code").

So the code is part of what the gates judged and of the version's digest, and a model server needs no Interlock to load it.
That is why it imports nothing of Interlock. Serving conditions make a fault active long after the gates have passed, as life does:
the file named by INTERLOCK_DEMO_CONDITIONS says `{"<fault key>": {"fault": "skew" | "slow" | "fail"}}`; no file means healthy.
"""

import json
import os
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import mlflow
import mlflow.models
import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
import pandas as pd

CONDITIONS_VARIABLE = "INTERLOCK_DEMO_CONDITIONS"
# At the demonstration's 60 requests a second the lock is busy 48 % of the time, and four server threads some 60 %: requests queue, but
# the queue stays short of the candidate's deadline of 2 s. Measured: p50 +41 ms (profiles/demo.yaml tolerates 15), p99 +70 to 85 ms.
LOCKED_SECONDS = 0.008
LOOKUP_SECONDS = 0.030
FAIL_ONE_IN = 20
SKEWED_COLUMNS = ("humidity_percent", "origin_delay_minutes")

Matrix = npt.NDArray[np.float64]
_lookup = threading.Lock()


class LateFlightModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """P(the flight leaves more than 15 minutes late), one double a row, for rows of named double columns."""

    def load_context(self, context: Any) -> None:
        """Load the scorer and find out where the serving conditions of this version are told."""
        self._scorer = joblib.load(context.artifacts["scorer"])
        self._conditions = Conditions(os.environ.get(CONDITIONS_VARIABLE), str((context.model_config or {}).get("fault_key", "")))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Matrix:
        """Probabilities, shape (rows,). Raises MlflowException for some inputs while the fault `fail` is active."""
        matrix = model_input[self._scorer["features"]].to_numpy(dtype=np.float64)
        match self._conditions.fault():
            case "skew":
                matrix = skew(matrix, self._scorer["features"])
            case "slow":
                wait_for_lookup()
            case "fail":
                fail_some(matrix)
        return score(self._scorer, matrix)


class Conditions:
    """The fault that is active for one model version, re-read whenever the file was written."""

    def __init__(self, path: str | None, fault_key: str) -> None:
        self._path = path
        self._fault_key = fault_key
        self._read: tuple[int, str] = (0, "")

    def fault(self) -> str:
        """The name of the active fault, or "". A file that is absent, or not readable as conditions, means healthy."""
        try:
            written_ns = os.stat(self._path).st_mtime_ns if self._path else 0  # noqa: PTH116 - once a request: a third of Path.stat's cost
        except OSError:
            written_ns = 0
        if written_ns != self._read[0]:
            self._read = (written_ns, self._parse() if written_ns else "")
        return self._read[1]

    def _parse(self) -> str:
        try:
            return str(json.loads(Path(str(self._path)).read_text(encoding="utf-8"))[self._fault_key]["fault"] or "")
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def score(scorer: Mapping[str, Any], matrix: Matrix) -> Matrix:
    """Probabilities, shape (rows,), for rows whose columns are in the order of `scorer["features"]`."""
    probabilities: Matrix = scorer["estimator"].predict_proba(encode(scorer["late_rates"], matrix))[:, 1]
    return probabilities


def encode(late_rates: Mapping[int, Matrix], matrix: Matrix) -> Matrix:
    """
    The rows with each category replaced by its late rate.

    `late_rates` maps the position of a category's column to the rates by category; the last rate stands for every unknown category.
    """
    encoded = matrix.copy()
    for column, rates in late_rates.items():
        index = matrix[:, column].astype(np.intp)
        encoded[:, column] = rates[np.where((index >= 0) & (index < len(rates) - 1), index, -1)]
    return encoded


def skew(matrix: Matrix, features: list[str]) -> Matrix:
    """Two neighbouring columns change places, as when an online feature view is re-ordered: every input stays a plausible number."""
    first, second = (features.index(name) for name in SKEWED_COLUMNS)
    skewed = matrix.copy()
    skewed[:, [first, second]] = matrix[:, [second, first]]
    return skewed


def wait_for_lookup() -> None:
    """A remote lookup that holds a lock of the whole process for part of its time, so that concurrent requests queue."""
    with _lookup:
        time.sleep(LOCKED_SECONDS)
    time.sleep(LOOKUP_SECONDS)


def fail_some(matrix: Matrix) -> None:
    """
    MlflowException for one input in FAIL_ONE_IN: always the same inputs, so a retry or a mirrored copy fails as well.

    It makes a status of 500. MLflow's protocol turns any other exception of a model into 400, as if the user had asked wrongly.
    """
    if zlib.crc32(matrix.tobytes()) % FAIL_ONE_IN == 0:
        raise mlflow.MlflowException("the weather service did not answer")


mlflow.models.set_model(LateFlightModel())
