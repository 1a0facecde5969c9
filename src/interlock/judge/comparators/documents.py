"""JSON documents: the share of fields that differ; a document that lacks a required field is no answer."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from interlock.errors import PolicyError
from interlock.judge.comparators.answers import MAX_DEPTH, ONE_VALUE_A_ROW, Compare, Layout, Row, comparator_of, decode

_Path = tuple[str | int, ...]


class FieldType(StrEnum):
    """What a required field must hold, in the words of JSON Schema."""

    STRING = "string"
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ARRAY = "array"
    OBJECT = "object"


def document_comparator(required_fields: Mapping[str, str], *, layout: Layout = ONE_VALUE_A_ROW) -> Compare:
    """
    D is the share of fields, of all that either document has, whose values differ. A list's items are fields by their position.

    A row is an object, or text that holds one, bare or as a record's only field. `required_fields` maps a field of the document to its
    type: an object without it is unusable, D = 1 from the candidate and no evidence from the incumbent. Raises PolicyError for an unknown
    type.
    """
    try:
        wanted = {name: FieldType(kind) for name, kind in required_fields.items()}
    except ValueError as error:
        raise PolicyError(f"{error}: a required field is one of {', '.join(FieldType)}") from error

    def read(value: Any) -> Row | None:
        document = next((one for one in _documents(value) if _has(wanted, one)), None)
        if document is None:
            return None
        fields: dict[_Path, Any] = {}
        _collect(document, (), fields)
        return Row("document", fields)

    return comparator_of(read, _differing_share, layout=layout, has_columns=False)


def _documents(row: Any) -> list[dict[str, Any]]:
    """
    What may be the object in a row, the likelier one first.

    It is the row, or the text that the row is. A record whose only field is text that holds an object is that object (a frame with one
    column of texts), or a document itself, whose one field happens to hold JSON.
    """
    if isinstance(row, str):
        row = decode(row)
    if not isinstance(row, dict):
        return []
    only = next(iter(row.values())) if len(row) == 1 else None
    inner = _parsed(only) if isinstance(only, str) else None
    return [row] if inner is None else [inner, row]


def _has(wanted: Mapping[str, FieldType], document: Mapping[str, Any]) -> bool:
    return all(name in document and _is(kind, document[name]) for name, kind in wanted.items())


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is(kind: FieldType, value: Any) -> bool:
    match kind:
        case FieldType.STRING:
            return isinstance(value, str)
        case FieldType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FieldType.INTEGER:
            return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.ARRAY:
            return isinstance(value, list)
        case FieldType.OBJECT:
            return isinstance(value, dict)


def _collect(value: Any, path: _Path, fields: dict[_Path, Any]) -> None:
    """Every leaf by its path. An empty object or list is a leaf, and so is null. Raises ValueError for infinity and endless nesting."""
    if len(path) > MAX_DEPTH or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("not a document that can be compared")
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _collect(item, (*path, key), fields)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            _collect(item, (*path, index), fields)
    else:
        fields[path] = value


def _differing_share(incumbent: Mapping[_Path, Any], candidate: Mapping[_Path, Any]) -> float:
    paths = incumbent.keys() | candidate.keys()
    differing = sum(path not in incumbent or path not in candidate or _differ(incumbent[path], candidate[path]) for path in paths)
    return differing / len(paths)


def _differ(one: Any, other: Any) -> bool:
    """1 and 1.0 are one number; true is none."""
    return isinstance(one, bool) is not isinstance(other, bool) or bool(one != other)
