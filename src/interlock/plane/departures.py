"""Model servers that no arm needs any more: remembered until their processes have ended."""

import logging
import threading
from collections.abc import Sequence

from interlock.errors import ServiceUnavailable
from interlock.model.release import ModelVersion
from interlock.plane.model_servers import ModelServers
from interlock.ports import Clock

DRAIN_SECONDS = 1.0  # requests in flight finish in milliseconds; the model server itself waits 5 s more on SIGTERM
log = logging.getLogger("interlock.plane")


class Departures:
    """A server comes here when it has lost its arm, and is stopped once Envoy was seen without it."""

    def __init__(self, servers: ModelServers, clock: Clock) -> None:
        self._servers = servers
        self._clock = clock
        self._leaving: list[ModelVersion] = []
        self._lock = threading.Lock()
        self._stopping = threading.Lock()

    @property
    def pending(self) -> tuple[ModelVersion, ...]:
        """Whose servers have not ended yet."""
        with self._lock:
            return tuple(self._leaving)

    @property
    def is_stopping(self) -> bool:
        """Whether somebody is stopping servers now."""
        return self._stopping.locked()

    def add(self, version: ModelVersion) -> None:
        """Remember a server that has to go."""
        with self._lock:
            if version not in self._leaving:
                self._leaving.append(version)

    def stop(self, versions: Sequence[ModelVersion]) -> None:
        """Let requests in flight finish and stop these servers, those of them that are still pending; returns when they are gone."""
        with self._stopping:
            if not (left := [version for version in self.pending if version in versions]):
                return
            self._clock.sleep(DRAIN_SECONDS)
            for version in left:
                self._servers.unload(version)
                with self._lock:
                    self._leaving.remove(version)

    def stop_in_background(self, versions: Sequence[ModelVersion]) -> None:
        """The same in a thread of its own: it takes seconds, and the next lease may be over before."""
        threading.Thread(target=self._stop_logged, args=(versions,), name="stop model servers", daemon=True).start()

    def await_end(self, version: ModelVersion) -> None:
        """Wait for whoever is stopping a server of this name and version now; the next one starts after it."""
        if self._has(version):
            with self._stopping:
                pass

    def refuse(self, version: ModelVersion) -> None:
        """Raise ServiceUnavailable while an earlier server of this name and version has not ended."""
        if self._has(version):
            raise ServiceUnavailable(f"an earlier server of {version.label} is still being stopped: ask again")

    def _has(self, version: ModelVersion) -> bool:
        return version.label in {leaving.label for leaving in self.pending}

    def _stop_logged(self, versions: Sequence[ModelVersion]) -> None:
        try:
            self.stop(versions)
        except Exception:  # it stays pending, and the next lease tick tries again
            log.exception("a model server was not stopped")
