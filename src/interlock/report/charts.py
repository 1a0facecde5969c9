"""The panels of a release: e-values against their halting lines, values against their limits. One drawing for report and artifact."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interlock.report.numerals import Record, bounds, on_axis, short
from interlock.report.signals import TWO_SIDED
from interlock.report.svg import (
    BAND,
    EVIDENCE,
    GRID,
    HALTING,
    INK,
    LIMIT,
    MUTED,
    POINTS_PER_INCH,
    RC,
    RECENT,
    inline_svg,
    printable,
    side_by_side,
)
from interlock.report.timeline import Floats, SignalSeries, Timeline, kept_ticks, read_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL = "all signals, weighted"
FLOOR = 1e-6  # an e-value below one in a million says "no evidence at all"; drawing further down only flattens the rest
ABOVE_LINE, ABOVE_REACHED_LINE = 10.0, 100.0  # evidence of harm soon leaves every paper; two decades more show that the line was crossed
FARTHEST = 1e30  # what lies beyond is drawn there: matplotlib's own arithmetic ends soon after
SIZE_INCHES = (5.2, 2.4)  # fills a phone's width at its own size: text stays readable there
PIXEL_COLUMNS = 300  # as many as a panel's plot has points across
STEPS_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
MAX_LABEL = 40
Paint = Callable[["Axes"], None]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: `text` says in words what it shows, for whoever cannot see it."""

    title: str
    text: str
    svg: str


def draw(ticks: Sequence[Record]) -> str:
    """SVG of the e-value panels side by side: all signals first. No ticks give a picture that says so."""
    panels = [panel.svg for panel in evidence_panels(read_timeline(ticks))]
    width, height = (inches * POINTS_PER_INCH for inches in SIZE_INCHES)
    return side_by_side(panels, columns=2, width=width, height=height, title="e-values against their halting lines")


def evidence_panels(timeline: Timeline) -> list[Panel]:
    """The e-values over time, log scale, line dashed: the weighted sum, then each signal that counts; one that is only shown does not."""
    named = [(ALL, timeline.total, timeline.halting_line, "halts")]
    for signal in timeline.signals:
        e_values, lines, breaks = (signal.fields[field] for field in ("e_value", "halting_e_value", "breaks_at_e_value"))
        voids = not np.isfinite(lines).any() and np.isfinite(breaks).any()
        if signal.decides and (np.isfinite(lines).any() or voids or (e_values > 0).any()):
            named.append((signal.name, e_values, breaks if voids else lines, "voids every verdict" if voids else "halts"))
    return [_evidence_panel(timeline, f"evidence-{i}", *series) for i, series in enumerate(named)]


def value_panels(timeline: Timeline) -> list[Panel]:
    """
    Value, confidence bounds and limit over time of each signal that has both.

    The absolute ceilings (`slo_...`) are left out: they repeat errors and latency on another scale.
    """
    helpful = [s for s in timeline.signals if not s.name.startswith("slo_") and _has_both(s.fields["value"], s.fields["limit"])]
    return [_value_panel(timeline, f"value-{i}", signal) for i, signal in enumerate(helpful)]


def _has_both(one: Floats, other: Floats) -> bool:
    return bool((np.isfinite(one) & np.isfinite(other)).any())


def _evidence_panel(timeline: Timeline, name: str, label: str, e_values: Floats, lines: Floats, does: str) -> Panel:
    """`does` says what happens at the line."""
    line = _last(lines)
    shown = kept_ticks(timeline.seconds, [e_values], columns=PIXEL_COLUMNS)
    reached = np.flatnonzero(e_values >= lines)
    text = f"{label}: no e-value was recorded."
    if (last := _last(e_values)) is not None:
        text = f"{label}: e-value {short(last)} at the end, {short(float(np.nanmax(e_values)))} at most."
    if line is not None:
        when = f"reached at {on_axis(timeline.seconds[reached[0]])}" if len(reached) else "not reached"
        text += f" It {does} at {short(line)}: {when}."

    def paint(axes: "Axes") -> None:
        drawn_line = min(line, FARTHEST) if line is not None and line > 0 else None
        top = (drawn_line or 1.0) * (ABOVE_REACHED_LINE if len(reached) else ABOVE_LINE)
        least = float(np.nanmin(e_values)) if last is not None else 1.0
        floor = max(FLOOR, min(0.1, least / 2)) if least > 0 else FLOOR
        axes.set(yscale="log", ylim=(floor, top))
        axes.plot(timeline.seconds[shown], np.clip(e_values[shown], floor, top), color=EVIDENCE, linewidth=1.6)
        if drawn_line is not None:
            axes.axhline(drawn_line, color=HALTING, linestyle=(0, (5, 3)), linewidth=1.1)
            _at_the_edge(axes, drawn_line, f"{does} at {short(line)}", HALTING)

    return Panel(label, text, _picture(timeline, name, f"e-value of {label}" if label != ALL else f"e-value: {label}", text, paint))


def _value_panel(timeline: Timeline, name: str, signal: SignalSeries) -> Panel:
    value, limit, low, high, recent = (
        np.clip(signal.fields[field], -FARTHEST, FARTHEST) for field in ("value", "limit", "low", "high", "recent_value")
    )
    is_two_sided = signal.name in TWO_SIDED
    shown = kept_ticks(timeline.seconds, [value, low, high, limit, recent], columns=PIXEL_COLUMNS)
    seconds, last_limit, sizes = timeline.seconds[shown], _last(limit), np.abs(value) if is_two_sided else value
    title = f"{signal.name} in {signal.unit}" if signal.unit else signal.name
    text = (
        f"{signal.name}: {short(_last(value))} {signal.unit} at the end against at most {'±' if is_two_sided else ''}{short(last_limit)}; "
        f"bounds {bounds(_last(low), _last(high))}; {short(float(np.nanmax(sizes)))} at most{' to either side' if is_two_sided else ''}."
    )

    def paint(axes: "Axes") -> None:
        bottom, top = _edges(value, limit, low, recent, is_two_sided=is_two_sided)
        axes.set(ylim=(bottom, top))
        upper = np.where(np.isnan(high) & np.isfinite(low), top, high)  # no upper bound yet: up to the edge
        lower, upper = (np.clip(bound, bottom, top)[shown] for bound in (low, upper))
        axes.fill_between(seconds, lower, upper, color=EVIDENCE, alpha=0.16, linewidth=0)
        axes.plot(seconds, recent[shown], color=RECENT, linewidth=1.1, linestyle=(0, (1, 1.2)))
        axes.plot(seconds, value[shown], color=EVIDENCE, linewidth=1.6)
        for side in (1, -1) if is_two_sided else (1,):
            axes.plot(seconds, side * limit[shown], color=LIMIT, linestyle=(0, (5, 3)), linewidth=1.1)
            if last_limit is not None:
                _at_the_edge(axes, side * last_limit, f"limit {short(side * last_limit)}", LIMIT)

    return Panel(signal.name, text, _picture(timeline, name, title, text, paint))


def _edges(value: Floats, limit: Floats, low: Floats, recent: Floats, *, is_two_sided: bool) -> tuple[float, float]:
    """Lowest and highest number of a value's picture: everything of value and limit, and of the bounds what says something."""
    seen = np.concatenate([value, limit, recent])
    top = 1.25 * largest if (largest := float(np.nanmax(np.abs(seen) if is_two_sided else seen))) > 0 else 1.0
    if is_two_sided:
        return -top, top
    usual_low = float(np.nanquantile(np.append(low, 0.0), 0.1))  # bounds on the first few pairs reach down far and say little
    return min(0.0, float(np.nanmin(value)), max(-0.5 * top, usual_low)), top


def _picture(timeline: Timeline, name: str, title: str, text: str, paint: Paint) -> str:
    """One panel: phases as bands, what `paint` draws, the halt as an upright line, time below."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that matplotlib's font lacks: the reader's font may have it
        figure = Figure(figsize=SIZE_INCHES)
        axes = figure.add_axes((0.125, 0.14, 0.865, 0.66))
        axes.set_title(_plain(title), loc="left", fontsize=11, fontweight="bold", color=INK, pad=17)
        _draw_axes(axes, timeline)
        paint(axes)
        _label_values(axes)
        if timeline.halted_at_seconds is not None:
            axes.axvline(timeline.halted_at_seconds, color=HALTING, linewidth=1.0, alpha=0.55)
        if not len(timeline.seconds):
            axes.text(0.5, 0.5, "no tick was recorded", transform=axes.transAxes, ha="center", color=MUTED, fontsize=9.5)
        return inline_svg(figure, name=name, title=title, text=text)


def _draw_axes(axes: "Axes", timeline: Timeline) -> None:
    end = float(timeline.seconds[-1]) if len(timeline.seconds) else 1.0
    end = max(end, 1.0)
    step = next((step for step in STEPS_SECONDS if end / step <= 7), end)
    marks = np.arange(0, end * 1.0001, step)
    axes.set(xlim=(0, end), facecolor="none")
    axes.set_xticks(marks, [on_axis(mark) for mark in marks])
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9.5, labelcolor=MUTED, color=GRID, length=2, pad=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    for i, band in enumerate(timeline.bands):
        if i % 2 == 0:
            axes.axvspan(band.from_seconds, band.to_seconds, color=BAND, linewidth=0, zorder=-2)
        _label_band(axes, band.name, (band.from_seconds / end, band.to_seconds / end))


def _label_band(axes: "Axes", name: str, share: tuple[float, float]) -> None:
    """The phase's name above its band; upright inside where it is too wide, not at all where there is no room: the table has it."""
    label, room_points = _plain(name.removeprefix("canary ")), (share[1] - share[0]) * SIZE_INCHES[0] * POINTS_PER_INCH * 0.865
    if room_points < 11:
        return
    fits = len(label) * 5 + 6 <= room_points
    axes.text(
        share[0] + 0.006,
        1.03 if fits else 0.97,
        label,
        transform=axes.transAxes,
        fontsize=9,
        color=MUTED,
        va="bottom" if fits else "top",
        rotation="horizontal" if fits else "vertical",
    )


def _label_values(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(numticks=5) if axes.get_yscale() == "log" else MaxNLocator(4))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(float(f"{value:.9g}"))))


def _at_the_edge(axes: "Axes", value: float, label: str, colour: str) -> None:
    axes.text(0.995, value, label, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=9.5, color=colour)


def _plain(text: str) -> str:
    """A label: one line, not too long."""
    text = printable(text)
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _last(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None
