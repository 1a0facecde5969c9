"""The demonstration's models against a real MLflow registry: versions count up, and what is loaded by name and version predicts alike."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

from interlock.demo import models
from interlock.demo.flights import FEATURES, LABEL, FlightsData
from interlock.errors import ServiceError


@pytest.fixture
def data(tmp_path: Path) -> FlightsData:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({name: rng.integers(0, 30, 4000).astype(float) for name in FEATURES})
    rows[LABEL] = (rows["origin_delay_minutes"] > 20).astype(int)
    return FlightsData(tmp_path, rows, rows, rows, rows, rows, rows[list(FEATURES)])


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("late", artifact_location=(tmp_path / "artifacts").as_uri())
    yield uri
    mlflow.set_tracking_uri(None)


def test_register_gives_the_next_version_and_names_what_went_wrong(data: FlightsData, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    trained = [models.train_candidate(data, fault_key=key, seed=seed) for seed, key in enumerate(("skewed", "slow"))]
    capfd.readouterr()
    assert [models.register(model, "late", tracking_uri=uri) for model in trained] == ["1", "2"]
    assert capfd.readouterr().out == ""
    loaded = mlflow.pyfunc.load_model("models:/late/2")
    assert loaded.model_config == {"fault_key": "slow"}
    np.testing.assert_array_equal(loaded.predict(data.live), trained[1].predict(data.live))
    with pytest.raises(ServiceError, match="slow"):
        models.register(trained[1], "no/such name:", tracking_uri=uri)
