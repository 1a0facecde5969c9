"""
Research's side of the demonstration: train the models, log them to MLflow, register them as versions, and switch their faults on.

Nothing here knows the control plane. A version that will misbehave is as good offline as any other: its fault is a serving condition.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib  # type: ignore[import-untyped]
import mlflow
import mlflow.models
import mlflow.pyfunc
import mlflow.types
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score

from interlock.demo import served
from interlock.demo.flights import CATEGORIES, FEATURES, LABEL, FlightsData
from interlock.errors import ServiceError

Fault = Literal["skew", "slow", "fail"]

# Plain gradient boosting scores one row in .2 ms on one thread. scikit-learn's histogram kind is trained faster, but asks OpenMP for its
# threads at every prediction, which costs twice the CPU and stalls when two cores are busy. Large leaves and short steps keep two seeds
# alike: their predictions differ by .017 on average, where the profile tolerates .10.
ESTIMATOR: Mapping[str, Any] = {
    "n_estimators": 60,
    "max_depth": 4,
    "learning_rate": 0.09,
    "subsample": 0.3,
    "max_features": 0.5,
    "min_samples_leaf": 400,
}
TRAINING_ROW_COUNT = 50_000  # about 1 s of training; all 220,000 rows of the candidate's months gain .001 in AUC
SMOOTHING_ROW_COUNT = 200  # a category's late rate is drawn to the mean as by so many rows: rare destinations stay near it
PIP_REQUIREMENTS = ("mlflow", "scikit-learn", "joblib", "numpy", "pandas")


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model before it is registered. `scorer` is what `served.score` takes; `metrics` were measured on the evaluation rows."""

    fault_key: str
    scorer: dict[str, Any]
    params: dict[str, Any]
    metrics: dict[str, float]
    example: pd.DataFrame

    def predict(self, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Probabilities for these rows, shape (n,), without any fault."""
        return served.score(self.scorer, rows[list(FEATURES)].to_numpy(dtype=np.float64))


def train_incumbent(data: FlightsData, *, seed: int = 0) -> TrainedModel:
    """The model that serves when the demonstration begins: it has seen January to April."""
    return _train(data.train_incumbent, data.evaluation, fault_key="incumbent", seed=seed)


def train_candidate(data: FlightsData, *, fault_key: str, seed: int) -> TrainedModel:
    """
    A better model: it has seen January to August. Each seed draws other rows, so its version has a digest of its own.

    `fault_key` is the name under which `set_fault` reaches this version and no other.
    """
    return _train(data.train_candidate, data.evaluation, fault_key=fault_key, seed=seed)


def register(model: TrainedModel, name: str, *, tracking_uri: str) -> str:
    """
    Log the model through the tracking server and register it as the next version of `name`; returns that version.

    Raises:
        ServiceError: the tracking server refused, failed or did not answer.
    """
    try:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        mlflow.set_experiment(name)
        with mlflow.start_run(run_name=model.fault_key), tempfile.TemporaryDirectory() as scratch:
            mlflow.log_params(model.params)
            mlflow.log_metrics(model.metrics)
            return _register_logged(name, mlflow.pyfunc.log_model(name="model", **describe(model, Path(scratch))))
    except mlflow.MlflowException as error:
        raise ServiceError(f"the model {model.fault_key!r} was not registered as {name!r} at {tracking_uri}: {error}") from error


def set_fault(path: Path, fault_key: str, fault: Fault | None) -> float:
    """
    Switch a fault of one version on, or with None off, for every process that serves it; other versions keep theirs.

    The file is replaced as a whole, and the next request reads it. Returns the monotonic time, in seconds, at which it was in place.
    """
    conditions = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    conditions.pop(fault_key, None)
    if fault is not None:
        conditions[fault_key] = {"fault": fault}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, written = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(conditions, file)
    Path(written).replace(path)
    return time.monotonic()


def _train(rows: pd.DataFrame, evaluation: pd.DataFrame, *, fault_key: str, seed: int) -> TrainedModel:
    drawn = rows.sample(min(TRAINING_ROW_COUNT, len(rows) * 9 // 10), random_state=seed)
    late_rates = {FEATURES.index(column): _late_rates(rows, column) for column in CATEGORIES.values()}
    encoded = served.encode(late_rates, drawn[list(FEATURES)].to_numpy(dtype=np.float64))
    estimator = GradientBoostingClassifier(random_state=seed, **ESTIMATOR).fit(encoded, drawn[LABEL])
    scorer = {"features": list(FEATURES), "late_rates": late_rates, "estimator": estimator}
    predicted = served.score(scorer, evaluation[list(FEATURES)].to_numpy(dtype=np.float64))
    metrics = {"roc_auc": float(roc_auc_score(evaluation[LABEL], predicted)), "log_loss": float(log_loss(evaluation[LABEL], predicted))}
    params = {**ESTIMATOR, "seed": seed, "training_row_count": len(drawn), "fault_key": fault_key}
    return TrainedModel(fault_key, scorer, params, metrics, example=evaluation[list(FEATURES)].head(2))


def _late_rates(rows: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """The smoothed late rate of each category by its index, and last the mean, for categories that were not seen."""
    mean = float(rows[LABEL].mean())
    seen = rows.groupby(column)[LABEL].agg(["sum", "count"])
    smoothed = (seen["sum"] + SMOOTHING_ROW_COUNT * mean) / (seen["count"] + SMOOTHING_ROW_COUNT)
    rates = np.full(int(rows[column].max()) + 2, mean)
    rates[seen.index.to_numpy(dtype=np.intp)] = smoothed
    return rates


def describe(model: TrainedModel, scratch: Path) -> dict[str, Any]:
    """What MLflow is told to log or save for this model; its files are in `scratch` and must outlive the call."""
    _tame_mlflow()
    scorer_path = scratch / "scorer.joblib"
    joblib.dump(model.scorer, scorer_path)
    inputs = mlflow.types.Schema([mlflow.types.ColSpec("double", feature) for feature in FEATURES])
    outputs = mlflow.types.Schema([mlflow.types.ColSpec("double")])
    return {
        "python_model": served.__file__,
        "artifacts": {"scorer": str(scorer_path)},
        "model_config": {"fault_key": model.fault_key},
        "signature": mlflow.models.ModelSignature(inputs=inputs, outputs=outputs),
        "input_example": model.example,
        "pip_requirements": list(PIP_REQUIREMENTS),  # named, because finding them out starts a process and takes half a minute
    }


def _tame_mlflow() -> None:
    """Keep MLflow's links, progress bars and hints out of the demonstration's output, and the working directory out of the artifact."""
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # in a checkout with a uv.lock it would become a part of every model version
    logging.getLogger("mlflow").setLevel(logging.ERROR)


def _register_logged(name: str, logged: Any) -> str:
    """The version that was made. Through the client, since `registered_model_name` writes to stderr what nobody can switch off."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    source = mlflow.get_logged_model(logged.model_id).artifact_location
    return str(client.create_model_version(name, source, run_id=logged.run_id, model_id=logged.model_id).version)
