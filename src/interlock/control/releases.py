"""The releases in the evidence, known without reading them again and again."""

import contextlib
import logging
from collections.abc import Sequence

from interlock.control.ending import DECISION, Record, ending_of
from interlock.control.resume import Opened, read_opened
from interlock.control.session import in_file_name
from interlock.errors import EvidenceError, ServiceUnavailable
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
        self._doubtful: set[str] = set()  # those that could not be read when somebody tried

    def unfinished(self) -> list[Opened]:
        """Releases whose ending has not been read yet, the one that changed longest ago first. One that cannot be read now comes later."""
        for release_id in self._evidence.list_releases():
            if release_id not in self._opened and release_id not in self._passed_over:
                with contextlib.suppress(ServiceUnavailable):
                    self.read(release_id)
        return [opened for release_id, opened in self._opened.items() if release_id not in self._endings]

    def read(self, release_id: str) -> Sequence[Record]:
        """
        The records of a release as they are now. Evidence that is damaged, or of nothing we know, is passed over, and said once.

        Raises:
            ServiceUnavailable: it cannot be read now.
        """
        try:
            records = self._evidence.read(release_id)
            opened, ending = read_opened(release_id, records), ending_of(records)
        except ServiceUnavailable as error:
            self._say_once(release_id, error)
            raise
        except (EvidenceError, LookupError, TypeError, ValueError, AttributeError) as error:  # the latter: its first record is none of ours
            self._say_once(release_id, error)
            self._passed_over.add(release_id)
            self._opened.pop(release_id, None)
            return []
        self._doubtful.discard(release_id)
        if opened is not None:
            self._opened[release_id] = opened
        elif records:
            self._passed_over.add(release_id)  # an adoption, a rollback of its own
        if ending is not None:
            self._endings[release_id] = ending
        return records

    def of_run(self, flow_run_id: str) -> Opened | None:
        """The release that a flow run has opened last: one that Prefect starts again opens another. None when it never did."""
        self.unfinished()
        found = [opened for opened in self._opened.values() if flow_run_id and opened.flow_run_id == flow_run_id]
        return sorted(found, key=lambda opened: opened.token)[-1] if found else None

    def flow_runs(self) -> frozenset[str]:
        """The flow runs that have opened a release."""
        self.unfinished()
        return frozenset(opened.flow_run_id for opened in self._opened.values())

    def is_doubtful(self, name: str, version: str) -> bool:
        """Whether a release of this version may have decided something that cannot be read."""
        return any(release_id.rpartition("-")[0] == f"{in_file_name(name)}-{version}" for release_id in self._doubtful)

    def ending(self, release_id: str) -> Record | None:
        """
        How a release ended; reads it again while it has no ending.

        Raises:
            ServiceUnavailable: it cannot be read now.
        """
        if release_id not in self._endings:
            self.read(release_id)
        return self._endings.get(release_id)

    def _say_once(self, release_id: str, error: Exception) -> None:
        if release_id not in self._doubtful:
            self._doubtful.add(release_id)
            log.warning("the release %s is passed over: %s: %s", release_id, type(error).__name__, error)
