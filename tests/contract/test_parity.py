"""The parity gate between the real model servers and the same version in this process."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interlock.adapters.clock import SystemClock
from interlock.adapters.pyfunc_models import LoadedModel, load_model
from interlock.adapters.scoring_client import ScoringClient
from interlock.control.gates.parity import Server, judge_parity
from interlock.control.gates.stage import encode_rows
from interlock.model.verdict import Outcome, Verdict
from interlock.profile.gates import Parity
from interlock.serving.commands import ServerKind
from tests.contract.model_server_rig import RunningServer, running

pytestmark = pytest.mark.timeout(240)

POLICY = Parity(row_count=60, batch_row_count=12, max_difference=1e-9)
ROWS = pd.DataFrame({"x": np.random.default_rng(3).random(300), "y": range(300)})
HONEST = ("number", "float32", "whole", "label", "flag", "array", "frame", "series", "columns", "holes")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import mlflow
    from mlflow.types import ColSpec, Schema

    directory = tmp_path_factory.mktemp("artifact") / "parity"
    inputs = Schema([ColSpec("double", "x"), ColSpec("long", "y"), ColSpec("string", "kind")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            directory,
            python_model=str(Path(__file__).with_name("parity_model.py")),
            signature=mlflow.models.ModelSignature(inputs=inputs, outputs=Schema([ColSpec("double")])),
            input_example=ROWS.head(1).assign(kind="number"),
            pip_requirements=["mlflow"],
        )
    return directory


@pytest.fixture(scope="module", params=["interlock", "mlflow"])
def server(request: pytest.FixtureRequest, artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    kind: ServerKind = request.param
    with running(kind, artifact, scratch=tmp_path_factory.mktemp("logs")) as started:
        started.wait_ready()
        yield started


@pytest.fixture(scope="module")
def offline(artifact: Path) -> LoadedModel:
    return load_model(artifact)


def judge(server: RunningServer, offline: LoadedModel, rows: pd.DataFrame) -> Verdict:
    with ScoringClient(server.port, timeout_seconds=10.0) as client:
        asked = Server(client.ask, encode_rows, lambda: None, SystemClock())
        return judge_parity(POLICY, rows, seed=11, candidate=offline, server=asked)


@pytest.mark.parametrize("kind", HONEST)
def test_an_honest_model_answers_alike_whatever_it_answers_with(server: RunningServer, offline: LoadedModel, kind: str) -> None:
    verdict = judge(server, offline, ROWS.assign(kind=kind))
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert {m.name: m.value for m in verdict.measurements}["largest_difference"] == 0.0


@pytest.mark.parametrize("kind", ["batch mean", "running", "counter"])
def test_a_model_that_looks_beyond_its_row_is_found(server: RunningServer, offline: LoadedModel, kind: str) -> None:
    verdict = judge(server, offline, ROWS.assign(kind=kind))
    assert verdict.outcome is Outcome.FAIL, verdict.reason
    assert "is the first that differs: offline" in verdict.reason


def test_a_server_that_is_asked_with_other_numbers_is_found(server: RunningServer, offline: LoadedModel) -> None:
    """Skew: what reaches the served model is in another unit."""
    rows = ROWS.assign(kind="number")
    with ScoringClient(server.port, timeout_seconds=10.0) as client:
        skewed = Server(client.ask, lambda frame: encode_rows(frame.assign(x=frame["x"] * 1.8)), lambda: None, SystemClock())
        verdict = judge_parity(POLICY, rows, seed=11, candidate=offline, server=skewed)
    assert verdict.outcome is Outcome.FAIL
    assert {m.name: m.value for m in verdict.measurements}["rows_that_differ_alone"] == 60.0
