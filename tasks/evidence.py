"""What people see in the Prefect UI: gates, canary ticks, signals, the e-value chart, decisions and receipts, as artifacts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from interlock.control.session import ReleaseSession
from interlock.model.plane import RollbackReceipt
from interlock.model.release import Decision
from interlock.model.verdict import Verdict
from interlock.plan.phases import Phase
from interlock.report.signals import signal_table
from interlock.wiring import draw_e_values, write_report
from tasks.publishing import await_published, publish

Records = Sequence[Mapping[str, Any]]


@task(name="publish gates", cache_policy=NO_CACHE)
def publish_gates(session: ReleaseSession, verdicts: Sequence[Verdict]) -> None:
    """Every gate with value, limit, n and reason, in one table for people; the evidence has them already."""
    _table(
        _key("gates", session),
        [row for verdict in verdicts for row in _gate_rows(verdict)],
        f"# Gates of {session.release.candidate.label}\nAgainst {session.release.incumbent.label}, {session.profile.name}."
        + _drift_link(session),
    )


def _drift_link(session: ReleaseSession) -> str:
    release_id = session.release.release_id
    is_drawn = any(record["kind"] == "page" and record["gate"] == "drift" for record in session.services.evidence.read(release_id))
    return f"\n\n[Drift]({session.services.page_url}/releases/{release_id}/drift.html)" if is_drawn else ""


def publish_phase(session: ReleaseSession, phase: Phase) -> None:
    """
    Every tick of a phase with value, limit, n, e-value and reason.

    Returns at once: the judge stands still meanwhile, and users are on the candidate. The evidence is read behind its back.
    """

    def rows() -> list[Mapping[str, Any]]:
        return [row for tick in _ticks(session) if tick["phase"] == phase.name for row in _tick_rows(tick)]

    _table(_key(f"ticks-{phase.index}", session), rows, f"# {phase.name}: what the judge saw, second by second")


def publish_chart(session: ReleaseSession, records: Records) -> None:
    """The e-values of the whole release against their halting lines."""
    if not (ticks := [record for record in records if record["kind"] == "tick"]):
        return
    draw_e_values(session.release.release_id, ticks)
    key, url = _key("e-values", session), f"{session.services.page_url}/releases/{session.release.release_id}/e-values.svg"
    publish(key, lambda: create_image_artifact(key=key, image_url=url, description="e-values against the halting line"))


def publish_signals(session: ReleaseSession, records: Records) -> None:
    """Each signal at the last look: value against limit, bounds, e-value against its halting line, and what the proof still needs."""
    if not (rows := signal_table(records)):
        return
    _table(_key("signals", session), rows, f"# Signals of {session.release.candidate.label} at the last look")


def publish_report(session: ReleaseSession) -> None:
    """The release report, next to the evidence that it is drawn from. When it fails, only the report is missing."""
    release_id = session.release.release_id
    show("the report", lambda: write_report(release_id, session.services.evidence.read(release_id)))


def show(what: str, publish: Callable[[], object]) -> None:
    """Publish something for people. One that cannot be shown takes neither the others nor the decision with it."""
    try:
        publish()
    except Exception as error:  # noqa: BLE001 - the decision is recorded and carried out, and stands without its pictures
        get_run_logger().warning("%s could not be shown: %s", what, error)


def publish_decision(session: ReleaseSession, decision: Decision, reason: str) -> None:
    """The decision in one sentence, with the way to the report and to the live page."""
    release, page_url = session.release, session.services.page_url
    key = _key("decision", session)
    text = (
        f"# {decision.value}: {release.candidate.label}\n\n{reason}\n\n"
        f"Incumbent before: {release.incumbent.label}. Profile {release.profile_name} `{release.profile_digest}`.\n\n"
        f"[Release report]({page_url}/releases/{release.release_id}/report.html) · [Live page]({page_url}/)"
    )
    publish(key, lambda: create_markdown_artifact(key=key, markdown=text))


def publish_receipt(receipt: RollbackReceipt) -> None:
    """Each step of a rollback with what was observed and when."""
    rows = [{"step": s.name, "observed": s.observed, "after_seconds": round(s.elapsed_seconds, 3)} for s in receipt.steps]
    _table("rollback-receipt", rows, f"# Rollback to {receipt.incumbent}\n{receipt.reason}")
    await_published()


def _table(key: str, rows: Sequence[Mapping[str, Any]] | Callable[[], Sequence[Mapping[str, Any]]], description: str) -> None:
    def make() -> None:
        table = [dict(row) for row in (rows() if callable(rows) else rows)]
        create_table_artifact(key=key, table=table, description=description)

    publish(key, make)


def _ticks(session: ReleaseSession) -> list[Mapping[str, Any]]:
    return [record for record in session.services.evidence.read(session.release.release_id) if record["kind"] == "tick"]


def _gate_rows(verdict: Verdict) -> list[dict[str, Any]]:
    head = {"gate": verdict.gate, "outcome": verdict.outcome.name}
    if not verdict.measurements:
        return [{**head, "measurement": "-", "value": None, "limit": None, "n": 0, "unit": "", "reason": verdict.reason}]
    return [
        {
            **head,
            "measurement": m.name,
            "value": _short(m.value),
            "limit": _short(m.limit),
            "at least": _short(m.bounds.low if m.bounds else None),
            "at most": _short(m.bounds.high if m.bounds else None),
            "n": m.sample_count,
            "unit": m.unit,
            "reason": verdict.reason,
        }
        for m in verdict.measurements
    ]


def _tick_rows(tick: Mapping[str, Any]) -> list[dict[str, Any]]:
    head = {"at": str(tick["at"])[11:19], "weight_bps": tick["weight_bps"], "outcome": tick["outcome"]}
    if not tick["signals"]:
        return [
            {**head, "signal": tick["decided_by"] or "-", "value": None, "limit": None, "n": 0, "e_value": None, "reason": tick["reason"]}
        ]
    return [
        {
            **head,
            "signal": s["name"],
            "value": _short(s["value"]),
            "limit": _short(s["limit"]),
            "n": s["sample_count"],
            "e_value": _short(s["e_value"]),
            "halts_at": _short(s["halting_e_value"]),
            "reason": s["reason"],
        }
        for s in tick["signals"]
    ]


def _short(value: float | None) -> float | None:
    """Five significant digits for a table; the evidence has them all."""
    return None if value is None else float(f"{value:.5g}")


def _key(name: str, session: ReleaseSession) -> str:
    """Artifact keys may hold lower-case letters, digits and dashes only."""
    release_id = "".join(c if c.isalnum() else "-" for c in session.release.release_id.lower())
    return f"{release_id}-{name}"
