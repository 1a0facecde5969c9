"""The rows in one request body of MLflow's scoring protocol, as columns. Reads what a model server has answered well; refuses nobody."""

import csv
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pandas as pd

Columns = Mapping[str, Sequence[Any]]


class NotUnderstood(Exception):
    """No rows can be read out of it."""


def read_columns(body: bytes, content_type: str, *, names: Sequence[str], texts: Collection[str] = ()) -> Columns:
    """
    The columns of a body, all of one length, at least one row.

    JSON in the four shapes of the protocol (dataframe_split, dataframe_records, instances, inputs), or CSV with a header. `names` are the
    columns of the signature, for values that come without: as many of them as a row is wide, else 0, 1, 2 if the signature names none.
    `texts` are those that hold text, also where it looks like a number in CSV.

    Raises:
        NotUnderstood: it is none of them, or its rows are not alike.
    """
    try:
        columns = _csv(body, texts) if content_type.startswith("text/csv") else _json(body, names)
        if len(lengths := {len(values) for values in columns.values()}) != 1 or not lengths.pop():
            raise NotUnderstood("no rows, or columns of different lengths")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, csv.Error) as error:
        raise NotUnderstood(f"{type(error).__name__}: {error}") from error
    return columns


def _csv(body: bytes, texts: Collection[str]) -> Columns:
    frame = pd.read_csv(io.BytesIO(body), index_col=False, dtype=dict.fromkeys(texts, str))
    return {str(name): frame[name].tolist() for name in frame.columns}


def _json(body: bytes, names: Sequence[str]) -> Columns:
    decoded = json.loads(body)
    if not isinstance(decoded, dict):
        raise NotUnderstood("not an object")
    found = [(read, decoded[name]) for name, read in _SHAPES.items() if name in decoded]
    if len(found) != 1:
        raise NotUnderstood(f"{len(found)} of {', '.join(_SHAPES)}, wanted one")
    read, content = found[0]
    return read(content, names)


def _split(content: Any, names: Sequence[str]) -> Columns:
    return _matrix(content["data"], content.get("columns") or names)


def _records(content: Any, names: Sequence[str]) -> Columns:
    del names
    if not (isinstance(content, list) and all(isinstance(row, dict) for row in content)):
        raise NotUnderstood("records are not a list of objects")
    keys = list(dict.fromkeys(key for row in content for key in row))
    return {key: [row.get(key) for row in content] for key in keys}


def _instances(content: Any, names: Sequence[str]) -> Columns:
    if not isinstance(content, list):
        raise NotUnderstood("instances are not a list")
    if all(isinstance(row, dict) for row in content):
        return _records(content, names)
    return _matrix([row if isinstance(row, list) else [row] for row in content], names)


def _inputs(content: Any, names: Sequence[str]) -> Columns:
    if not isinstance(content, dict):
        return _instances(content, names)
    if any(isinstance(values, list) for values in content.values()):
        return {name: values if isinstance(values, list) else [values] for name, values in content.items()}
    return {name: [value] for name, value in content.items()}


def _matrix(rows: Any, names: Sequence[Any]) -> Columns:
    widths = {len(row) for row in rows if isinstance(row, list)}
    if not all(isinstance(row, list) for row in rows) or len(widths) != 1:
        raise NotUnderstood("rows are not lists of one width")
    width = widths.pop()
    named = [str(name) for name in names] or [str(position) for position in range(width)]
    if len(named) != width or len(set(named)) != width:
        raise NotUnderstood(f"rows of {width} values for {len(named)} columns")
    return dict(zip(named, map(list, zip(*rows, strict=True)), strict=True))


_SHAPES: Mapping[str, Callable[[Any, Sequence[str]], Columns]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}
