"""
Where the rows of a dataset lie that MLflow logged as input of a run: its source, resolved by MLflow's own classes.

Within one experiment MLflow keeps one dataset of one name and digest, with the source it was logged with first, and its digest is taken of
10,000 rows at most. It names rows and does not prove them: a profile pins the SHA-256 of the bytes.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from interlock.errors import PolicyError, ServiceRefused, ServiceUnavailable
from interlock.model.redaction import one_line

ADDRESS = re.compile(r"runs:/(?P<run_id>[0-9a-zA-Z_-]+)/(?P<name>.+)")
TRAINING_CONTEXTS = frozenset({"training", "train"})  # `mlflow.log_input(..., context="training")` as documented; autologging writes train


@dataclass(frozen=True, slots=True)
class LoggedDataset:
    """A dataset of a run. `address` is the file, S3 or web address of its source; `name` is runs:/RUN_ID/NAME."""

    name: str
    address: str


class MlflowDatasets:
    """Datasets of runs on one tracking server."""

    def __init__(self, tracking_url: str) -> None:
        self._tracking_url = tracking_url

    def find(self, uri: str) -> LoggedDataset:
        """
        The dataset NAME of runs:/RUN_ID/NAME.

        Raises:
            PolicyError: the address has another form.
            ServiceRefused: there is no such run, not exactly one such dataset, or its source is no file that can be read again.
            ServiceUnavailable: MLflow does not answer now.
        """
        address = ADDRESS.fullmatch(uri)
        if address is None:
            raise PolicyError(f"data {one_line(ValueError(uri))} has not the form runs:/RUN_ID/NAME")
        run_id, name = address["run_id"], address["name"]
        found = {_key(one): one for one in self._inputs(run_id) if one.dataset.name == name}
        return self._only(list(found.values()), run_id, f"dataset {name!r}")

    def find_training(self, model_name: str, version: str) -> LoggedDataset:
        """
        The dataset that the run of this model version logged with context "training". Raises as `find` does, PolicyError apart.
        """
        with self._asking(f"{model_name}/{version}"):
            run_id = self._client().get_model_version(model_name, version).run_id
        if not run_id:
            raise ServiceRefused(f"{model_name}/{version} does not say which run it came from: log the model within a run")
        found = {_key(one): one for one in self._inputs(run_id) if _context(one) in TRAINING_CONTEXTS}
        return self._only(list(found.values()), run_id, 'dataset with context "training"')

    def _only(self, found: list[Any], run_id: str, what: str) -> LoggedDataset:
        if len(found) != 1:
            raise ServiceRefused(
                f"run {run_id} logged {len(found)} inputs that are a {what}, needs exactly one: "
                f"log it with mlflow.log_input(mlflow.data.from_pandas(rows, source=FILE, name=NAME), context=CONTEXT)"
            )
        dataset = found[0].dataset
        return LoggedDataset(f"runs:/{run_id}/{dataset.name}", _address(dataset))

    def _inputs(self, run_id: str) -> list[Any]:
        with self._asking(f"run {run_id}"):
            return list(self._client().get_run(run_id).inputs.dataset_inputs)

    def _client(self) -> Any:
        os.environ.setdefault("DO_NOT_TRACK", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes before it says that MLflow is down
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        return mlflow.MlflowClient(tracking_uri=self._tracking_url, registry_uri=self._tracking_url)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.get_http_status_code() < 500 and "API request" not in str(error):
                raise ServiceRefused(f"MLflow has no {what} ({one_line(error)}): check the name in the release profile") from error
            raise ServiceUnavailable(f"MLflow at {self._tracking_url} does not say where the data of {what} is: is it up?") from error


def _key(one: Any) -> tuple[str, str, str]:
    """The same dataset logged twice, for training and for evaluation, is one."""
    return one.dataset.name, one.dataset.digest, one.dataset.source


def _context(one: Any) -> str | None:
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    return next((tag.value for tag in one.tags if tag.key == MLFLOW_DATASET_CONTEXT), None)


def _address(dataset: Any) -> str:
    """The source's address. Rows logged from memory have none, and nobody could say what they were."""
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.exceptions import MlflowException

    try:
        source = get_dataset_source_from_json(dataset.source, source_type=dataset.source_type)
    except (MlflowException, ValueError, KeyError, TypeError) as error:
        raise ServiceRefused(f"MLflow cannot read the source of dataset {dataset.name!r} ({one_line(error)}): log it again") from error
    address = getattr(source, "uri", None) or getattr(source, "url", None)
    if not isinstance(address, str):
        raise ServiceRefused(
            f"dataset {dataset.name!r} has a source of kind {dataset.source_type}, which is no file: "
            f"log it with source=FILE, where FILE is a path, an S3 or a web address"
        )
    return address
