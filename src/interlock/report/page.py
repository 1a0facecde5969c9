"""The release report as one HTML file: no script, nothing from outside, the same text for the same records."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from interlock.report.charts import Panel, evidence_panels, value_panels
from interlock.report.content_policy import CONTENT_SECURITY_POLICY
from interlock.report.numerals import Record, kind_of, moment, of_line, short
from interlock.report.others import tell_others
from interlock.report.signals import LOOKS, last_judged, signal_rows
from interlock.report.story import first, tell_ending, tell_gates, tell_phases
from interlock.report.timeline import read_timeline


def render_report(release_id: str, records: Sequence[Record]) -> str:
    """
    HTML text of the report of one release.

    Records may lack any field, and there may be none at all: what is not there is said to be missing. All text of the records is escaped.
    """
    ticks = [record for record in records if kind_of(record) == "tick"]
    timeline = read_timeline(ticks)
    judged, look = last_judged(records), next((record for record in reversed(records) if kind_of(record) in LOOKS), None)
    final_look = first(records, "final look")
    profile_text = (first(records, "intake") or {}).get("profile_text")
    return _template().render(
        release_id=release_id,
        policy=CONTENT_SECURITY_POLICY,
        ending=tell_ending(records),
        judged=judged and _look(judged),
        unjudged_reason=str(look.get("reason") or "") if look and look is not judged else "",
        final_look=_look(final_look) if final_look and final_look is not judged else None,
        evidence=_figures(evidence_panels(timeline) if ticks else []),
        values=_figures(value_panels(timeline)),
        gates=tell_gates(records),
        has_drift_page=any(kind_of(record) == "page" and record.get("name") == "drift.html" for record in records),
        phases=tell_phases(records),
        others=tell_others(records),
        profile_text=str(profile_text) if profile_text else "",
        record_count=len(records),
        tick_count=len(ticks),
    )


def _look(record: Record) -> dict[str, object]:
    """A tick or the final look: its sentence and its signals."""
    together = f"e-value {short(record.get('e_value'))}, halts at {short(record.get('halting_line'))}"
    return {
        "title": "the final look" if kind_of(record) == "final look" else str(record.get("phase") or "phase unknown"),
        "at": moment(record),
        "outcome": str(record.get("outcome", "unknown")),
        "reason": str(record.get("reason") or ""),
        "is_blind": record.get("is_blind") is True,
        "together": f"{together} ({of_line(record.get('e_value'), record.get('halting_line'))})",
        "signals": signal_rows(record),
    }


def _figures(panels: Sequence[Panel]) -> list[dict[str, object]]:
    return [{"title": panel.title, "text": panel.text, "svg": Markup(panel.svg)} for panel in panels]  # its text is escaped already


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("interlock.report") / "report.html").read_text(encoding="utf-8"))
