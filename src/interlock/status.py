"""`interlock status`: releases read from their evidence, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from interlock.errors import ServiceRefused
from interlock.model.verdict import Verdict
from interlock.ports import EvidenceStore
from interlock.terminal import wide_console

Record = Mapping[str, Any]


def print_releases(store: EvidenceStore) -> None:
    """One line a release: candidate, decision, reason."""
    table = Table("release", "candidate", "decision", "reason")
    for release_id in store.list_releases():
        records = store.read(release_id)
        if intake := _first(records, "intake"):
            decision = _decision(records)
            table.add_row(release_id, str(intake["candidate"]), *decision)
    wide_console(markup=False).print(table if table.row_count else "no release yet")


def print_release(store: EvidenceStore, release_id: str) -> None:
    """Timeline and gates of one release. ServiceRefused when it has no evidence."""
    records = store.read(release_id)
    if not records:
        raise ServiceRefused(f"there is no evidence of a release {release_id!r}: `interlock status` lists what there is")
    console = wide_console(markup=False)
    intake = _first(records, "intake") or _first(records, "bootstrap") or {}
    console.print(f"{release_id}: {intake.get('candidate')} against {intake.get('incumbent', 'nobody')}", style="bold")
    console.print(f"candidate {intake.get('candidate_digest')}\nprofile {intake.get('profile_name')} {intake.get('profile_digest')}")
    gates = Table("gate", "outcome", "measurement", "value", "limit", "n")
    for record in (r for r in records if r["kind"] == "gate"):
        for m in record["measurements"] or [{"name": "-", "value": None, "limit": None, "n": 0}]:
            gates.add_row(record["gate"], record["outcome"], m["name"], _number(m["value"]), _number(m["limit"]), str(m["n"]))
    console.print(gates)
    timeline = Table("at (UTC)", "what", "detail")
    for record in (r for r in records if r["kind"] not in {"tick", "gate", "intake"}):
        timeline.add_row(str(record["at"])[11:23], record["kind"], _detail(record))
    console.print(timeline)
    name, reason = _decision(records)
    console.print(f"{name}: {reason}", style="bold")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Every gate with its reason, one line each."""
    table = Table("gate", "outcome", "reason")
    for verdict in verdicts:
        table.add_row(verdict.gate, verdict.outcome.name, verdict.reason.removeprefix(f"{verdict.gate}: "))
    wide_console(markup=False).print(table)


def _detail(record: Record) -> str:
    for key in ("phase", "observed", "reason", "outcome", "champion", "incumbent"):
        if record.get(key):
            return str(record[key])
    return ""


def _first(records: Sequence[Record], kind: str) -> Record | None:
    return next((record for record in records if record["kind"] == kind), None)


def _decision(records: Sequence[Record]) -> tuple[str, str]:
    if record := _first(records, "decision"):
        return str(record["decision"]), str(record["reason"])
    if record := _first(records, "failed"):
        return "Failed", str(record["reason"])
    if record := _first(records, "adoption"):
        return "adopted", f"{record['incumbent']} serves as the first incumbent"
    if record := _first(records, "refused"):
        return "not adopted", str(record["reason"])
    return "under way", ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
