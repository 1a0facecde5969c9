"""What real MLflow model directories say about their answers, and whether a comparator may be paired with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import TypeAdapter

from interlock.adapters.mlflow_files import MlflowFiles
from interlock.control.pairing import check_pairing
from interlock.errors import ArtifactError, PolicyError
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput
from interlock.profile.output import AnyOutput, Output

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what MLflow thinks of saving models is not under test here

FRAME = pd.DataFrame({"a": [0.1, 0.2], "b": [1.0, 2.0]})
VERSION = ModelVersion("odd", "1", "sha256:" + "a" * 64)


def save(root: Path, answer: Any, *, signed: bool = True, version: ModelVersion = VERSION) -> MlflowFiles:
    """A model with the signature that MLflow infers from an answer, where `MlflowFiles` keeps fetched ones."""
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads type hints as a schema
            return answer

    files = MlflowFiles("http://127.0.0.1:9", root)
    mlflow.pyfunc.save_model(
        str(files.directory(version)),
        python_model=Model(),
        signature=infer_signature(FRAME, answer) if signed else None,
        pip_requirements=["mlflow"],
    )
    return files


def section(text: str) -> AnyOutput:
    output: AnyOutput = TypeAdapter(Output).validate_json(text)
    return output


LABEL = '{"type": "label", "comparator": "differs"}'
PROBABILITY = '{"type": "probability", "comparator": "total_variation"}'
REGRESSION = '{"type": "regression", "comparator": "absolute", "scale_units": 1.0}'
RANKING = '{"type": "ranking", "comparator": "overlap", "depth": 10}'
EMBEDDING = '{"type": "embedding", "comparator": "cosine"}'
TEXT = '{"type": "text", "comparator": "token_f1"}'
JSON = '{"type": "json", "comparator": "fields", "required_fields": []}'
EVERY = (LABEL, PROBABILITY, REGRESSION, RANKING, EMBEDDING, TEXT, JSON)


@pytest.mark.parametrize(
    ("answer", "outputs", "fits"),
    [
        pytest.param(["yes", "no"], [ModelOutput("", "string")], {LABEL, TEXT, JSON}, id="texts"),
        pytest.param(pd.DataFrame({"label": [1, 0]}), [ModelOutput("label", "long")], {LABEL, REGRESSION, JSON}, id="a column of integers"),
        pytest.param([True, False], [ModelOutput("", "boolean")], {LABEL}, id="truth"),
        pytest.param(
            np.array([0.5, 0.6]), [ModelOutput("", "tensor", "double", (-1,))], {PROBABILITY, REGRESSION}, id="an array of scores"
        ),
        pytest.param(
            np.array([[0.5, 0.5]], dtype=np.float32),
            [ModelOutput("", "tensor", "double", (-1, 2))],
            {PROBABILITY, REGRESSION, EMBEDDING},
            id="a matrix",
        ),
        pytest.param(np.array(["a", "b"]), [ModelOutput("", "tensor", "string", (-1,))], {LABEL, TEXT, JSON}, id="an array of texts"),
        pytest.param(
            np.array([[4, 2, 1]]), [ModelOutput("", "tensor", "long", (-1, 3))], {RANKING, LABEL, REGRESSION}, id="a matrix of ids"
        ),
        pytest.param([["a", "b"], ["c"]], [ModelOutput("", "array", "string")], {RANKING}, id="lists of ids"),
        pytest.param([[0.5, 0.5]], [ModelOutput("", "array", "double")], {EMBEDDING, PROBABILITY}, id="lists of numbers"),
        pytest.param(
            [{"decision": "yes", "tags": ["a"]}],
            [ModelOutput("decision", "string"), ModelOutput("tags", "array", "string")],
            {JSON},
            id="a record",
        ),
        pytest.param(pd.DataFrame({"why": [{"n": 1}]}), [ModelOutput("why", "object")], {JSON}, id="an object"),
        pytest.param(np.zeros((1, 3, 2)), [ModelOutput("", "tensor", "double", (-1, 3, 2))], set(), id="three dimensions"),
        pytest.param(pd.DataFrame({"at": [pd.Timestamp("2026-01-01")]}), [ModelOutput("at", "datetime")], {JSON}, id="a time"),
    ],
)
def test_a_signature_is_read_and_paired_as_mlflow_wrote_it(tmp_path: Path, answer: Any, outputs: list[ModelOutput], fits: set[str]) -> None:
    found = save(tmp_path, answer).read_outputs(VERSION)
    assert found == tuple(outputs)
    assert {text for text in EVERY if _may_pair(text, found)} == fits


def _may_pair(text: str, outputs: tuple[ModelOutput, ...]) -> bool:
    try:
        check_pairing(section(text), candidate=(VERSION, outputs), incumbent=(VERSION, outputs))
    except (ArtifactError, PolicyError):
        return False
    return True


def test_a_model_without_a_signature_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"odd/1 has no signature.*infer_signature"):
        save(tmp_path, [0.5], signed=False).read_outputs(VERSION)


@pytest.mark.parametrize(
    "outputs", [None, "", "[]", "garbage", "{}", '[{"type": "picture"}]', '[{"type": "tensor"}]', "[null]", "7", '"double"', 7, ["double"]]
)
def test_a_signature_whose_outputs_are_damaged_is_refused_in_one_sentence(tmp_path: Path, outputs: Any) -> None:
    files = save(tmp_path, [0.5])
    described = files.directory(VERSION) / "MLmodel"
    content = yaml.safe_load(described.read_text())
    content["signature"]["outputs"] = outputs
    described.write_text(yaml.safe_dump(content))
    with pytest.raises(ArtifactError) as caught:
        files.read_outputs(VERSION)
    assert "\n" not in str(caught.value)
    assert "odd/1" in str(caught.value)


def test_a_version_whose_files_are_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no readable MLmodel"):
        MlflowFiles("http://127.0.0.1:9", tmp_path).read_outputs(VERSION)


def test_the_demonstrations_models_are_compared_as_probabilities(tmp_path: Path) -> None:
    import mlflow.pyfunc

    from interlock.demo import models
    from interlock.demo.flights import FEATURES

    scorer: dict[str, Any] = {"features": list(FEATURES), "late_rates": {}, "estimator": None}
    example = pd.DataFrame({name: [0.0, 1.0] for name in FEATURES})
    trained = models.TrainedModel("better", scorer, {}, {}, example)
    files = MlflowFiles("http://127.0.0.1:9", tmp_path)
    described = models.describe(trained, tmp_path)
    described.pop("input_example")  # it would be scored, and there is no estimator
    mlflow.pyfunc.save_model(str(files.directory(VERSION)), **described)
    outputs = files.read_outputs(VERSION)
    assert outputs == (ModelOutput("", "double"),)
    assert _may_pair(PROBABILITY, outputs)
