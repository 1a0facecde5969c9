"""Datasets that research logged with a run, found again through a real MLflow server."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from interlock.adapters.datasets import read_logged_rows
from interlock.adapters.mlflow_datasets import MlflowDatasets
from interlock.errors import PolicyError, ServiceRefused, ServiceUnavailable
from interlock.plane.process import choose_port
from tests.contract.mlflow_rig import quiet_mlflow, running_mlflow

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]  # what MLflow thinks of its own arguments is not under test

FRAME = pd.DataFrame({"hour": [1.0, 2.0, 3.0], "late": [0.0, 1.0, 0.0]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as url, quiet_mlflow(url):
        yield url


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    FRAME.to_parquet(path)
    return path


def log_run(*datasets: tuple[object, str | None], model: str | None = None) -> str:
    """A run with these inputs, and a version of `model` that came from it; returns the run's id."""
    import mlflow

    with mlflow.start_run() as run:
        for dataset, context in datasets:
            mlflow.log_input(dataset, context=context)
    if model:
        client = mlflow.MlflowClient()
        if not client.search_registered_models(filter_string=f"name = '{model}'"):
            client.create_registered_model(model)
        client.create_model_version(model, f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    return str(run.info.run_id)


def dataset(source: object, name: str, frame: pd.DataFrame = FRAME) -> object:
    """Within an experiment MLflow keeps one dataset of one name and one digest, with the source that it was logged with first."""
    import mlflow.data

    return mlflow.data.from_pandas(frame, source=source, name=name)


def test_rows_are_found_by_run_and_name(server: str, file: Path) -> None:
    run_id = log_run((dataset(str(file), "flights"), "training"), (dataset(str(file.with_name("other.csv")), "other"), None))
    found = MlflowDatasets(server).find(f"runs:/{run_id}/flights")
    assert found.name == f"runs:/{run_id}/flights"
    pd.testing.assert_frame_equal(read_logged_rows(found.address, name=found.name).frame, FRAME)


@pytest.mark.parametrize(
    "source",
    ["s3://bucket/deep/rows.parquet", "https://example.org/rows.csv?version=3", "file:///data/rows.parquet"],
)
def test_every_kind_of_source_that_can_be_read_again_gives_its_address(server: str, source: str) -> None:
    import mlflow.data.http_dataset_source

    address = mlflow.data.http_dataset_source.HTTPDatasetSource(source) if source.startswith("https") else source
    run_id = log_run((dataset(address, "flights", FRAME.assign(hour=float(len(source)))), None))
    assert MlflowDatasets(server).find(f"runs:/{run_id}/flights").address == source


def test_a_dataset_logged_for_two_purposes_is_one(server: str, file: Path) -> None:
    one = dataset(str(file), "flights")
    run_id = log_run((one, "training"), (one, "evaluation"))
    assert MlflowDatasets(server).find(f"runs:/{run_id}/flights").address == str(file)


@pytest.mark.parametrize("context", ["training", "train"])
def test_training_rows_are_found_from_the_model_version(server: str, file: Path, context: str) -> None:
    log_run((dataset(str(file), "flights"), context), (dataset(str(file), "september"), "evaluation"), model=f"late-{context}")
    assert MlflowDatasets(server).find_training(f"late-{context}", "1").address == str(file)


def test_rows_that_were_logged_from_memory_are_refused(server: str) -> None:
    import mlflow.data

    run_id = log_run((mlflow.data.from_pandas(FRAME, name="from memory"), "training"))
    with pytest.raises(ServiceRefused, match="which is no file"):
        MlflowDatasets(server).find(f"runs:/{run_id}/from memory")


def test_what_is_not_there_exactly_once_is_refused_with_the_number(server: str, file: Path) -> None:
    other = FRAME.assign(hour=9.0)
    run_id = log_run((dataset(str(file), "flights"), "training"), (dataset(str(file), "flights", other), "training"), model="twice")
    log_run(model="never")
    datasets = MlflowDatasets(server)
    with pytest.raises(ServiceRefused, match="logged 0 inputs"):
        datasets.find(f"runs:/{run_id}/absent")
    with pytest.raises(ServiceRefused, match="logged 2 inputs"):
        datasets.find(f"runs:/{run_id}/flights")
    with pytest.raises(ServiceRefused, match="logged 2 inputs"):
        datasets.find_training("twice", "1")
    with pytest.raises(ServiceRefused, match="logged 0 inputs"):
        datasets.find_training("never", "1")


def test_what_mlflow_does_not_know_is_refused(server: str) -> None:
    datasets = MlflowDatasets(server)
    with pytest.raises(ServiceRefused, match="has no run"):
        datasets.find("runs:/0123456789abcdef0123456789abcdef/flights")
    with pytest.raises(ServiceRefused, match="has no absent/1"):
        datasets.find_training("absent", "1")
    for uri in ("runs:/", "runs:/abc", "runs://abc/flights", "runs:/../flights"):
        with pytest.raises(PolicyError):
            datasets.find(uri)


def test_an_mlflow_that_is_down_is_unavailable(server: str) -> None:
    del server  # its settings keep MLflow's client from trying for minutes
    datasets = MlflowDatasets(f"http://127.0.0.1:{choose_port(0, name='mlflow')}")
    with pytest.raises(ServiceUnavailable):
        datasets.find("runs:/0123456789abcdef0123456789abcdef/flights")
