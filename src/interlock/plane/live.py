"""What the live page shows: plane, traffic of the last minutes, newest release. Gathered once a second, however many look."""

import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from interlock.errors import ReleaseError
from interlock.model.release import RELEASE_ID
from interlock.plane.controller import PlaneController
from interlock.plane.release_file import ReleaseFile

KEPT_FILES = 20
REFRESH_SECONDS = 0.8  # less than the page's second: at 1.0 every other look came just too early and got the former snapshot


class LivePage:
    """Reads only. A part that cannot be read is None on the page, never a stale value."""

    def __init__(self, controller: PlaneController, *, evidence_directory: Path, collector_url: str, links: dict[str, str]) -> None:
        self._controller = controller
        self._evidence = evidence_directory
        self._client = httpx.Client(base_url=collector_url, timeout=1.0, trust_env=False)
        self._links = links
        self._lock = threading.Lock()
        self._files: dict[Path, ReleaseFile] = {}
        self._snapshot: dict[str, Any] = {}
        self._taken_at = float("-inf")

    def snapshot(self) -> dict[str, Any]:
        """Everything the page needs, at most one second old."""
        with self._lock:
            if time.monotonic() - self._taken_at >= REFRESH_SECONDS:
                self._snapshot = self._take()
                self._taken_at = time.monotonic()
            return self._snapshot

    def chart(self, release_id: str) -> str | None:
        """The e-value chart of a release as SVG; None when there is none."""
        return self._kept_text(release_id, ".svg")

    def report(self, release_id: str) -> str | None:
        """The report of a release as HTML; None when there is none."""
        return self._kept_text(release_id, ".html")

    def drift_page(self, release_id: str) -> str | None:
        """Evidently's page about the inputs of a release; None when there is none."""
        return self._kept_text(release_id, ".drift.html")

    def _kept_text(self, release_id: str, ending: str) -> str | None:
        if not RELEASE_ID.fullmatch(release_id):
            return None
        path = self._evidence / f"{release_id}{ending}"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def _take(self) -> dict[str, Any]:
        return {"at": time.time(), "links": self._links, "plane": self._plane(), "recent": self._recent(), **self._releases()}

    def _plane(self) -> dict[str, Any] | None:
        try:
            return asdict(self._controller.observe())
        except ReleaseError:
            return None

    def _recent(self) -> Any:
        try:
            return self._client.get("/recent").raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None

    def _releases(self) -> dict[str, Any]:
        """The newest release (None when there was none yet) and the last ones; `past` is None when the evidence cannot be read."""
        try:
            releases = self._follow()
        except OSError:
            return {"release": None, "past": None}
        return {"release": releases[0].story() if releases else None, "past": [release.ending() for release in releases]}

    def _follow(self) -> list[ReleaseFile]:
        """Newest first. A file without an intake record (an adoption) is no release."""
        paths = sorted(self._evidence.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)[:KEPT_FILES]
        self._files = {path: self._files.get(path) or ReleaseFile(path) for path in paths}
        for file in self._files.values():
            file.read_on()
        return [file for file in self._files.values() if file.intake]
