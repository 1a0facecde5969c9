"""What holds for every test: MLflow keeps its addresses in the process and its environment, and no test may find another one's."""

import os
import sys
from collections.abc import Iterator

import pytest

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(autouse=True, scope="module")
def forgetful_mlflow() -> Iterator[None]:
    """Each module of tests begins with an MLflow that knows no server."""
    yield
    for name in _VARIABLES:
        os.environ.pop(name, None)
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        sys.modules["mlflow.tracking.fluent"]._active_experiment_id = None  # type: ignore[attr-defined]
