"""
One loaded MLflow model version, answering requests of MLflow's scoring protocol.

The only module of serving that imports mlflow. Parsing, schema enforcement, prediction and every refusal are MLflow's own functions, so
that an answer is the one `mlflow models serve` gives; a stack trace never leaves the process. For tabular signatures there is a short way
(`frames.FrameBuilder`), taken only where it was shown to lead to the same frame. Private names of mlflow are used: the pin is exact
(docs/decisions/0001-pins.md), and tests/contract/test_model_server.py compares both servers answer by answer.
"""

import inspect
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

# Before mlflow is imported: a model server sends no usage statistics from production.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow.artifacts
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_params_schema
from mlflow.pyfunc import PyFuncModel, load_model, scoring_server
from mlflow.pyfunc.context import Context, set_prediction_context
from mlflow.types.schema import ColSpec, DataType
from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj
from mlflow.version import VERSION as MLFLOW_VERSION

from interlock.errors import ArtifactError
from interlock.serving.frames import FrameBuilder, Payload

__all__ = ["JSON", "MLFLOW_VERSION", "Answer", "Scorer", "fetch_artifact", "load_scorer"]

log = logging.getLogger(__name__)

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
# What clients send for JSON; anything else in the header is judged by MLflow.
PLAIN_JSON_TYPES = frozenset({JSON, "application/json; charset=utf-8", "application/json;charset=utf-8"})


class Answer(NamedTuple):
    """What goes back to the client."""

    status: int
    media_type: str
    body: bytes


class Scorer:
    """Answers /invocations for one model. Safe to call from several threads if the model is, as with `mlflow models serve`."""

    def __init__(self, model: PyFuncModel) -> None:
        self._model = model
        self._schema = model.metadata.get_input_schema()
        self._params_schema = model.metadata.get_params_schema()
        params = inspect.signature(model._predict_fn).parameters.get("params")
        self._takes_params = params is not None and params.kind is not inspect.Parameter.VAR_KEYWORD
        self._builder = _builder_for(model)

    def answer(self, body: bytes, content_type: str | None) -> Answer:
        """The answer to one request body. Never raises: what the model or MLflow raises becomes a status, as in MLflow's server."""
        try:
            if self._builder is not None and content_type in PLAIN_JSON_TYPES:
                payload = self._builder.build(body)
                if payload is not None and (self._takes_params or not payload.params):
                    return self._short_way(payload, body)
            return self._long_way(body, content_type, self._model)
        except MlflowException as error:
            return _refusal(error)
        except Exception as error:  # noqa: BLE001 - the edge of the process: the request gets 500 as from MLflow's server
            log.error("request failed inside the model server: %s", _one_line(error))
            return Answer(500, TEXT, b"Internal Server Error")

    def rehearse(self, body: bytes) -> Answer:
        """
        Answers the model's own example, both ways if there are two.

        Where the two answers differ (a model that draws random numbers, or one that this code has not met), the short way is closed.
        """
        first = self.answer(body, JSON)
        builder, self._builder = self._builder, None
        second = self.answer(body, JSON)
        if first == second:
            self._builder = builder
        elif builder is not None:
            log.warning("the input example is answered differently by MLflow's own parsing; using only that")
        return second

    def _short_way(self, payload: Payload, body: bytes) -> Answer:
        try:
            raw = self._predict(payload)
        except Exception as error:  # noqa: BLE001 - raised again by the stand-in
            # MLflow words the refusal: it parses the body and then meets the error that was met here. The model is not asked twice.
            return self._long_way(body, JSON, _Raises(self._model.metadata, error))
        predictions = _get_jsonable_obj(raw, pandas_orient="records")
        return Answer(200, JSON, json.dumps({"predictions": predictions}, cls=NumpyEncoder).encode())

    def _predict(self, payload: Payload) -> Any:
        """What PyFuncModel.predict does after it has enforced the schema of the frame."""
        with set_prediction_context(Context(model_id=self._model.model_id)):
            params = _enforce_params_schema(payload.params, self._params_schema)
            if self._takes_params:
                return self._model._predict_fn(payload.frame, params=params)
            return self._model._predict_fn(payload.frame)

    def _long_way(self, body: bytes, content_type: str | None, model: Any) -> Answer:
        # Without the header MLflow's server fails with 500, and so does this: the judge compares two arms that met the same request.
        result = scoring_server.invocations(body, content_type, model, self._schema)
        media_type = TEXT if result.mimetype == "text/plain" else result.mimetype
        return Answer(result.status, media_type, result.response.encode())


class _Raises:
    """Stands in for a model whose prediction has already failed."""

    def __init__(self, metadata: Any, error: Exception) -> None:
        self.metadata = metadata
        self._error = error

    def predict(self, data: Any, params: Any = None) -> Any:
        raise self._error


def load_scorer(directory: Path) -> Scorer:
    """
    Loads the model of an artifact directory and lets it answer its own input example once.

    Raises:
        ArtifactError: it does not load, or does not answer its example with 200.
    """
    # MLflow's warnings repeat for every request that carries an extra column; its errors reach the client anyway.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # MLflow's own server sets it; models with type hints behave differently without.
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
    try:
        with warnings.catch_warnings(record=True) as caught:
            model = load_model(str(directory), suppress_warnings=True)
        example = model.metadata.get_serving_input(str(directory))
        scorer = Scorer(model)
    except Exception as error:
        # Unpickling runs whatever the artifact holds: any exception can come out, and each means the same.
        raise ArtifactError(f"the model in {directory} does not load: {_one_line(error)}; log the model version again") from error
    if example is not None and (answer := scorer.rehearse(example.encode())).status != 200:
        text = " ".join(answer.body.decode().split())[:300]
        raise ArtifactError(f"the model in {directory} answers its own input example with {answer.status}, 200 was wanted: {text}")
    for warning in caught:
        log.warning("while loading: %s", " ".join(str(warning.message).split())[:200])
    return scorer


def fetch_artifact(uri: str, directory: Path) -> Path:
    """
    Copies the artifact behind an MLflow URI (models:/, runs:/, s3://, file://) below `directory` and returns its path.

    Raises:
        ArtifactError: it cannot be fetched.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(directory)))
    except Exception as error:
        # Every store has its own client and exceptions; for the server they mean one thing.
        raise ArtifactError(f"{uri} cannot be fetched: {_one_line(error)}; check the URI and MLFLOW_TRACKING_URI") from error


def _builder_for(model: PyFuncModel) -> FrameBuilder | None:
    """The short way for this model, or None: only for named columns of plain types, without what MLflow does per request for agents."""
    metadata, schema = model.metadata, model.metadata.get_input_schema()
    if type(model) is not PyFuncModel or schema is None or not schema.has_input_names():
        return None
    if metadata._is_signature_from_type_hint() or metadata._is_type_hint_from_example():
        return None
    if "dependencies_schemas" in (metadata.metadata or {}):
        return None
    columns = schema.inputs
    if not all(isinstance(column, ColSpec) and isinstance(column.type, DataType) for column in columns):
        return None
    kinds = {column.name: column.type.name for column in columns}
    return FrameBuilder(kinds) if len(kinds) == len(columns) and all(map(FrameBuilder.knows, kinds.values())) else None


def _refusal(error: MlflowException) -> Answer:
    """
    MLflow's JSON body and status without its stack trace.

    Only what the model raised is logged, and what ends in a 5xx: bad input is the client's affair.
    """
    stack_trace = error.json_kwargs.pop("stack_trace", None)
    status = error.get_http_status_code()
    if stack_trace is not None or status >= 500:
        log.error("prediction answered %d: %s", status, _one_line(error.__cause__ or error.__context__ or error))
    return Answer(status, JSON, error.serialize_as_json().encode())


def _one_line(error: BaseException) -> str:
    """Type, beginning of the message and place of an exception, for logs and errors of one line."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" ({Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno})" if frame is not None else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"
