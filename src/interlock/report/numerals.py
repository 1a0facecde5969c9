"""Numbers and times as people read them. What is no finite number is a dash, never a zero."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Record = Mapping[str, Any]
NOTHING = "–"


def finite(value: object) -> float | None:
    """The number, or None for everything else: text, yes/no, NaN, an infinity, nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON has whole numbers of any length
        return None
    return number if math.isfinite(number) else None


def kind_of(record: Record) -> str:
    """What the record is about, as text, whatever was recorded."""
    return str(record.get("kind", "unnamed"))


def parts_of(value: object) -> list[Record]:
    """The records within a list of a record; none when there is no list."""
    return [part for part in value if isinstance(part, Mapping)] if isinstance(value, list | tuple) else []


def short(value: object) -> str:
    """Four significant digits, thousands apart; text stays as it is."""
    if isinstance(value, str):
        return value
    if (number := finite(value)) is None:
        return NOTHING
    if number and not 1e-4 <= abs(number) < 1e7:
        return f"{number:.3g}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def bounds(low: object, high: object) -> str:
    """Confidence bounds; a side that is not bounded yet is left open."""
    if finite(low) is None and finite(high) is None:
        return NOTHING
    if finite(high) is None:
        return f"≥ {short(low)}"
    return f"≤ {short(high)}" if finite(low) is None else f"{short(low)} to {short(high)}"


def count(value: object) -> str:
    """A whole number, thousands apart."""
    return NOTHING if (number := finite(value)) is None else f"{number:,.0f}"


def weight(bps: object) -> str:
    """Basis points as percent."""
    return NOTHING if (number := finite(bps)) is None else f"{number / 100:g} %"


def of_line(e_value: object, halting_line: object) -> str:
    """An e-value as percent of its halting line, or how many times the line it is."""
    evidence, line = finite(e_value), finite(halting_line)
    if evidence is None or not line or line < 0:
        return NOTHING
    share = evidence / line
    if share >= 10:
        return f"{share:.3g} × the line" if share >= 1000 else f"{share:.0f} × the line"
    return f"{100 * share:.3g} %" if share >= 1e-4 or not share else "< 0.01 %"


def seconds_of(record: Record | None) -> float | None:
    """When the record was written, as seconds since 1970; None when it does not say."""
    try:
        at = datetime.fromisoformat(str((record or {}).get("at")))
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def moment(record: Record | None) -> str:
    """When the record was written: date and second, UTC."""
    if (at := seconds_of(record)) is None:
        return NOTHING
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # in the first or last hours that a calendar has: in UTC it lies beyond them
        return NOTHING


def duration(seconds: float | None) -> str:
    """`8 s`, `3 min 14 s`, `2 h 5 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def on_axis(seconds: float) -> str:
    """`3:14`, or `2:05:00` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
