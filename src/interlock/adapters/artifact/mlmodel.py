"""
What MLmodel tells MLflow to import and to open: all of it must lie within the version, and be what its loader can read without running it.

MLflow joins these paths to the version's directory as they are; one that leaves it reaches files that no gate has read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from interlock.adapters.artifact.texts import MLMODEL, read_plain_yaml
from interlock.model.artifact import FileReading, Name

# Loaders that make objects of one data file: a pickle or skops archive, which is read name by name, or a format of numbers.
DATA_LOADERS = {"mlflow.sklearn", "mlflow.statsmodels", "mlflow.xgboost", "mlflow.lightgbm"}
# Loaders that run the version's own Python, or a pickle of it: one of both must be there, so that it was scanned.
CODE_LOADERS = {"mlflow.pyfunc.model", "mlflow.pyfunc.loaders.code_model"}
MODEL_KEYS = {"model_path", "pickled_model", "python_model", "data", "model_data"}
PATH_KEYS = MODEL_KEYS | {"path", "env", "conda", "virtualenv", "artifact_path", "serving_input_path"}
CODE_DIRECTORY = "code"  # the only name that MLflow gives it
NEVER_OPENED = {"uri"}  # where the file once came from
MODEL_KINDS = {"pickle", "array", "archive", "packed"}
TEXT_LOADERS = {"mlflow.xgboost": "", "mlflow.lightgbm": "lightgbm.basic.Booster"}  # with the only class that is not a pickle; "": any


def names_in_mlmodel(described: Any) -> set[Name]:
    """What loading would import or call because MLmodel says so: loaders but for the known ones, and the classes of models."""
    names = set[Name]()
    for flavor in _flavors(described).values():
        if isinstance(flavor, dict):
            module = str(flavor.get("loader_module") or "")
            if module and module not in DATA_LOADERS | CODE_LOADERS:
                names.add(Name(module, "_load_pyfunc", "called"))
            if flavor.get("model_class"):
                module, _, name = str(flavor["model_class"]).rpartition(".")
                names.add(Name(module, name, "called"))
    return names


def misleading_mlmodels(directory: Path, kinds: Mapping[str, str]) -> Iterator[FileReading]:
    """Every way in which an MLmodel file leads out of the version, or to what its loader would run. kinds: of every file, by its path."""
    for name in kinds:
        if PurePosixPath(name).name == MLMODEL:
            try:
                described = read_plain_yaml((directory / name).read_text(encoding="utf-8"))
                reasons = list(_Directions(described, PurePosixPath(name).parent, kinds).wrong())
            except (OSError, ValueError, RecursionError, yaml.YAMLError):
                continue  # refused already, as what it is
            yield from (FileReading(name, "text", reason) for reason in reasons)


def _flavors(described: Any) -> dict[Any, Any]:
    flavors = described.get("flavors") if isinstance(described, dict) else None
    return flavors if isinstance(flavors, dict) else {}


class _Directions:
    """One MLmodel file and the files that lie beside it."""

    def __init__(self, described: Any, base: PurePosixPath, kinds: Mapping[str, str]) -> None:
        self._described, self._base, self._kinds = described, base, kinds
        self._directories = {parent for name in kinds for parent in PurePosixPath(name).parents}
        pyfunc = _flavors(described).get("python_function")
        self._pyfunc: dict[Any, Any] = pyfunc if isinstance(pyfunc, dict) else {}
        self._loader = str(self._pyfunc.get("loader_module") or "")

    def wrong(self) -> Iterator[str]:
        """Why this file is refused; nothing when it is not."""
        example = self._described.get("saved_input_example_info") if isinstance(self._described, dict) else None
        for key, value in (*_leaves(_flavors(self._described)), *_leaves(example)):
            if reason := self._wrong_value(key, value):
                yield f"{key} is {str(value)[:80]!r}, {reason}: log the model again"
        if self._loader in CODE_LOADERS and not {"model_code_path", "python_model"} & self._pyfunc.keys():
            yield f"{self._loader} runs code, and no model_code_path or python_model says which: log the model again"

    def _wrong_value(self, key: str, value: Any) -> str:
        if value is None:
            return ""
        if key == "model_code_path":  # MLflow takes the last part of where the file once was
            path = self._base / PurePosixPath(str(value)).name
            return "" if str(path) in self._kinds and path.suffix == ".py" else "and no Python file of that name came with the version"
        if key == CODE_DIRECTORY:
            return "" if value == CODE_DIRECTORY and self._base / value in self._directories else "which is not the version's own code/"
        if key not in PATH_KEYS:
            return "which leads out of the version" if isinstance(value, str) and _leads_out(value) else ""
        if not isinstance(value, str) or _leads_out(value) or not self._is_there(value):
            return "which is no file of the version"
        return self._wrong_model(value) if key in MODEL_KEYS else ""

    def _is_there(self, value: str) -> bool:
        return str(self._base / value) in self._kinds or (self._base / value in self._directories and value.strip("./") != "")

    def _wrong_model(self, value: str) -> str:
        kind = self._kinds.get(str(self._base / value))
        if kind is None or kind in MODEL_KINDS or (kind == "text" and self._loads_text()):
            return ""
        return f"whose content is {kind}, and not what a model is stored as"

    def _loads_text(self) -> bool:
        flavor = _flavors(self._described).get(self._loader.rpartition(".")[2])
        if self._loader not in TEXT_LOADERS or not isinstance(flavor, dict):
            return False
        wanted = TEXT_LOADERS[self._loader]
        return not wanted or flavor.get("model_class", wanted) == wanted


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of everything that is no mapping and no list; the model's own configuration is for its code to read."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in NEVER_OPENED and not (name == "model_config" and isinstance(inner, dict)):
                yield from _leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _leads_out(value: str) -> bool:
    return value.startswith(("/", "~", "\\")) or ".." in value.replace("\\", "/").split("/") or "://" in value
