"""The releases in the evidence, known without reading them again and again."""

import logging
from collections.abc import Sequence

from interlock.control.ending import DECISION, Record, ending_of
from interlock.control.resume import Opened, read_opened
from interlock.errors import EvidenceError
from interlock.ports import EvidenceStore

log = logging.getLogger(__name__)


def resumed_release(evidence: EvidenceStore, release_id: str) -> str | None:
    """The last release of the same model version before this one, if it ended without a decision."""
    same_version = release_id.rpartition("-")[0] + "-"
    earlier = [other for other in evidence.list_releases() if other.startswith(same_version) and other != release_id]
    if not earlier or (ending := ending_of(evidence.read(earlier[-1]))) is None or ending["kind"] == DECISION:
        return None
    return earlier[-1]


class ReleaseIndex:
    """
    How each release was opened, and how it ended.

    A file is read whole when it is seen first, and again only by `read`: that a release is under way is known from its process, not by
    reading its ticks.
    """

    def __init__(self, evidence: EvidenceStore) -> None:
        self._evidence = evidence
        self._opened: dict[str, Opened] = {}
        self._endings: dict[str, Record] = {}
        self._passed_over: set[str] = set()

    def unfinished(self) -> list[Opened]:
        """Releases whose ending has not been read yet, the one that changed longest ago first."""
        for release_id in self._evidence.list_releases():
            if release_id not in self._opened and release_id not in self._passed_over:
                self.read(release_id)
        return [opened for release_id, opened in self._opened.items() if release_id not in self._endings]

    def read(self, release_id: str) -> Sequence[Record]:
        """The records of a release as they are now. Evidence that cannot be read is passed over, and said once."""
        try:
            records = self._evidence.read(release_id)
        except EvidenceError as error:
            log.warning("a release is passed over: %s", error)
            self._passed_over.add(release_id)
            self._opened.pop(release_id, None)
            return []
        if (opened := read_opened(release_id, records)) is not None:
            self._opened[release_id] = opened
        elif records:
            self._passed_over.add(release_id)  # an adoption, a rollback of its own
        if (ending := ending_of(records)) is not None:
            self._endings[release_id] = ending
        return records

    def of_run(self, flow_run_id: str) -> Opened | None:
        """The release that a flow run has opened; None when it died before, or never did."""
        self.unfinished()
        return next((opened for opened in self._opened.values() if flow_run_id and opened.flow_run_id == flow_run_id), None)

    def ending(self, release_id: str) -> Record | None:
        """How a release ended; reads it again while it has no ending."""
        if release_id not in self._endings:
            self.read(release_id)
        return self._endings.get(release_id)
