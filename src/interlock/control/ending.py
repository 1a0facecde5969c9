"""How a release ended, in its evidence: once. Whoever comes later finds the ending there and writes no second one."""

from collections.abc import Mapping, Sequence
from typing import Any

from interlock.ports import EvidenceStore

DECISION, FAILED = "decision", "failed"
Record = Mapping[str, Any]


def ending_of(records: Sequence[Record]) -> Record | None:
    """The record that ended the release; None while it is under way. Of two, which only a race of milliseconds can write, the first."""
    return next((record for record in records if record["kind"] in (DECISION, FAILED)), None)


def record_ending(evidence: EvidenceStore, release_id: str, kind: str, payload: Mapping[str, object]) -> Record:
    """End the release in its evidence unless somebody has; returns the ending that stands."""
    if (ending := ending_of(evidence.read(release_id))) is not None:
        return ending
    evidence.append(release_id, kind, payload)
    return ending_of(evidence.read(release_id)) or {"kind": kind, **payload}
