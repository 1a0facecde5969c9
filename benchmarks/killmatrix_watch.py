"""Looks at Envoy's own admin and at the lease on disk, twenty times a second, whatever else is dead."""

import contextlib
import http.client
import json
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from benchmarks.killmatrix_phases import Sample
from interlock.plane.envoy_settings import WEIGHT_KEY
from interlock.plane.stamp import read_stamp

PERIOD_SECONDS = 0.05
ADMIN_TIMEOUT_SECONDS = 0.5
KEPT_COUNT = 20_000  # over ten minutes


class Watch:
    """A thread of its own; use it as a context manager. The admin's address is read from `stack.json`, since a restart may move it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._samples: deque[Sample] = deque(maxlen=KEPT_COUNT)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def since(self, at: float) -> list[Sample]:
        """The samples from this monotonic moment on, oldest first."""
        with self._lock:
            return [sample for sample in self._samples if sample.at >= at]

    def read_weight(self) -> int | None:
        """One look, now."""
        return read_weight(self._port())

    def _run(self) -> None:
        port, port_at = 0, 0.0
        while not self._stopping.wait(PERIOD_SECONDS):
            if time.monotonic() - port_at > 1.0:
                port, port_at = self._port() or port, time.monotonic()
            weight_bps, stamp = read_weight(port), read_stamp(self._root / "lease.json")
            lease = (stamp.release_id, stamp.token, stamp.ends_at_seconds) if stamp else None
            with self._lock:
                self._samples.append(Sample(time.monotonic(), weight_bps, lease))

    def _port(self) -> int:
        with contextlib.suppress(OSError, ValueError, LookupError):
            return urlsplit(json.loads((self._root / "stack.json").read_text())["envoy_admin_url"]).port or 0
        return 0


def read_weight(admin_port: int) -> int | None:
    """The candidate's share in basis points as Envoy has it; None when Envoy does not answer within half a second."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=ADMIN_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/runtime")
        entries = json.loads(connection.getresponse().read()).get("entries", {})
        value = entries.get(WEIGHT_KEY, {}).get("final_value")
        return int(json.loads(value)["numerator"]) if value else 0
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        return None
    finally:
        connection.close()
