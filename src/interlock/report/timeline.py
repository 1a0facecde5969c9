"""The ticks of a release on one time axis: phases, the halt, and the numbers of each signal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.report.numerals import Record, finite, parts_of, seconds_of

Floats = NDArray[np.float64]
FIELDS = ("value", "recent_value", "low", "high", "limit", "e_value", "halting_e_value", "breaks_at_e_value")
PHASE_UNKNOWN = "phase unknown"


@dataclass(frozen=True, slots=True)
class Band:
    """One phase on the time axis, from its first tick to the first of the next one."""

    name: str
    from_seconds: float
    to_seconds: float


@dataclass(frozen=True, slots=True)
class SignalSeries:
    """One signal, tick by tick: shape (ticks,), NaN where a tick does not say. `decides`: False when no tick let it count."""

    name: str
    unit: str
    decides: bool
    fields: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    What the charts draw. `seconds` counts from the first tick, never backwards.

    total, halting_line: the weighted sum of the e-values and where it halts; NaN where the judge judged nothing.
    """

    seconds: Floats
    bands: tuple[Band, ...]
    halted_at_seconds: float | None
    total: Floats
    halting_line: Floats
    signals: tuple[SignalSeries, ...]


def read_timeline(ticks: Sequence[Record]) -> Timeline:
    """The ticks as arrays. A tick that lacks a field has NaN there; a signal is known from the first tick that names it."""
    seconds = _seconds(ticks)
    judged = [tick if signals_of(tick) else {} for tick in ticks]  # the plane halted by itself: its zeros are no evidence
    halts = [second for second, tick in zip(seconds, ticks, strict=True) if tick.get("outcome") == "HALT"]
    return Timeline(
        seconds=seconds,
        bands=_bands(ticks, seconds),
        halted_at_seconds=float(halts[0]) if halts else None,
        total=_column(judged, "e_value"),
        halting_line=_column(judged, "halting_line"),
        signals=_signals(ticks),
    )


def signals_of(record: Record) -> list[Record]:
    """The readings that a tick or a final look holds; none when there is no list of them."""
    return parts_of(record.get("signals"))


def name_of(signal: Record) -> str:
    """The signal's name as text, whatever was recorded."""
    return str(signal.get("name", "unnamed"))


def phase_of(tick: Record) -> str:
    """The phase's name as text."""
    return str(tick.get("phase") or PHASE_UNKNOWN)


def _seconds(ticks: Sequence[Record]) -> Floats:
    """Seconds since the first tick; a second a tick where the records do not tell the times apart."""
    at = [seconds_of(tick) for tick in ticks]
    known = [second for second in at if second is not None]
    if len(known) < len(at) or len(at) < 2 or max(known) <= min(known):
        return np.arange(len(ticks), dtype=np.float64)
    return np.maximum.accumulate(np.array(known) - known[0])


def _bands(ticks: Sequence[Record], seconds: Floats) -> tuple[Band, ...]:
    starts = [i for i, tick in enumerate(ticks) if i == 0 or phase_of(tick) != phase_of(ticks[i - 1])]
    ends = [*starts[1:], len(ticks) - 1][: len(starts)]
    return tuple(Band(phase_of(ticks[i]), float(seconds[i]), float(seconds[j])) for i, j in zip(starts, ends, strict=True))


def _signals(ticks: Sequence[Record]) -> tuple[SignalSeries, ...]:
    columns: dict[str, dict[str, Floats]] = {}
    units: dict[str, str] = {}
    deciding: set[str] = set()
    for i, tick in enumerate(ticks):
        for signal in signals_of(tick):
            name = name_of(signal)
            fields = columns.setdefault(name, {field: np.full(len(ticks), np.nan) for field in FIELDS} if name not in columns else {})
            units[name] = str(signal.get("unit") or "")
            if signal.get("decides") is not False:
                deciding.add(name)
            for field in FIELDS:
                if (number := finite(signal.get(field))) is not None:
                    fields[field][i] = number
    return tuple(SignalSeries(name, units[name], name in deciding, fields) for name, fields in columns.items())


def _column(ticks: Sequence[Mapping[str, Any]], field: str) -> Floats:
    numbers = (finite(tick.get(field)) for tick in ticks)
    return np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)


def kept_ticks(seconds: Floats, series: Sequence[Floats], *, columns: int) -> NDArray[np.intp]:
    """
    Which ticks a picture `columns` pixels wide needs: of each column the first, the last, and the extremes of every series.

    Args:
        seconds: shape (ticks,), growing. series: each of shape (ticks,); NaN is no extreme.
    """
    if len(seconds) <= 2 * columns:
        return np.arange(len(seconds))
    width = max(float(seconds[-1] - seconds[0]), 1e-9) / columns
    starts = np.unique(np.searchsorted(seconds, seconds[0] + width * np.arange(columns)))
    kept = {0, len(seconds) - 1}
    for first, end in zip(starts, [*starts[1:], len(seconds)], strict=True):
        kept |= {int(first), int(end) - 1}
        for values in series:
            part = values[first:end]
            if not np.isnan(part).all():
                kept |= {int(first + np.nanargmin(part)), int(first + np.nanargmax(part))}
    return np.array(sorted(kept), dtype=np.intp)
