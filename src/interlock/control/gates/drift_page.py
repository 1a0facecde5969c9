"""A page about the drift for people: it is drawn after the verdict, from a sample, and never changes the outcome."""

from collections.abc import Sequence

from interlock.control.gates.drift import sample
from interlock.control.gates.inputs import DrawDrift, Rows
from interlock.model.redaction import one_line
from interlock.model.verdict import Verdict
from interlock.profile.gates import CategoryColumn, Drift, NumberColumn

ROW_COUNT = 5000  # of each side: a histogram shows no more with more rows, and the page takes two seconds for 50 columns
COLUMN_COUNT = 50  # the furthest from the reference, in units of their limits; nobody scrolls through more


def draw_page(verdict: Verdict, policy: Drift, reference: Rows, current: Rows, *, draw: DrawDrift) -> str | None:
    """Ask `draw` for the page of the columns that were measured. Returns why there is none, or None when there is one."""
    if not (columns := _furthest(verdict, policy)):
        return "there is no page of the drift, since no column could be measured"
    names = [column.name for column in columns]
    try:
        draw(sample(reference, ROW_COUNT)[names], sample(current, ROW_COUNT)[names], columns)
    except Exception as error:  # noqa: BLE001 - the verdict stands; only what people look at is missing
        return f"the page of the drift could not be drawn, {type(error).__name__}: {one_line(error)}"
    return None


def _furthest(verdict: Verdict, policy: Drift) -> Sequence[NumberColumn | CategoryColumn]:
    found = {m.name: m.value / m.limit for m in verdict.measurements if m.value is not None and m.name.startswith("distance of ")}
    measured = [column for column in policy.columns if f"distance of {column.name}" in found]
    return sorted(measured, key=lambda column: -found[f"distance of {column.name}"])[:COLUMN_COUNT]
