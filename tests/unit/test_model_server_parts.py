"""The parts of the model server without a server: bodies within bounds, scoring by either way, the start commands."""

import asyncio
import json
import logging
import random
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.pyfunc import scoring_server
from sklearn.linear_model import LinearRegression

from interlock.errors import ArtifactError
from interlock.model.release import ModelVersion
from interlock.serving.bodies import MAX_BODY_BYTES, BodyBudget, BodyRefused
from interlock.serving.commands import server_command, server_environment
from interlock.serving.scoring import JSON, Scorer, load_scorer

FRAME = pd.DataFrame({"a": [1.0, 2.0, 4.0], "n": [1, 2, 3]})


class Upload:
    """granian's protocol object, as far as bodies go. `taken` counts the bytes that were handed over."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.taken = 0

    async def __call__(self) -> bytes:
        return b"".join([chunk async for chunk in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.taken += len(chunk)
            yield chunk


def read(budget: BodyBudget, upload: Upload, length: int | None) -> bytes:
    return asyncio.run(budget.read(upload, length))


def test_a_body_counts_until_it_is_released() -> None:
    budget = BodyBudget()
    assert read(budget, Upload(b"abc", b"de"), 5) == b"abcde"
    assert read(budget, Upload(b"abc", b"de"), None) == b"abcde"
    assert budget.held_bytes == 10
    budget.release(5)
    budget.release(5)
    assert budget.held_bytes == 0


@pytest.mark.parametrize("announced", [True, False])
def test_the_limit_is_inclusive_and_a_refused_body_is_not_held(announced: bool) -> None:
    budget = BodyBudget()
    fits, larger = b"x" * MAX_BODY_BYTES, b"x" * (MAX_BODY_BYTES + 1)
    assert len(read(budget, Upload(fits), len(fits) if announced else None)) == MAX_BODY_BYTES
    budget.release(MAX_BODY_BYTES)
    with pytest.raises(BodyRefused) as refused:
        read(budget, Upload(larger), len(larger) if announced else None)
    assert (refused.value.status, budget.held_bytes) == (413, 0)


@pytest.mark.parametrize("announced", [True, False])
def test_an_endless_body_is_cut_off(announced: bool) -> None:
    upload = Upload(*[b"x" * (1 << 20)] * 100)
    with pytest.raises(BodyRefused):
        read(BodyBudget(), upload, 100 << 20 if announced else None)
    assert upload.taken <= 4 * MAX_BODY_BYTES + (1 << 20)


@pytest.mark.parametrize("length", [6, None])
def test_a_spent_budget_is_told_to_come_again(length: int | None) -> None:
    budget = BodyBudget(held_limit_bytes=10)
    assert read(budget, Upload(b"12345"), 5) == b"12345"
    with pytest.raises(BodyRefused) as refused:
        read(budget, Upload(b"123", b"456"), length)
    assert (refused.value.status, budget.held_bytes) == (503, 5)
    assert read(budget, Upload(b"12345"), length and 5) == b"12345"


@pytest.mark.parametrize("length", [3, None])
def test_a_client_that_goes_away_leaves_nothing_held(length: int | None) -> None:
    class Broken(Upload):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"12"
            raise ConnectionError("gone")

    budget = BodyBudget()
    with pytest.raises(ConnectionError):
        read(budget, Broken(), length)
    assert budget.held_bytes == 0


@pytest.fixture(scope="module")
def sklearn_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("sklearn") / "model"
    fitted = LinearRegression().fit(FRAME, [1.0, 2.0, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            fitted,
            directory,
            signature=infer_signature(FRAME, fitted.predict(FRAME)),
            serialization_format="cloudpickle",
            pip_requirements=["mlflow"],
        )
    return directory


ROWS = [[0.1 * n, n] for n in range(50)]
PAYLOADS: list[dict[str, Any]] = [
    {"dataframe_split": {"columns": ["a", "n"], "data": ROWS}},
    {"dataframe_split": {"columns": ["n", "a"], "index": [9], "data": [[1, 2.5]]}},
    {"dataframe_records": [{"a": a, "n": n} for a, n in ROWS]},
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_both_ways_give_the_same_bytes(sklearn_model: Path, payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, body = load_scorer(sklearn_model), json.dumps(payload).encode()
    model = mlflow.pyfunc.load_model(str(sklearn_model))
    wanted = scoring_server.invocations(body, JSON, model, model.metadata.get_input_schema())
    # Proves that the short way was taken: MLflow's would fail here.
    monkeypatch.setattr(scoring_server, "invocations", None)
    answer = scorer.answer(body, JSON)
    assert (answer.status, answer.body.decode()) == (200, wanted.response)


def test_a_failing_model_is_asked_once_and_refused_in_mlflows_words(sklearn_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer, calls = load_scorer(sklearn_model), []

    def fail(frame: pd.DataFrame, params: Any = None) -> None:
        calls.append(len(frame))
        raise ZeroDivisionError("secretly\ndivided")

    scorer._model._predict_fn = fail
    with caplog.at_level(logging.ERROR):
        answer = scorer.answer(json.dumps(PAYLOADS[1]).encode(), JSON)
    refusal = json.loads(answer.body)
    assert calls == [1]
    assert (answer.status, refusal["error_code"]) == (400, "BAD_REQUEST")
    assert "ZeroDivisionError" not in answer.body.decode()
    assert [record.getMessage() for record in caplog.records if "secretly divided" in record.getMessage()]
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_a_model_that_answers_by_chance_keeps_to_mlflows_way(sklearn_model: Path) -> None:
    scorer = load_scorer(sklearn_model)
    body = json.dumps(PAYLOADS[1]).encode()
    assert scorer.rehearse(body).status == 200
    assert scorer._builder is not None
    scorer._model._predict_fn = lambda frame, params=None: [random.random() for _ in range(len(frame))]
    assert Scorer.rehearse(scorer, body).status == 200
    assert scorer._builder is None


def test_an_artifact_that_is_none_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("nothing: here\n")
    with pytest.raises(ArtifactError, match="does not load") as refused:
        load_scorer(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_not_a_pickle_does_not_load(sklearn_model: Path, tmp_path: Path) -> None:
    for path in sklearn_model.iterdir():
        (tmp_path / path.name).write_bytes(b"corrupt" if path.suffix == ".pkl" else path.read_bytes())
    with pytest.raises(ArtifactError, match="does not load: "):
        load_scorer(tmp_path)


def test_commands_name_the_version_the_directory_and_the_port() -> None:
    version = ModelVersion("fraud", "3", "sha256:" + "a" * 64)
    ours = server_command("interlock", python="/venv/bin/python", model_dir=Path("/models/3"), version=version, port=8101, threads=3)
    theirs = server_command("mlflow", python="/venv/bin/python", model_dir=Path("/models/3"), version=version, port=8101, threads=3)
    assert ours[:3] == ["/venv/bin/python", "-m", "interlock.serving.model_server"]
    assert dict(zip(ours[3::2], ours[4::2], strict=True)) == {
        "--name": "fraud",
        "--version": "3",
        "--digest": version.digest,
        "--model": "/models/3",
        "--host": "127.0.0.1",
        "--port": "8101",
        "--threads": "3",
    }
    assert theirs[:5] == ["/venv/bin/python", "-m", "mlflow", "models", "serve"]
    assert dict(zip(theirs[5::2], theirs[6::2], strict=True))["--env-manager"] == "local"
    assert server_environment("mlflow", python="/venv/bin/python")["PATH"].startswith("/venv/bin:")
    assert "PATH" not in server_environment("interlock")
    assert server_environment("mlflow")["PYTHONDONTWRITEBYTECODE"] == "1"
