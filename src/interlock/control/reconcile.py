"""
After a release was lost without a word (its process killed, its lease over, the machine restarted): evidence and registry follow traffic.

Traffic is the plane's own business and is safe by then; this brings the rest in line with it.
"""

import logging
from collections.abc import Callable, Sequence

from interlock.control.rollback import restore_registry
from interlock.model.release import ModelVersion
from interlock.ports import Clock, EvidenceStore, Registry

ENDINGS = frozenset({"decision", "failed"})
WriteReport = Callable[[str], object]
log = logging.getLogger(__name__)


def close_lost_release(  # noqa: PLR0913  what a release touches, each by name
    registry: Registry,
    evidence: EvidenceStore,
    clock: Clock,
    *,
    release_id: str,
    incumbent: ModelVersion,
    candidate: ModelVersion | None,
    write_report: WriteReport = lambda release_id: None,
) -> None:
    """
    Record that the lease of a release ran out, and put champion, Production and the candidate's stage where traffic is.

    `write_report` is asked for its report last of all, also when the registry did not follow; when it fails, only the report is missing.

    Raises:
        RollbackFailed: the registry did not follow within 60 s.
    """
    evidence.append(release_id, "failed", {"reason": f"nobody renewed the lease: {incumbent.label} serves all requests again"})
    try:
        restore_registry(registry, clock, incumbent=incumbent, candidate=candidate)
    finally:
        _report([release_id], write_report)


def follow_traffic(
    registry: Registry,
    evidence: EvidenceStore,
    clock: Clock,
    *,
    incumbent: ModelVersion,
    write_report: WriteReport = lambda release_id: None,
) -> list[str]:
    """
    After a start: end every release that was under way, and make the registry say who serves. Returns the releases it ended.

    `write_report` is asked for their reports last of all, as in `close_lost_release`.

    Raises:
        RollbackFailed: the registry did not follow within 60 s.
    """
    unfinished = [release_id for release_id in evidence.list_releases() if _is_unfinished(evidence, release_id)]
    for release_id in unfinished:
        evidence.append(release_id, "failed", {"reason": f"the plane was started anew in mid-release: {incumbent.label} serves"})
    try:
        champion = registry.read_champion(incumbent.name)
        usurper = ModelVersion(incumbent.name, champion, "unknown") if champion not in (None, incumbent.version) else None
        if champion is not None:
            restore_registry(registry, clock, incumbent=incumbent, candidate=usurper)
    finally:
        _report(unfinished, write_report)
    return unfinished


def _report(release_ids: Sequence[str], write_report: WriteReport) -> None:
    for release_id in release_ids:
        try:
            write_report(release_id)
        except Exception as error:  # noqa: BLE001 - evidence and registry are right, and stand without their picture
            log.warning("the report of %s could not be written: %s", release_id, error)


def _is_unfinished(evidence: EvidenceStore, release_id: str) -> bool:
    kinds = {str(record["kind"]) for record in evidence.read(release_id)}
    return "intake" in kinds and not kinds & ENDINGS
