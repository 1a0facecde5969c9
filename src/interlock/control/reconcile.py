"""
After a release was lost without a word (its process killed, its lease over, the machine restarted): evidence and registry follow traffic.

Traffic is the plane's own business and is safe by then; this brings the rest in line with it.
"""

from interlock.control.rollback import restore_registry
from interlock.model.release import ModelVersion
from interlock.ports import Clock, EvidenceStore, Registry

ENDINGS = frozenset({"decision", "failed"})


def close_lost_release(
    registry: Registry, evidence: EvidenceStore, clock: Clock, *, release_id: str, incumbent: ModelVersion, candidate: ModelVersion | None
) -> None:
    """
    Record that the lease of a release ran out, and put champion, Production and the candidate's stage where traffic is.

    Raises:
        RollbackFailed: the registry did not follow within 60 s.
    """
    evidence.append(release_id, "failed", {"reason": f"nobody renewed the lease: {incumbent.label} serves all requests again"})
    restore_registry(registry, clock, incumbent=incumbent, candidate=candidate)


def follow_traffic(registry: Registry, evidence: EvidenceStore, clock: Clock, *, incumbent: ModelVersion) -> list[str]:
    """
    After a start: end every release that was under way, and make the registry say who serves. Returns the releases it ended.

    Raises:
        RollbackFailed: the registry did not follow within 60 s.
    """
    unfinished = [release_id for release_id in evidence.list_releases() if _is_unfinished(evidence, release_id)]
    for release_id in unfinished:
        evidence.append(release_id, "failed", {"reason": f"the plane was started anew in mid-release: {incumbent.label} serves"})
    champion = registry.read_champion(incumbent.name)
    usurper = ModelVersion(incumbent.name, champion, "unknown") if champion not in (None, incumbent.version) else None
    if champion is not None:
        restore_registry(registry, clock, incumbent=incumbent, candidate=usurper)
    return unfinished


def _is_unfinished(evidence: EvidenceStore, release_id: str) -> bool:
    kinds = {str(record["kind"]) for record in evidence.read(release_id)}
    return "intake" in kinds and not kinds & ENDINGS
