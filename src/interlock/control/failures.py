"""Releases that ended badly, found again by the digest of their candidate: under the same profile it is not tried a second time."""

from collections.abc import Sequence
from dataclasses import dataclass

from interlock.control.ending import DECISION, Record, ending_of
from interlock.control.resume import decided_by
from interlock.errors import EvidenceError
from interlock.model.release import Decision
from interlock.ports import EvidenceStore

LAST_COUNT = 4  # the ending is the last record of a release, but for what somebody else may write beside it
BAD = frozenset({Decision.REJECTED, Decision.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class FailedRelease:
    """A release that rejected or rolled back its candidate. `at`: of its last word, as the evidence has it."""

    release_id: str
    candidate: str
    decision: Decision
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class FormerFailures:
    """What the evidence knows: how many other records it holds, and which of their releases failed with this digest, oldest first."""

    looked_at_count: int
    failed: tuple[FailedRelease, ...]


def former_failures(evidence: EvidenceStore, *, digest: str, profile_digest: str, besides: str) -> FormerFailures:
    """
    The releases of these very files, under whatever name and version, that were Rejected or RolledBack under this very profile.

    Held, Failed and a process that died say nothing about a candidate. A release without an ending counts by what its evidence had decided.
    Only the first and last records of each are read, unless those do not say how it ended. `besides`: the release that asks.

    Raises:
        EvidenceError: some evidence cannot be understood: what it says about this digest is not known.
        ServiceUnavailable: some evidence cannot be read now.
    """
    others = [release_id for release_id in evidence.list_releases() if release_id != besides]
    found = (_failure(evidence, release_id, digest, profile_digest) for release_id in others)
    return FormerFailures(len(others), tuple(failure for failure in found if failure))


def _failure(evidence: EvidenceStore, release_id: str, digest: str, profile_digest: str) -> FailedRelease | None:
    ends = evidence.read_ends(release_id, last_count=LAST_COUNT)
    if not ends or _text(release_id, ends[0], "kind") != "intake":
        return None  # an adoption, a rollback of its own
    if (ends[0].get("candidate_digest"), ends[0].get("profile_digest")) != (digest, profile_digest):
        return None
    try:
        records = ends if ending_of(ends) else evidence.read(release_id)
        decided = _decision(records)
    except (LookupError, ValueError) as error:
        raise EvidenceError(f"the evidence of {release_id} does not say how it ended ({type(error).__name__}: {error})") from error
    if decided is None or decided[0] not in BAD:
        return None
    return FailedRelease(release_id, _text(release_id, ends[0], "candidate"), *decided, _text(release_id, records[-1], "at"))


def _decision(records: Sequence[Record]) -> tuple[Decision, str] | None:
    if (ending := ending_of(records)) is None:
        return decided_by(records)
    return (Decision(str(ending["decision"])), str(ending["reason"])) if ending["kind"] == DECISION else None


def _text(release_id: str, record: Record, name: str) -> str:
    if not isinstance(value := record.get(name), str):
        raise EvidenceError(f"the evidence of {release_id} has a record without {name}: it was cut or changed")
    return value
