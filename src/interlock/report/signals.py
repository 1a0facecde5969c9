"""What the judge saw of each signal at one look: numbers for a table of the workflow's, sentences for the report's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interlock.report.numerals import NOTHING, Record, bounds, count, finite, kind_of, of_line, short
from interlock.report.timeline import name_of, signals_of

LOOKS = frozenset({"tick", "final look"})
TWO_SIDED = frozenset({"bias"})  # their limit bounds the value on either side
BROKEN = "SPLIT_BROKEN"  # how the reason of a sample ratio begins when it voids every verdict
_LINES = {"e_value", "halting_e_value", "breaks_at_e_value"}
_NUMBERS = _LINES | {"value", "limit", "sample_count", "low", "high", "more_requests_needed", "recent_value"}
KNOWN_FIELDS = _NUMBERS | {"name", "unit", "is_usable", "is_proved", "reason", "decides"}
UNTEMPERED = ("design_effect", 1.0)  # nothing was done to the evidence: not worth a line
TABLE_DIGITS = 5


@dataclass(frozen=True, slots=True)
class SignalRow:
    """
    One signal as the report says it.

    line, line_label: where its e-value halts, or voids every verdict. tone: good, warn, bad or calm.
    is_alarming: it could not be judged, or it voids every verdict. more: what newer judges record beside the known fields.
    """

    name: str
    value: str
    lately: str
    limit: str
    unit: str
    sample_count: str
    bounds: str
    e_value: str
    line: str
    line_label: str
    of_line: str
    proof: str
    tone: str
    reason: str
    is_over: bool
    is_alarming: bool
    has_reached: bool
    has_decided: bool
    more: tuple[tuple[str, Any], ...]


def last_judged(records: Sequence[Record]) -> Record | None:
    """The last tick or final look at which signals were judged; None when there was none."""
    return next((record for record in reversed(records) if kind_of(record) in LOOKS and signals_of(record)), None)


def signal_table(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The signals at the last look as rows of plain numbers, five significant digits; None where nothing was read."""
    return [
        {
            "signal": name_of(signal),
            "value": _rounded(signal.get("value")),
            "limit": _rounded(signal.get("limit")),
            "unit": str(signal.get("unit") or ""),
            "n": signal.get("sample_count"),
            "low": _rounded(signal.get("low")),
            "high": _rounded(signal.get("high")),
            "e_value": _rounded(signal.get("e_value")),
            "halts_at": _rounded(signal.get("halting_e_value")),
            "breaks_at": _rounded(signal.get("breaks_at_e_value")),
            "more_requests_needed": signal.get("more_requests_needed"),
            "reason": str(signal.get("reason") or ""),
        }
        for signal in signals_of(last_judged(records) or {})
    ]


def signal_rows(look: Record) -> list[SignalRow]:
    """The signals of one look, in words. What could not be judged says so loudly; so does what is past its halting line."""
    return [_row(signal, decided_by=str(look.get("decided_by") or "")) for signal in signals_of(look)]


def is_broken(signal: Record) -> bool:
    """Whether this signal voids every verdict: the split served is not the one asked for."""
    e_value, breaks_at = finite(signal.get("e_value")), finite(signal.get("breaks_at_e_value"))
    return str(signal.get("reason")).startswith(BROKEN) or (e_value is not None and breaks_at is not None and e_value >= breaks_at)


def is_over(signal: Record) -> bool:
    """Whether the value, since the start or lately, is beyond its limit."""
    limit, numbers = finite(signal.get("limit")), (finite(signal.get(field)) for field in ("value", "recent_value"))
    sized = (number if number is None or name_of(signal) not in TWO_SIDED else abs(number) for number in numbers)
    return limit is not None and any(number is not None and number > limit for number in sized)


def _row(signal: Record, *, decided_by: str) -> SignalRow:
    value, limit, e_value, line = (finite(signal.get(field)) for field in ("value", "limit", "e_value", "halting_e_value"))
    breaks_at, broken = finite(signal.get("breaks_at_e_value")), is_broken(signal)
    has_halted = e_value is not None and line is not None and e_value >= line
    proof, tone = ("past its halting line", "bad") if has_halted else _proof(signal)
    recent, voids = finite(signal.get("recent_value")), line is None and breaks_at is not None
    return SignalRow(
        name=name_of(signal),
        value=short(value),
        lately="" if recent is None or short(recent) == short(value) else f"{short(recent)} lately",
        limit=NOTHING if limit is None else f"{'±' if name_of(signal) in TWO_SIDED else '≤'} {short(limit)}",
        unit=str(signal.get("unit") or ""),
        sample_count=count(signal.get("sample_count")),
        bounds=bounds(signal.get("low"), signal.get("high")),
        e_value=short(e_value),
        line=f"voids all at {short(breaks_at)}" if voids else short(line),
        line_label="Line" if voids else "Halts alone at",
        of_line=of_line(e_value, breaks_at if voids else line),
        proof=proof,
        tone=tone,
        reason=("since the start: " if has_halted and signal.get("is_proved") is True else "") + str(signal.get("reason") or ""),
        is_over=is_over(signal),
        is_alarming=broken or signal.get("is_usable") is False,
        has_reached=has_halted or broken,
        has_decided=name_of(signal) == decided_by,
        more=tuple((str(key), value) for key, value in signal.items() if key not in KNOWN_FIELDS and (key, value) != UNTEMPERED),
    )


def _proof(signal: Record) -> tuple[str, str]:
    """What is known of "within tolerance", and its tone."""
    if signal.get("is_usable") is False:
        return "NOT USABLE", "bad"
    if is_broken(signal):
        return "BROKEN: it voids every verdict", "bad"
    if signal.get("decides") is False:
        return "only shown, does not decide", "calm"
    if signal.get("is_proved") is True:
        return ("proved", "good") if finite(signal.get("breaks_at_e_value")) is None else ("as asked", "good")
    if (more := finite(signal.get("more_requests_needed"))) is not None:
        return f"about {more:,.0f} more requests needed", "warn"
    if "more_requests_needed" in signal:
        return "more requests lead nowhere", "warn"
    return "not recorded", "warn"


def _rounded(value: object) -> float | None:
    return None if (number := finite(value)) is None else float(f"{number:.{TABLE_DIGITS}g}")
