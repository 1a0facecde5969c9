"""
Healthy candidates: the demonstration's model trained again in the ways in which research trains one again, none of which is a defect.

All of them were chosen before any was judged. Weeks end before September, which the evaluation rows are from.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier

import interlock
from interlock.demo import served
from interlock.demo.flights import FEATURES, LABEL, FlightsData, build_rows, read_source
from interlock.demo.models import ESTIMATOR, TRAINING_ROW_COUNT, TrainedModel, describe, train_candidate

SEED, WEEK, LIBRARY, HYPERPARAMETERS = "another seed", "a week later", "another library version", "other hyperparameters"
KEY = "healthy"  # no serving condition ever names it
PINNED = ("mlflow", "scikit-learn", "joblib", "numpy", "pandas", "scipy")
LAST_WEEK = pd.Timestamp("2013-09-01", tz="America/New_York")
SEED_COUNT, WEEK_COUNT = 12, 8
TIMEOUT_SECONDS = 600.0
# Each is another patch of what the lock names: `same_minor` allows that. Version files are fetched from the package registry.
OTHER_VERSIONS: tuple[Mapping[str, str], ...] = (
    {"scikit-learn": "1.9.0"},
    {"numpy": "2.4.5"},
    {"scikit-learn": "1.9.0", "numpy": "2.4.4"},
    {"pandas": "2.3.2"},
    {"scipy": "1.17.0"},
    {"mlflow": "3.17.1", "mlflow-skinny": "3.17.1", "mlflow-tracing": "3.17.1"},
)
OTHER_HYPERPARAMETERS: tuple[Mapping[str, Any], ...] = (
    {"n_estimators": 100, "max_depth": 3},
    {"n_estimators": 110, "learning_rate": 0.05},
    {"subsample": 0.6},
    {"min_samples_leaf": 200, "max_features": 0.8},
)


class NotMade(Exception):
    """A candidate could not be made, as when the package registry cannot be reached. It says nothing about the gates."""


@dataclass(frozen=True, slots=True)
class Retrained:
    """A healthy candidate that can be made. `save` trains it and writes its MLflow files into a directory that is not there yet."""

    kind: str
    name: str
    save: Callable[[Path], None]


def healthy_candidates(data: FlightsData, *, quick: bool) -> list[Retrained]:
    """All of them, or the first of each kind."""
    kinds = (list(_seeds(data)), list(_weeks(data)), list(_libraries(data)), list(_hyperparameters(data)))
    return [each for kind in kinds for each in (kind[:1] if quick else kind)]


def save_pinned(model: TrainedModel, directory: Path) -> None:
    """Write the model's MLflow files, its requirements pinned to what is installed where it was trained."""
    with tempfile.TemporaryDirectory() as scratch:
        pins = [f"{name}=={metadata.version(name)}" for name in PINNED]
        mlflow.pyfunc.save_model(directory, **{**describe(model, Path(scratch)), "pip_requirements": pins})


def week_ends(count: int, last: pd.Timestamp) -> list[pd.Timestamp]:
    """So many moments, each a week after the one before; the last one is `last`."""
    return [last - pd.DateOffset(weeks=back) for back in reversed(range(count))]


def train_with(data: FlightsData, changed: Mapping[str, Any], *, seed: int) -> TrainedModel:
    """The candidate's recipe with some of its hyperparameters changed."""
    model, rows = train_candidate(data, fault_key=KEY, seed=seed), data.train_candidate
    drawn = rows.sample(TRAINING_ROW_COUNT, random_state=seed)
    encoded = served.encode(model.scorer["late_rates"], drawn[list(FEATURES)].to_numpy(dtype=np.float64))
    estimator = GradientBoostingClassifier(random_state=seed, **{**ESTIMATOR, **changed}).fit(encoded, drawn[LABEL])
    return replace(model, scorer={**model.scorer, "estimator": estimator}, params={**model.params, **changed})


def _seeds(data: FlightsData) -> Iterator[Retrained]:
    for seed in range(100, 100 + SEED_COUNT):
        yield Retrained(SEED, f"seed {seed}", _saving(train_candidate, data, fault_key=KEY, seed=seed))


def _weeks(data: FlightsData) -> Iterator[Retrained]:
    """Each has seen all flights until its week's end, as when the same training runs again every week."""
    rows = build_rows(*read_source())
    for seed, end in enumerate(week_ends(WEEK_COUNT, LAST_WEEK), start=200):
        known = replace(data, train_candidate=rows.loc[rows["time_hour"] < end, [*FEATURES, LABEL]])
        name = f"1 January to {end - pd.Timedelta(days=1):%-d %B}"
        yield Retrained(WEEK, name, _saving(train_candidate, known, fault_key=KEY, seed=seed))


def _libraries(data: FlightsData) -> Iterator[Retrained]:
    for seed, versions in enumerate(OTHER_VERSIONS, start=300):
        name = ", ".join(f"{package} {version}" for package, version in versions.items() if package in PINNED)
        yield Retrained(LIBRARY, name, partial(_save_elsewhere, data, versions, seed))


def _hyperparameters(data: FlightsData) -> Iterator[Retrained]:
    for seed, changed in enumerate(OTHER_HYPERPARAMETERS, start=400):
        name = ", ".join(f"{parameter} {value}" for parameter, value in changed.items())
        yield Retrained(HYPERPARAMETERS, name, _saving(train_with, data, changed, seed=seed))


def _saving(train: Callable[..., TrainedModel], *arguments: Any, **named: Any) -> Callable[[Path], None]:
    return lambda directory: save_pinned(train(*arguments, **named), directory)


def _save_elsewhere(data: FlightsData, versions: Mapping[str, str], seed: int, directory: Path) -> None:
    """Train and save in a Python that has these versions, and everything else from this one's environment."""
    with tempfile.TemporaryDirectory(prefix="interlock-versions-") as scratch:
        python = _make_environment(Path(scratch) / "environment", versions)
        _run(str(python), "-m", "benchmarks.gates_retrained", str(data.directory), str(seed), str(directory))
    pins = (directory / "requirements.txt").read_text(encoding="utf-8").split()
    if absent := [pin for pin in _pins(versions) if pin not in pins]:
        raise NotMade(f"the candidate was not trained with {', '.join(absent)} but with {', '.join(pins)}: mend its environment")


def _pins(versions: Mapping[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items() if name in PINNED]


def _make_environment(directory: Path, versions: Mapping[str, str]) -> Path:
    _run("uv", "venv", "--quiet", "--python", sys.executable, str(directory))
    python = directory / "bin" / "python"
    packages = [f"{name}=={version}" for name, version in versions.items()]
    _run("uv", "pip", "install", "--quiet", "--python", str(python), "--no-deps", *packages)
    (next(directory.glob("lib/python*/site-packages")) / "here.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def _run(*command: str) -> None:
    """One command that finds this project's own modules. NotMade with its last words when it fails."""
    roots = {str(Path(interlock.__file__).parents[1]), str(Path(__file__).parents[1])}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots))}
    try:
        subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        raise NotMade(f"{' '.join(command[:4])} ended with exit code {error.returncode}: {error.stderr.strip()[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMade(f"{' '.join(command[:4])}: {error}; it needs uv and the package registry") from error


def main(arguments: Sequence[str]) -> None:
    """In another Python: train the candidate on the flights of a directory, with a seed, and save it."""
    flights, seed, directory = Path(arguments[0]), int(arguments[1]), Path(arguments[2])
    frames = {each.name: pd.read_parquet(flights / f"{each.name}.parquet") for each in fields(FlightsData) if each.name != "directory"}
    save_pinned(train_candidate(FlightsData(flights, **frames), fault_key=KEY, seed=seed), directory)


if __name__ == "__main__":
    main(sys.argv[1:])
