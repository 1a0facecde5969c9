"""The candidate of the release that holds the plane: its server, contained, and who it is."""

from interlock.errors import ServiceRefused, ServiceUnavailable
from interlock.model.plane import CandidateLimits
from interlock.model.release import ModelVersion
from interlock.plane.departures import Departures
from interlock.plane.limits import make_equal, make_nice
from interlock.plane.model_servers import CheckedFiles, ModelServers


class CandidateSeat:
    """
    At most one candidate. Its server may map so much memory and no more; and it waits for the CPU while it has copies only, so that they
    slow down nobody's answer.
    """

    def __init__(self, servers: ModelServers, departures: Departures) -> None:
        self._servers = servers
        self._departures = departures
        self.version: ModelVersion | None = None
        self.serving = ("interlock", 4)

    def take(self, files: CheckedFiles, *, thread_count: int, limits: CandidateLimits) -> int:
        """Start the candidate's server within these limits, unless it runs; returns its process id. Who had the seat before must go."""
        self._departures.refuse(files.version)
        self._servers.load(files, thread_count=thread_count, memory_limit_mib=limits.resident_mib)
        if self.version != files.version:
            self.leave()
        self.version, self.serving = files.version, (files.kind, thread_count)
        return self._pid()

    def leave(self) -> None:
        """Whoever has the seat has to go: its server is stopped once Envoy was seen without it."""
        if self.version:
            self._departures.add(self.version)
        self.version = None

    def promote(self) -> None:
        """The candidate is the incumbent now: what contained its server ends."""
        promoted, self.version = self.version, None
        if promoted:
            self._servers.set_free(promoted)

    def require_ready(self) -> None:
        """Raise ServiceRefused unless its server has just answered."""
        state = self._servers.observe(self.version)
        if state is None or not state.ready:
            raise ServiceRefused("the candidate's server is not ready: it gets no traffic")

    def shadow(self) -> None:
        """Let its server have the CPU that nobody else wants. Where that could not be taken back it is not done."""
        if pid := self._pid():
            make_nice(pid)

    def expose(self) -> None:
        """Let its server have the CPU like the incumbent's, before users wait for it. ServiceUnavailable when that could not be done."""
        if not (pid := self._pid()) or not make_equal(pid):
            raise ServiceUnavailable("the candidate's server still waits for the CPU behind others: it gets no traffic")

    def _pid(self) -> int:
        state = self._servers.observe(self.version)
        return state.pid if state else 0
