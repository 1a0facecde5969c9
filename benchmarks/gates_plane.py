"""The plane of the gates' benchmark: real model servers without Envoy, for the gates talk to the servers themselves."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from benchmarks.gates_model import SERVED
from interlock.adapters.clock import SystemClock
from interlock.adapters.fakes import FakeClock, FakeTraffic
from interlock.errors import ArtifactError
from interlock.model.plane import CaptureCounts, LiveTraffic, PlaneState
from interlock.model.release import ModelVersion
from interlock.plane.model_servers import ModelServers

START_SECONDS = 120.0
WATCH_SECONDS = 1.0
THREADS = 4  # as profiles/demo.yaml has it
HOUR = LiveTraffic(216_000, 3600.0)  # 60 requests a second, as the demonstration's users


def unchanged(state: PlaneState) -> PlaneState:
    """What was observed."""
    return state


@dataclass
class BenchPlane(FakeTraffic):
    """
    What the gates ask of a plane: who serves, in which processes, and why a candidate's ended.

    seen: what a defect makes of the state. last_hour: the live traffic that is reported.
    """

    servers: ModelServers
    incumbent_version: ModelVersion
    candidate_version: ModelVersion | None = None
    seen: Callable[[PlaneState], PlaneState] = unchanged
    last_hour: LiveTraffic = HOUR
    watched_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        super().__init__(cast(FakeClock, SystemClock()), self.incumbent_version)

    def observe(self) -> PlaneState:
        """The processes as they are."""
        self.watch()
        return self.seen(
            PlaneState(
                incumbent=self.servers.observe(self.incumbent_version),
                candidate=self.servers.observe(self.candidate_version),
                candidate_weight_bps=0,
                is_mirroring=False,
                release_id="benchmark",
                token=1,
                lease_remaining_seconds=60.0,
                spare=self.servers.observe(self.incumbent_version, is_spare=True),
            )
        )

    def watch(self) -> None:
        """Read every `/ping` anew, at most once a second."""
        if time.monotonic() - self.watched_at > WATCH_SECONDS:
            self.servers.watch(may_restart=lambda version: version == self.incumbent_version)
            self.watched_at = time.monotonic()

    def renew(self, *, lease_seconds: float, token: int) -> None:
        """Nobody else wants it."""
        assert lease_seconds > 0
        assert token

    def candidate_failure(self) -> str | None:
        """The last words of the candidate's server."""
        return self.servers.failure(self.candidate_version) if self.candidate_version else None

    def capture_counts(self) -> CaptureCounts:
        """The live traffic that a defect wants."""
        return CaptureCounts(0, 0, self.last_hour.requests_count, self.last_hour)


@contextmanager
def in_server_environment() -> Iterator[None]:
    """Processes that are started now know that they are servers; this one does not think so of itself afterwards."""
    os.environ[SERVED] = "1"
    try:
        yield
    finally:
        del os.environ[SERVED]


def start_server(servers: ModelServers, version: ModelVersion, *, memory_limit_mib: float | None = None, is_spare: bool = False) -> float:
    """
    A server of this version as the plane starts it, ready; returns the seconds that took.

    Raises:
        ArtifactError: it ended by itself, or was not ready in time.
    """
    started = time.monotonic()
    with in_server_environment():
        servers.load(servers.check(version, server="interlock"), thread_count=THREADS, memory_limit_mib=memory_limit_mib, is_spare=is_spare)
    while time.monotonic() - started < START_SECONDS:
        servers.watch(may_restart=lambda _: False)
        if (state := servers.observe(version, is_spare=is_spare)) is not None and state.ready:
            return time.monotonic() - started
        if not is_spare and (failure := servers.failure(version)) is not None:
            raise ArtifactError(failure)
        time.sleep(0.1)
    raise ArtifactError(f"{version.label} was not ready within {START_SECONDS:g} s")


@dataclass
class Serving:
    """Servers by need: the incumbent's are kept for the next defect, a candidate's ends with its own."""

    models: Path
    logs: Path
    servers: ModelServers = field(init=False)
    running: set[tuple[ModelVersion, bool]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.servers = ModelServers(models_directory=self.models, log_directory=self.logs)

    def keep(self, version: ModelVersion, *, is_spare: bool = False) -> None:
        """A server of this version from now on."""
        if (version, is_spare) not in self.running:
            start_server(self.servers, version, is_spare=is_spare)
            self.running.add((version, is_spare))

    def drop(self, version: ModelVersion) -> None:
        """Both servers of this version end."""
        self.servers.unload(version)
        self.running -= {(version, False), (version, True)}

    @contextmanager
    def plane(
        self, incumbent: ModelVersion, candidate: ModelVersion | None = None, *, memory_limit_mib: float | None = None
    ) -> Iterator[tuple[BenchPlane, float]]:
        """Incumbent and candidate served, and the seconds that the candidate's server took to start."""
        self.keep(incumbent)
        plane = BenchPlane(self.servers, incumbent)
        if candidate is None:
            yield plane, 0.0
            return
        try:
            seconds = start_server(self.servers, candidate, memory_limit_mib=memory_limit_mib)
            plane.candidate_version = candidate
            yield plane, seconds
        finally:
            self.servers.unload(candidate)


def without_spare(state: PlaneState) -> PlaneState:
    """The spare has gone."""
    return replace(state, spare=None)
