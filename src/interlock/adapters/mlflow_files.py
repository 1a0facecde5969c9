"""Model files fetched from MLflow, kept in a directory named by their digest."""

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from interlock.errors import ArtifactError, ServiceUnavailable
from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.model.signature import ModelOutput

# numpy's kinds of numbers and texts in the words of a signature's columns.
_TENSOR_ITEMS = {"f": "double", "i": "long", "u": "long", "b": "boolean", "U": "string", "S": "string", "O": "string"}


class MlflowFiles:
    """Local, digest-named copies of model versions: what is judged, loaded and served is one and the same directory."""

    def __init__(self, tracking_url: str, models_directory: Path) -> None:
        self._tracking_url = tracking_url
        self._models = models_directory

    def fetch(self, name: str, version: str) -> tuple[ModelVersion, Path]:
        """
        Download the version's files and pin them by digest. Idempotent.

        Raises:
            ArtifactError: there are no files, no MLmodel, or no signature.
            ServiceUnavailable: MLflow does not deliver them, or this machine has no room for them.
        """
        try:
            return self._fetch(name, version)
        except OSError as error:  # our disk, not the model version: research has nothing to mend
            why = error.strerror or _first_sentence(error)
            raise ServiceUnavailable(f"{name}/{version} cannot be kept in {self._models} ({why}): free space, or try again") from error

    def _fetch(self, name: str, version: str) -> tuple[ModelVersion, Path]:
        with tempfile.TemporaryDirectory(dir=self._models, prefix=".fetch-") as scratch:
            downloaded = self._download(name, version, Path(scratch))
            _require_signature(downloaded, f"{name}/{version}")
            pinned = ModelVersion(name, version, artifact_digest(downloaded))
            target = self.directory(pinned)
            if not target.exists():
                shutil.move(downloaded, target)
        if artifact_digest(target) != pinned.digest:
            raise ArtifactError(f"the local copy of {pinned.label} in {target} was changed since it was fetched: delete that directory")
        return pinned, target

    def read_digest(self, version: ModelVersion, *, between: Callable[[], None]) -> str:
        """
        The digest of a fetched version's files as they are now. Nothing is cached: times of files can be set by whoever changes them.

        Raises:
            ArtifactError: they cannot be read.
        """
        return artifact_digest(self.directory(version), between=between)

    def directory(self, version: ModelVersion) -> Path:
        """Where a fetched version lies."""
        return self._models / version.digest.removeprefix("sha256:")

    def read_outputs(self, version: ModelVersion) -> tuple[ModelOutput, ...]:
        """
        What a fetched version answers by its signature, in its order.

        Raises:
            ArtifactError: there is no MLmodel, no signature, or MLflow cannot read it.
        """
        directory = self.directory(version)
        signature = _require_signature(directory, version.label)
        from mlflow.types.schema import Schema

        try:
            return tuple(_output(spec) for spec in Schema.from_json(signature["outputs"]))
        except Exception as error:  # MLflow's parser raises whatever it meets, and each means the same
            why = f"{type(error).__name__}: {_first_sentence(error)}"
            raise ArtifactError(f"the outputs in the signature of {version.label} cannot be read ({why}): log the model again") from error

    def read_input_kinds(self, version: ModelVersion) -> dict[str, str]:
        """
        The columns that a fetched version wants by its signature and MLflow's word for the type of each, in its order; empty without names.

        Raises:
            ArtifactError: there is no MLmodel, no signature, or it cannot be read.
        """
        signature = _require_signature(self.directory(version), version.label)
        try:
            specs = [(spec.get("name"), str(spec.get("type"))) for spec in json.loads(signature["inputs"])]
        except (ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"the inputs in the signature of {version.label} cannot be read: log the model again") from error
        return {str(name): kind for name, kind in specs} if all(name is not None for name, _ in specs) else {}

    def _download(self, name: str, version: str, scratch: Path) -> Path:
        os.environ.setdefault("DO_NOT_TRACK", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes before it says that MLflow is down
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(self._tracking_url)  # `tracking_uri=` of the download does not reach the registry that `models:/` asks
        mlflow.set_registry_uri(self._tracking_url)
        try:
            path = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=str(scratch / "files"))
        except MlflowException as error:
            if "API request" in str(error) and "failed with exception" in str(error):
                raise ServiceUnavailable(f"MLflow at {self._tracking_url} does not deliver {name}/{version}: is it up?") from error
            if (full := os.strerror(errno.ENOSPC)) in str(error):
                raise OSError(errno.ENOSPC, full) from error
            raise ArtifactError(f"{name}/{version} has no artifacts that can be downloaded: {_first_sentence(error)}") from error
        except FileNotFoundError as error:
            raise ArtifactError(f"{name}/{version} cannot be downloaded: {_first_sentence(error)}") from error
        return Path(path)


def _require_signature(directory: Path, label: str) -> Mapping[str, Any]:
    """The signature in a version's MLmodel, with inputs and outputs. ArtifactError when it has none."""
    import yaml

    signature: Any = None
    try:
        described = yaml.safe_load((directory / "MLmodel").read_text())
        signature = described["signature"]
        complete = bool(signature["inputs"]) and bool(signature["outputs"])
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ArtifactError(f"{label} has no readable MLmodel file: log the model again ({type(error).__name__})") from error
    except (KeyError, TypeError):
        complete = False
    if not complete:
        raise ArtifactError(f"{label} has no signature with inputs and outputs: log the model with mlflow.models.infer_signature")
    found: Mapping[str, Any] = signature
    return found


def _output(spec: Any) -> ModelOutput:
    """One output out of MLflow's ColSpec or TensorSpec."""
    name = str(spec.name) if spec.name is not None else ""
    if (shape := getattr(spec, "shape", None)) is not None:
        return ModelOutput(name, "tensor", _TENSOR_ITEMS.get(spec.type.kind, "any"), tuple(int(size) for size in shape))
    kind = _kind(spec.type)
    return ModelOutput(name, kind, _kind(spec.type.dtype) if kind == "array" else "")


def _kind(kind: Any) -> str:
    """MLflow's type in one word: of its DataType the name, of its composed types what they are."""
    if isinstance(kind, Enum):
        return kind.name
    return {"Array": "array", "Object": "object", "Map": "object"}.get(type(kind).__name__, "any")


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
