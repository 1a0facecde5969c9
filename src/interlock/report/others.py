"""Records that the report has no section for, and fields that its sections do not show: key and value, so that nothing is hidden."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interlock.report.numerals import NOTHING, Record, kind_of, moment

_ENVELOPE = {"seq", "at", "kind"}
SHOWN_ELSEWHERE: Mapping[str, set[str]] = {
    "intake": {"candidate", "incumbent", "profile_name", "profile_digest", "profile_text"},
    "gate": {"gate", "outcome", "reason", "measurements"},
    "phase": {"phase", "weight_bps", "bake_seconds"},
    "tick": {"phase", "weight_bps", "outcome", "reason", "decided_by", "signals", "e_value", "halting_line", "is_blind"},
    "final look": {"outcome", "reason", "decided_by", "signals", "e_value", "halting_line", "is_blind"},
    "decision": {"decision", "reason"},
    "page": {"gate", "name"},
}
KEPT_OF_A_KIND = 20
LARGE_CHARACTERS = 2500  # of JSON: more is no longer read but searched, and the evidence file is better for that
NESTED_CHARACTERS = 300  # the same for lists within lists, which nobody reads
LONG_TEXT = 600
MAX_DEPTH = 2
MAX_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """One value as the page shows it: text, pairs of name and value, or a table."""

    form: Literal["text", "pairs", "table"]
    text: str = ""
    pairs: tuple[tuple[str, "Shown"], ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class OtherRecord:
    """One record; `is_large` when it is shown by the sizes of its parts."""

    at: str
    fields: tuple[tuple[str, Shown], ...]
    is_large: bool


@dataclass(frozen=True, slots=True)
class OtherKind:
    """The records of one kind, the last ones; `left_out_count` earlier ones are in the evidence only."""

    name: str
    note: str
    records: tuple[OtherRecord, ...]
    left_out_count: int


def tell_others(records: Sequence[Record]) -> list[OtherKind]:
    """Everything the other sections do not show, by kind, in the order in which the kinds first came. Of ticks the last one only."""
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        by_kind.setdefault(kind_of(record), []).append(record)
    kinds = (_kind(kind, of_kind) for kind, of_kind in by_kind.items())
    return [kind for kind in kinds if kind.records]


def _kind(kind: str, records: Sequence[Record]) -> OtherKind:
    hidden = SHOWN_ELSEWHERE.get(kind, set()) | _ENVELOPE
    kept = records[-1:] if kind == "tick" else records[-KEPT_OF_A_KIND:]
    told = [_record(record, hidden) for record in kept if kind not in SHOWN_ELSEWHERE or record.keys() - hidden]
    note = "" if kind not in SHOWN_ELSEWHERE else "the last one, what else it holds" if kind == "tick" else "what else it holds"
    return OtherKind(kind, note, tuple(told), 0 if kind == "tick" else len(records) - len(kept))


def _record(record: Record, hidden: set[str]) -> OtherRecord:
    fields = {str(key): value for key, value in record.items() if key not in hidden}
    is_large = len(_json(fields)) > LARGE_CHARACTERS
    return OtherRecord(moment(record), tuple((key, shown(value)) for key, value in fields.items()), is_large)


def shown(value: Any, *, depth: int = 0) -> Shown:
    """A value of the evidence in the form in which it is read most easily; what is large is its size."""
    if isinstance(value, Mapping | list | tuple) and value:
        if (length := len(_json(value))) > LARGE_CHARACTERS:
            return Shown("text", _size(value, length))
        if depth >= MAX_DEPTH:
            return Shown("text", _json(value))
        if isinstance(value, Mapping):
            return Shown("pairs", pairs=tuple((str(key), shown(part, depth=depth + 1)) for key, part in value.items()))
        return _list(value)
    return Shown("text", _plain(value))


def _size(value: Mapping[str, Any] | Sequence[Any], length: int) -> str:
    return f"{len(value):,} {'entries' if isinstance(value, Mapping) else 'elements'}, {length:,} characters of JSON"


def _list(values: Sequence[Any]) -> Shown:
    if all(isinstance(value, Mapping) for value in values):
        heads = list(dict.fromkeys(str(key) for value in values for key in value))
        if len(heads) <= MAX_COLUMNS:
            rows = tuple(tuple(_plain(value.get(head)) for head in heads) for value in values)
            return Shown("table", heads=tuple(heads), rows=rows)
    if any(isinstance(value, Mapping | list | tuple) for value in values):
        text = _json(values)
        return Shown("text", text if len(text) <= NESTED_CHARACTERS else _size(values, len(text)))
    return Shown("text", ", ".join(_plain(value) for value in values))


def _plain(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else _json(value)
    return text if len(text) <= LONG_TEXT else f"{text[:LONG_TEXT]}… ({len(text):,} characters)"


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, a number of thousands of digits, lists without end
        return f"({type(value).__name__} that cannot be shown)"
