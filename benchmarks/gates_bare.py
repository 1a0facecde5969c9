"""The bare library calls that `gates_cost` sets beside the gates: the same data, the same requests, and nobody judges."""

import json
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from interlock.adapters.scoring_client import ScoringClient
from interlock.control.gates.load import Load, Targets, offer_load
from interlock.control.gates.stage import encode_rows, read_labelled_rows, read_payloads, read_servers
from interlock.control.session import ReleaseSession

ANSWER = "answer"
BIN_COUNT = 10


@dataclass
class Recorder:
    """Senders that remember what they were asked, by port."""

    timeout_seconds: float
    asked: dict[int, list[bytes]] = field(default_factory=dict)

    def open(self, port: int) -> ScoringClient:
        """A client of this port, as the wiring opens one."""
        asked = self.asked.setdefault(port, [])

        class Recording(ScoringClient):
            def ask(self, payload: bytes) -> str:
                asked.append(payload)
                return super().ask(payload)

        return Recording(port, timeout_seconds=self.timeout_seconds)

    def frames(self, port: int) -> list[pd.DataFrame]:
        """The rows of each request to this port."""
        splits = (json.loads(payload)["dataframe_split"] for payload in self.asked[port])
        return [pd.DataFrame(split["data"], columns=split["columns"]) for split in splits]


def evaluate(session: ReleaseSession) -> None:
    """MLflow's evaluation of both versions' answers: the profile's metrics on all rows and on each named value of each slice."""
    policy = session.profile.gates.evaluation
    rows = read_labelled_rows(session).frame
    for directory in (session.candidate_directory, session.incumbent_directory):
        answered = rows.assign(**{ANSWER: session.services.load_model(directory).predict(rows)})
        _evaluate_rows(answered, policy.label_column)
        for sliced in policy.slices:
            for value in sliced.values:
                _evaluate_rows(answered[answered[sliced.column] == value], policy.label_column)


def evaluate_whole(session: ReleaseSession) -> None:
    """The same on all rows alone."""
    rows, label = read_labelled_rows(session).frame, session.profile.gates.evaluation.label_column
    for directory in (session.candidate_directory, session.incumbent_directory):
        _evaluate_rows(rows.assign(**{ANSWER: session.services.load_model(directory).predict(rows)}), label)


def _evaluate_rows(answered: pd.DataFrame, label: str) -> None:
    metrics = [mlflow.models.make_metric(eval_fn=ask, greater_is_better=ask is _auc, name=ask.__name__[1:]) for ask in METRICS]
    mlflow.models.evaluate(data=answered, predictions=ANSWER, targets=label, extra_metrics=metrics)


def _auc(predictions: "pd.Series[float]", targets: "pd.Series[int]", metrics: object) -> float:
    del metrics
    return float(roc_auc_score(targets, predictions)) if targets.nunique() > 1 else 0.5  # MLflow tries every metric on one row first


def _log_loss(predictions: "pd.Series[float]", targets: "pd.Series[int]", metrics: object) -> float:
    del metrics
    return float(log_loss(targets, predictions, labels=[0, 1]))


def _calibration_error(predictions: "pd.Series[float]", targets: "pd.Series[int]", metrics: object) -> float:
    del metrics
    values = predictions.to_numpy(dtype=np.float64)
    bins = np.minimum((values * BIN_COUNT).astype(int), BIN_COUNT - 1)
    sums = np.bincount(bins, weights=values - targets.to_numpy(), minlength=BIN_COUNT)
    return float(np.abs(sums).sum() / len(values))


METRICS: tuple[Callable[..., float], ...] = (_auc, _log_loss, _calibration_error)


def measure_drift(session: ReleaseSession) -> None:
    """Evidently's own distances of the same columns and of the candidate's answers, by the same methods."""
    _evidently(session).dict()


def draw_drift(session: ReleaseSession) -> None:
    """The same, then Evidently's page."""
    found = _evidently(session)
    found.dict()
    found.get_html_str(as_iframe=False)


def _evidently(session: ReleaseSession) -> Any:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    policy, model = session.profile.gates.drift, session.services.load_model(session.candidate_directory)
    methods = {column.name: (column.method, column.drift_distance) for column in policy.columns}
    methods[ANSWER] = (policy.prediction.method, policy.prediction.max_distance)
    kinds = DataDefinition(
        numerical_columns=[ANSWER, *(column.name for column in policy.columns if column.kind == "number")],
        categorical_columns=[column.name for column in policy.columns if column.kind == "category"],
    )
    frames = [session.services.read_rows(address).frame for address in (policy.current, policy.reference)]
    current, reference = (Dataset.from_pandas(frame.assign(**{ANSWER: model.predict(frame)}), kinds) for frame in frames)
    report = Report([ValueDrift(column=name, method=method, threshold=limit) for name, (method, limit) in methods.items()])
    return report.run(current, reference)


def scan_files(session: ReleaseSession) -> None:
    """Both scanners as programs of their own, on the candidate's files; what they find is in their exit codes, which nobody reads."""
    scripts, directory = Path(sysconfig.get_path("scripts")), str(session.candidate_directory)
    for command in (["picklescan", "--path", directory], ["bandit", "--quiet", "--recursive", directory]):
        subprocess.run([str(scripts / command[0]), *command[1:]], capture_output=True, check=False)


def load_latency(session: ReleaseSession) -> None:
    """The latency gate's load and nothing else."""
    policy = session.profile.gates.latency
    _load(session, Load(policy.request_count, policy.warm_up_request_count, policy.requests_per_second))


def load_memory(session: ReleaseSession) -> None:
    """The memory gate's load without a pause for a reading."""
    policy = session.profile.gates.memory
    _load(session, Load(policy.request_count, 0, policy.requests_per_second))


def _load(session: ReleaseSession, load: Load) -> None:
    services = session.services
    candidate, incumbent = read_servers(session)
    with services.open_sender(candidate.port) as ours, services.open_sender(incumbent.port) as theirs:
        offer_load(load, Targets(ours.send, theirs.send, services.clock), payloads=read_payloads(session))


def ask_alone(session: ReleaseSession, frames: Sequence[pd.DataFrame]) -> None:
    """The candidate's server asked for these rows, a frame a request."""
    candidate, _ = read_servers(session)
    with session.services.open_sender(candidate.port) as ours:
        for frame in frames:
            ours.ask(encode_rows(frame))


def ask_both(session: ReleaseSession, frames: Sequence[pd.DataFrame]) -> None:
    """Incumbent and candidate asked for these rows in turn, then the incumbent once more."""
    candidate, incumbent = read_servers(session)
    with session.services.open_sender(candidate.port) as ours, session.services.open_sender(incumbent.port) as theirs:
        payloads = [encode_rows(frame) for frame in frames]
        for payload in payloads:
            theirs.ask(payload)
            ours.ask(payload)
        for payload in payloads:
            theirs.ask(payload)
