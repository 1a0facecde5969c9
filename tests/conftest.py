"""What holds for every test: MLflow keeps its addresses in the process and its environment, and no test may find another one's."""

import os
import sys
from collections.abc import Iterator

import pytest

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
_REMEMBERED = (
    ("mlflow.tracking._tracking_service.utils", "_tracking_uri"),
    ("mlflow.tracking._model_registry.utils", "_registry_uri"),
    ("mlflow.tracking.fluent", "_active_experiment_id"),
)


@pytest.fixture(autouse=True, scope="module")
def forgetful_mlflow() -> Iterator[None]:
    """Each module of tests begins with an MLflow that knows no server."""
    yield
    for name in _VARIABLES:
        os.environ.pop(name, None)
    for module, name in _REMEMBERED:
        if module in sys.modules:
            setattr(sys.modules[module], name, None)
