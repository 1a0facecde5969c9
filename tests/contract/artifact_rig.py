"""Versions as MLflow writes them, for the tests of the artifact gate's reading: each is saved once and copied for a test."""

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from interlock.adapters.artifact.reading import read_artifact
from interlock.control.gates.artifact import judge_artifact
from interlock.model.digest import artifact_digest
from interlock.model.verdict import Verdict
from interlock.profile.gates import Artifact

HERE = Path(__file__).parent
POLICY = Artifact(allowed_modules=("sklearn", "numpy", "scipy"), max_code_severity="low", requirements="same_minor")
FRAME = pd.DataFrame({"amount": np.arange(40.0), "age": np.arange(40.0) % 7})
LABELS = (FRAME["amount"] > 20).astype(int)
SIGNATURE = infer_signature(FRAME, np.array([0.5]))
OWN_CODE = """
import mlflow.pyfunc


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["amount"].to_numpy() * 2
"""


def save(directory: Path, kind: str) -> None:
    """A small version of one kind, as research would log it."""
    shared = {"signature": SIGNATURE, "input_example": FRAME.head(3), "pip_requirements": ["mlflow", "scikit-learn", "numpy"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind.startswith("sklearn"):
            estimator = LogisticRegression() if kind.endswith("skops") else HistGradientBoostingClassifier(max_iter=5)
            model = estimator.fit(FRAME, LABELS)
            mlflow.sklearn.save_model(model, str(directory), serialization_format=kind.split()[1], **shared)
        elif kind == "models from code":
            mlflow.pyfunc.save_model(str(directory), python_model=str(HERE / "odd_model.py"), **shared)
        elif kind == "by reference":
            code = directory.with_name("ours_by_reference.py")
            code.write_text(OWN_CODE)
            sys.path.insert(0, str(code.parent))
            try:
                import ours_by_reference  # type: ignore[import-not-found]

                mlflow.pyfunc.save_model(str(directory), python_model=ours_by_reference.Doubles(), code_paths=[str(code)], **shared)
            finally:
                sys.path.remove(str(code.parent))
                sys.modules.pop("ours_by_reference", None)
        else:
            space: dict[str, Any] = {"__name__": "__main__"}
            exec(OWN_CODE, space)
            mlflow.pyfunc.save_model(str(directory), python_model=space["Doubles"](), **shared)


@pytest.fixture(scope="module", name="saved")
def saved_versions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A copy of a version of this kind, for the test alone; each kind is saved once."""
    root, made = tmp_path_factory.mktemp("versions"), dict[str, Path]()
    numbers = iter(range(1000))

    def copy(kind: str) -> Path:
        if kind not in made:
            made[kind] = root / f"made-{len(made)}"
            save(made[kind], kind)
        return Path(shutil.copytree(made[kind], root / f"copy-{next(numbers)}"))

    return copy


def judged(directory: Path, *more_modules: str, deadline_seconds: float = 60.0, **changes: Any) -> Verdict:
    policy = POLICY.model_copy(update={"allowed_modules": (*POLICY.allowed_modules, *more_modules), **changes})
    reading = read_artifact(directory, hold=lambda: None, deadline_seconds=deadline_seconds)
    return judge_artifact(policy, reading, digest=artifact_digest(directory))


def described(directory: Path) -> Any:
    return yaml.safe_load((directory / "MLmodel").read_text())


def describe(directory: Path, told: Any) -> None:
    (directory / "MLmodel").write_text(yaml.safe_dump(told))
