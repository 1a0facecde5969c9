"""Real MLflow model directories, whole and damaged."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interlock.adapters.pyfunc_models import load_model
from interlock.errors import ArtifactError, EvidenceError
from interlock.model.digest import artifact_digest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")  # what MLflow thinks of saving models is not under test here

FRAME = pd.DataFrame({"a": [0.1, 0.2, 0.3], "b": [1.0, 2.0, 3.0]})


def save(directory: Path, answer: Callable[[pd.DataFrame], Any], *, signed: bool = True) -> Path:
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads type hints as a schema
            return answer(model_input)

    signature = infer_signature(FRAME, np.array([0.5])) if signed else None
    mlflow.pyfunc.save_model(str(directory), python_model=Model(), signature=signature, pip_requirements=["mlflow"])
    return directory


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "good", lambda frame: frame["a"].to_numpy() * 2)


def test_a_model_answers_rows_from_its_own_columns_only(good: Path) -> None:
    model = load_model(good)
    assert model.input_columns == ("a", "b")
    answers = model.predict(FRAME.assign(late=[1, 0, 1])[["late", "b", "a"]])
    np.testing.assert_allclose(answers, [0.2, 0.4, 0.6])
    assert answers.dtype == np.float64
    assert answers.shape == (3,)


def test_law_7_loading_a_model_leaves_its_files_as_they_were_judged(tmp_path: Path) -> None:
    code = tmp_path / "research_code"
    code.mkdir()
    (code / "__init__.py").write_text("def double(frame):\n    return frame['a'].to_numpy() * 2\n")
    (tmp_path / "model_script.py").write_text(
        "import mlflow.pyfunc\nfrom mlflow.models import set_model\nimport research_code\n\n\n"
        "class Model(mlflow.pyfunc.PythonModel):\n    def predict(self, context, model_input, params=None):\n"
        "        return research_code.double(model_input)\n\n\nset_model(Model())\n"
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import mlflow.pyfunc, pandas as pd, numpy as np\n"
        "from mlflow.models import infer_signature\n"
        "frame = pd.DataFrame({'a': [0.1], 'b': [1.0]})\n"
        "here = sys.argv[1]\n"
        "mlflow.pyfunc.save_model(here + '/saved', python_model=here + '/model_script.py', code_paths=[here + '/research_code'],"
        " signature=infer_signature(frame, np.array([0.5])), pip_requirements=['mlflow'])\n"
    )
    without = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=without, capture_output=True)
    before = artifact_digest(tmp_path / "saved")
    load = "import sys, pathlib; from interlock.adapters.pyfunc_models import load_model; load_model(pathlib.Path(sys.argv[1]))"
    writing = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", load, str(tmp_path / "saved")], check=True, env=writing)
    assert artifact_digest(tmp_path / "saved") == before


def test_nothing_reaches_the_terminal_and_nothing_is_left_behind(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    described = good / "MLmodel"
    whole = described.read_text()
    described.write_text(whole.replace("python_version: 3.", "python_version: 2."))  # MLflow warns about another Python
    load_model(good).predict(FRAME)
    described.write_text(whole)
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(lambda f: f[["a"]], [0.1, 0.2, 0.3], id="a frame with one column"),
        pytest.param(lambda f: f["a"], [0.1, 0.2, 0.3], id="a series"),
        pytest.param(lambda f: [1, 0, 1], [1.0, 0.0, 1.0], id="a list of whole numbers"),
        pytest.param(lambda f: np.array([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]), [0.1, 0.5, 1.0], id="probabilities of two classes"),
        pytest.param(lambda f: ["no", "yes", None], ["no", "yes", None], id="labels, one missing"),
    ],
)
def test_answers_become_one_for_each_row(tmp_path: Path, answer: Callable[[pd.DataFrame], Any], expected: list[Any]) -> None:
    assert load_model(save(tmp_path / "model", answer)).predict(FRAME).tolist() == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(lambda f: [0.5], r"shape \(1,\) for 3 rows", id="one answer for three rows"),
        pytest.param(lambda f: np.ones((3, 2)), r"shape \(3, 2\)", id="two numbers that are no distribution"),
        pytest.param(lambda f: 1 / 0, "ZeroDivisionError", id="a model that raises"),
    ],
)
def test_a_model_that_does_not_answer_each_row_is_an_artifact_error(
    tmp_path: Path, answer: Callable[[pd.DataFrame], Any], reason: str
) -> None:
    with pytest.raises(ArtifactError, match=reason):
        load_model(save(tmp_path / "model", answer)).predict(FRAME)


def test_rows_without_a_column_are_the_datas_fault(good: Path) -> None:
    with pytest.raises(EvidenceError, match="no column b"):
        load_model(good).predict(FRAME[["a"]])


def test_a_model_without_signature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no signature with named columns"):
        load_model(save(tmp_path / "model", lambda f: f["a"], signed=False))


def _remove(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_remove("MLmodel"), id="no MLmodel"),
        pytest.param(_write("MLmodel", b""), id="an empty MLmodel"),
        pytest.param(_write("MLmodel", b"{{{"), id="an MLmodel that is no YAML"),
        pytest.param(_write("MLmodel", b"flavors: {}\n"), id="no flavour"),
        pytest.param(_write("MLmodel", b"\xff\xfe"), id="an MLmodel that is no text"),
        pytest.param(_remove("python_model.pkl"), id="no model file"),
        pytest.param(_write("python_model.pkl", b""), id="an empty model file"),
        pytest.param(_write("python_model.pkl", b"garbage"), id="a model file of garbage"),
        pytest.param(_write("python_model.pkl", b"cabsent_module\nModel\n."), id="a model file that needs a missing package"),
        pytest.param(shutil.rmtree, id="no directory"),
    ],
)
def test_a_damaged_directory_is_an_artifact_error_in_one_sentence(good: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    directory = tmp_path / "damaged"
    shutil.copytree(good, directory)
    damage(directory)
    with pytest.raises(ArtifactError) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
