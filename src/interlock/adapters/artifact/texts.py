"""Text files of a model version: whether they are what their names claim, and what the schemas among them name."""

import ast
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from interlock.model.artifact import Name

MLMODEL = "MLmodel"
PLAIN_YAML = {MLMODEL, "conda.yaml", "python_env.yaml"}  # MLflow and this gate read them, and MLflow writes no aliases
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_plain_yaml(text: str) -> Any:
    """
    Parsed without aliases and merge keys, a few lines of which make a mapping that takes for ever.

    Raises:
        yaml.YAMLError: it is not YAML, or it has one of these.
    """
    for event in yaml.parse(text, Loader=_Loader):
        if getattr(event, "anchor", None) or (isinstance(event, yaml.ScalarEvent) and event.value == "<<"):
            raise yaml.YAMLError("anchors, aliases and merge keys are not read: write the values out")
    return yaml.load(text, Loader=_Loader)


def what_is_wrong_with(name: str, text: str) -> str:
    """Why the text is not what its name claims; "" when it is, or claims nothing."""
    try:
        if name.endswith(".py"):
            ast.parse(text)
        elif name.endswith(".json"):
            json.loads(text)
        elif PurePosixPath(name).name in PLAIN_YAML:
            read_plain_yaml(text)
        elif name.endswith((".yaml", ".yml")):
            yaml.load(text, Loader=_Loader)
    except (SyntaxError, ValueError, RecursionError, MemoryError, yaml.YAMLError) as error:
        return f"it is not what its name says, {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return ""


def names_in_text(name: str, text: str) -> tuple[Name, ...]:
    """
    What loading would import because a text says so: the types in the schema of a skops archive.

    What MLmodel names is read by `mlmodel`.
    """
    try:
        if name.endswith("!schema.json"):
            return tuple(sorted(set(_types(json.loads(text)))))
    except (ValueError, RecursionError):
        return ()  # said by `what_is_wrong_with`
    return ()


def _types(schema: Any) -> Iterator[Name]:
    if isinstance(schema, dict):
        if "__class__" in schema:
            yield Name(str(schema.get("__module__")), str(schema["__class__"]))
        if {"module_path", "function"} <= schema.keys():
            yield Name(str(schema["module_path"]), str(schema["function"]))
        for value in schema.values():
            yield from _types(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _types(value)
