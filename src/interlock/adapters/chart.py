"""Draws the e-values of a release against their halting lines, as one SVG."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

COLOURS = {
    "divergence": "#b3261e",
    "errors": "#8250df",
    "p50": "#0969da",
    "p99": "#1a7f37",
    "slo_error_share": "#bf8700",
    "slo_p99": "#57606a",
}
ALL = "all signals, weighted"
FLOOR = 1e-6  # an e-value below one in a million says "no evidence at all"; drawing further down only flattens the rest


def draw(ticks: Sequence[Mapping[str, Any]]) -> str:
    """
    SVG text: log10 of each signal's e-value over seconds since the first tick, its halting line dashed in the same colour.

    Ticks without signals (the plane itself halted) leave a gap. No ticks give an empty chart that says so.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, points in _series(ticks).items():
        colour = COLOURS.get(name, "#1f2328")
        width = 2.6 if name == ALL else 1.5
        axes.plot([p[0] for p in points], [max(FLOOR, p[1]) for p in points], color=colour, label=name, linewidth=width)
        axes.axhline(points[-1][2], color=colour, linestyle="--", linewidth=0.9)
    axes.set(yscale="log", xlabel="seconds since the shadow began", ylabel="e-value (dashed: where it halts)", ylim=(FLOOR, None))
    for second, phase in _phases(ticks):
        axes.axvline(second, color="#d0d7de", linewidth=0.8, zorder=0)
        axes.text(second, 1.01, phase.removeprefix("canary "), transform=axes.get_xaxis_transform(), fontsize=8, color="#57606a")
    if axes.lines and ticks:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _series(ticks: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float, float]]]:
    series: dict[str, list[tuple[float, float, float]]] = {}
    for second, tick in enumerate(ticks):
        if tick["signals"]:
            series.setdefault(ALL, []).append((float(second), float(tick["e_value"]), float(tick["halting_line"])))
        for signal in tick["signals"]:
            if signal["e_value"] is not None and signal["halting_e_value"] is not None:
                series.setdefault(signal["name"], []).append((float(second), float(signal["e_value"]), float(signal["halting_e_value"])))
    return series


def _phases(ticks: Sequence[Mapping[str, Any]]) -> list[tuple[float, str]]:
    starts, previous = [], None
    for second, tick in enumerate(ticks):
        if tick["phase"] != previous:
            starts.append((float(second), str(tick["phase"])))
            previous = tick["phase"]
    return starts
