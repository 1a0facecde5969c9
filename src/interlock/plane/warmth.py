"""The incumbent's servers: the one that serves, and a spare that takes over when it ends or hangs."""

from interlock.errors import ServiceRefused, ServiceUnavailable
from interlock.model.release import ModelVersion
from interlock.plane.model_servers import CheckedFiles, ModelServers
from interlock.ports import Clock

SPARE_PAUSE_SECONDS = 10.0  # between two attempts to start a spare: each reads all the files of the version


class Warmth:
    """Keeps an incumbent able to take all traffic, whatever becomes of one of its processes. `serving`: kind of server, thread count."""

    def __init__(self, servers: ModelServers, clock: Clock) -> None:
        self._servers = servers
        self._clock = clock
        self._spare_at = float("-inf")

    def bring_back(self, incumbent: ModelVersion, serving: tuple[str, int]) -> None:
        """Take over its servers from a supervisor that was killed; without any, start one."""
        server, thread_count = serving
        if not self._servers.take_over(incumbent, server=server, thread_count=thread_count):
            self._servers.load(self._servers.check(incumbent, server=server), thread_count=thread_count)
        self._servers.take_over(incumbent, server=server, thread_count=thread_count, is_spare=True)
        self._servers.set_free(incumbent)  # its supervisor may have been killed in the middle of its promotion

    def check_spare(self, incumbent: ModelVersion | None, serving: tuple[str, int]) -> CheckedFiles | None:
        """The files to start a spare with, read whole; None when it has one, or does not answer itself yet."""
        if incumbent is None or not self.is_ready(incumbent) or self._servers.observe(incumbent, is_spare=True):
            return None
        if (now := self._clock.monotonic()) < self._spare_at:
            return None
        self._spare_at = now + SPARE_PAUSE_SECONDS
        return self._servers.check(incumbent, server=serving[0])

    def require(self, incumbent: ModelVersion | None) -> None:
        """
        Nobody is released beside an incumbent that could not take all traffic back, or whose server is its only one.

        Raises:
            ServiceRefused: it does not answer.
            ServiceUnavailable: its spare does not answer yet.
        """
        if not self.is_ready(incumbent):
            raise ServiceRefused("INCUMBENT_UNHEALTHY: no incumbent is ready to serve; bring it back before releasing another version")
        if not self.is_ready(incumbent, is_spare=True):
            raise ServiceUnavailable("INCUMBENT_UNHEALTHY: the incumbent's spare server does not answer yet: ask again in some seconds")

    def is_ready(self, version: ModelVersion | None, *, is_spare: bool = False) -> bool:
        """Whether this version's server answered just now."""
        state = self._servers.observe(version, is_spare=is_spare)
        return state is not None and state.ready
