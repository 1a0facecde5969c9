"""What MLmodel names is held to the version's own files and to loaders that are known; numbers are read as the C unpickler reads them."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from interlock.adapters.artifact.pickles import walk
from interlock.model.verdict import Outcome
from tests.artifacts import POLICY, judged, replace_modules


def test_a_loader_of_the_versions_own_code_is_allowed_as_its_code_is_scanned(tmp_path: Path) -> None:
    files = {"MLmodel": b"flavors: {python_function: {loader_module: ours.loader}}\n", "code/ours/loader.py": b"x = 1\n"}
    assert judged(tmp_path, files).outcome is Outcome.PASS


def test_a_loader_of_that_name_in_the_code_is_not_one_that_is_imported_from_elsewhere(tmp_path: Path) -> None:
    for position, (module, path) in enumerate(
        {"ours.other": "code/ours/loader.py", "mlflow.pytorch": "code/mlflow/pytorch.py", "os": "code/os.py"}.items()
    ):
        files = {"MLmodel": f"flavors: {{python_function: {{loader_module: {module}}}}}\n".encode(), path: b"x = 1\n"}
        verdict = judged(tmp_path / str(position), files, replace_modules(POLICY, ("mlflow", "ours")))
        assert verdict.outcome is Outcome.FAIL
        assert f"{module}._load_pyfunc" in verdict.reason


def test_a_model_class_is_held_to_the_allowed_modules(tmp_path: Path) -> None:
    described = b"flavors: {python_function: {loader_module: mlflow.xgboost, data: model.json}, xgboost: {data: model.json, model_class: "
    files = {"MLmodel": described + b"xgboost.sklearn.XGBClassifier}}\n", "model.json": b"{}"}
    assert judged(tmp_path, files).outcome is Outcome.FAIL
    verdict = judged(tmp_path, files, replace_modules(POLICY, ("xgboost",)))
    assert verdict.outcome is Outcome.PASS, verdict.reason


def test_where_the_files_once_were_and_what_the_models_own_code_is_told_may_lie_anywhere(tmp_path: Path) -> None:
    files = {
        "MLmodel": b"flavors: {python_function: {loader_module: mlflow.pyfunc.loaders.code_model, code: null,"
        b" model_code_path: /home/a/m.py, artifacts: {scorer: {path: artifacts/scorer.npy, uri: /tmp/scorer.npy}},"
        b" model_config: {table: /data/table}}}\n",
        "m.py": b"x = 1\n",
    }
    assert judged(tmp_path / "without", files).outcome is Outcome.FAIL
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    verdict = judged(tmp_path / "with", files | {"artifacts/scorer.npy": array.getvalue()})
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert "code of the version's own in m.py" in verdict.reason


@pytest.mark.parametrize(
    "line", [b"I010", b"I-017", b"I+00", b"I0x1f", b"I00", b"I01", b"I1_0", b"I 5", b"I1\0x", b"L010L", b"L1L", b"F1\0x", b"I08"]
)
def test_a_number_that_the_unpickler_reads_is_read_by_the_walk(line: bytes) -> None:
    content = line + b"\n."
    try:
        pickle.loads(content)
    except ValueError:
        return
    assert not walk(io.BytesIO(content), as_joblib=True).error
