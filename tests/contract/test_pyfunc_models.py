"""Real MLflow model directories, whole and damaged."""

import json
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


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda frame: frame["a"].to_numpy() * 2, id="numbers"),
        pytest.param(lambda frame: frame["a"].to_numpy().astype(np.float32), id="numbers of single precision"),
        pytest.param(lambda frame: np.column_stack([1 - frame["a"], frame["a"]]), id="a matrix"),
        pytest.param(lambda frame: pd.DataFrame({"p": frame["a"], "label": ["late"] * len(frame)}), id="a frame"),
        pytest.param(lambda frame: pd.Series(frame["a"] > 0.1), id="a series without a name"),
        pytest.param(lambda frame: ["in time"] * len(frame), id="texts"),
        pytest.param(lambda frame: [{"ids": [1, 2], "score": value} for value in frame["a"]], id="documents"),
        pytest.param(lambda frame: [np.float64(value) for value in frame["a"]], id="numpy's numbers in a list"),
        pytest.param(lambda frame: np.where(frame["a"] > 0.1, np.nan, 1.0), id="no numbers"),
    ],
)
def test_offline_answers_are_what_the_model_server_puts_into_its_body(tmp_path: Path, answer: Callable[[pd.DataFrame], Any]) -> None:
    from interlock.serving.scoring import JSON, load_scorer

    directory = save(tmp_path / "model", answer)
    served = load_scorer(directory).answer(json.dumps({"dataframe_split": FRAME.to_dict(orient="split", index=False)}).encode(), JSON)
    offline = load_model(directory).answers(FRAME)
    assert json.dumps(offline) == json.dumps(json.loads(served.body)["predictions"])
    assert len(offline) == len(FRAME)


def test_columns_of_lists_become_a_record_a_row(tmp_path: Path) -> None:
    directory = save(tmp_path / "model", lambda frame: {"p": frame["a"].tolist(), "q": frame["b"].tolist()})
    assert load_model(directory).answers(FRAME)[1] == {"p": 0.2, "q": 2.0}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(lambda frame: frame["a"].to_numpy()[:-1], "gave 2 values for 3 rows", id="a row too few"),
        pytest.param(lambda frame: {"p": 0.5}, "gave one dict for 3 rows", id="one record for all"),
        pytest.param(lambda frame: "late", "gave one str for 3 rows", id="one text for all"),
        pytest.param(lambda frame: [object()] * len(frame), "is no JSON", id="no JSON"),
    ],
)
def test_answers_that_are_not_one_json_value_a_row_are_the_model_s_fault(tmp_path: Path, answer: Any, text: str) -> None:
    with pytest.raises(ArtifactError, match=text):
        load_model(save(tmp_path / "model", answer)).answers(FRAME)


def save_with_code(directory: Path, value: float) -> Path:
    """A version whose modules are called as every other version's, and one of which it imports only when it answers."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    code = directory / "code"
    (code / "features").mkdir(parents=True)
    (code / "features" / "__init__.py").write_text(f"VALUE = {value}\n")
    (code / "features" / "late.py").write_text(f"VALUE = {value}\n")
    (code / "bare").mkdir()
    (code / "bare" / "part.py").write_text(f"VALUE = {value}\n")  # a package without an __init__
    (code / "version_loader.py").write_text(
        "import features as loaded\nfrom features import VALUE\n\n\nclass Model:\n    def predict(self, frame, params=None):\n"
        "        import bare.part\n        import features\n        from features.late import VALUE as LATE\n"
        "        assert features is loaded, 'what it keeps in its modules is lost'\n"
        "        assert VALUE == LATE == features.VALUE == bare.part.VALUE, (VALUE, LATE, features.VALUE, bare.part.VALUE)\n"
        "        return [LATE] * len(frame)\n\n\ndef _load_pyfunc(path):\n    return Model()\n"
    )
    signature = ModelSignature(Schema([ColSpec("double", "a"), ColSpec("double", "b")]), Schema([ColSpec("double")]))
    mlflow.pyfunc.save_model(
        str(directory / "saved"),
        loader_module="version_loader",
        code_paths=[str(code / "features"), str(code / "bare"), str(code / "version_loader.py")],
        signature=signature,
        pip_requirements=["mlflow"],
    )
    return directory / "saved"


def test_two_versions_with_modules_of_one_name_answer_each_with_its_own_code(tmp_path: Path) -> None:
    paths, modules = list(sys.path), set(sys.modules)
    one, two = (load_model(save_with_code(tmp_path / name, value)) for name, value in (("incumbent", 0.9), ("candidate", 0.1)))
    for _ in range(2):
        assert one.answers(FRAME) == [0.9] * 3
        assert two.answers(FRAME) == [0.1] * 3
        assert two.predict(FRAME).tolist() == [0.1] * 3
    assert sys.path == paths
    assert not {"features", "features.late", "bare", "bare.part", "version_loader"} & (set(sys.modules) - modules)


def test_a_version_that_cannot_be_loaded_leaves_no_code_to_the_next(tmp_path: Path) -> None:
    broken = save_with_code(tmp_path / "broken", 0.9)
    (broken / "code" / "version_loader.py").write_text("import features\nraise RuntimeError('no')\n")
    with pytest.raises(ArtifactError, match="RuntimeError"):
        load_model(broken)
    assert load_model(save_with_code(tmp_path / "whole", 0.1)).answers(FRAME) == [0.1] * 3
