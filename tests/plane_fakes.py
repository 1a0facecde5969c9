"""An Envoy admin and model servers in memory, for the plane's controller: Envoy as far as the controller can see it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from interlock.adapters.fakes import FakeClock
from interlock.errors import ServiceRefused, ServiceUnavailable
from interlock.model.plane import CandidateLimits, CaptureCounts, ServerState
from interlock.model.release import ModelVersion
from interlock.plane.controller import PlaneController
from interlock.plane.endpoints import endpoints_path
from interlock.plane.envoy_admin import EnvoyAdmin, EnvoySplit, ObservedEndpoint
from interlock.plane.envoy_settings import ENDPOINT_CLUSTERS
from interlock.plane.model_servers import CheckedFiles, ModelServers

NOBODY = 2**22 + 1  # no process can have this id
LIMITS = CandidateLimits(error_percent=50.0, p99_ms=1900.0, min_sample_count=50, resident_mib=2048.0)


class FakeAdmin(EnvoyAdmin):
    """
    Does what it is asked at once and takes endpoint files over. Faults: `deaf`, `blind` (to endpoint files), `down`, `broken_split`.

    `split_reads` counts how often the split was read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.split = EnvoySplit(0, is_mirroring=False, is_quiet=True)
        self.deaf = self.blind = self.down = False
        self.broken_split = False
        self.split_reads = 0
        self.counts = CaptureCounts(1, 2, 3)

    def set_split(self, weight_bps: int, *, mirror: bool, quiet: bool) -> None:
        self._answer()
        if not self.deaf:
            self.split = EnvoySplit(weight_bps, is_mirroring=mirror, is_quiet=quiet)
            self.broken_split = False

    def observe_split(self) -> EnvoySplit:
        self._answer()
        self.split_reads += 1
        if self.broken_split:
            raise ServiceRefused("Envoy's runtime key is '7', which Interlock did not set; set the split again")
        return self.split

    def capture_counts(self) -> CaptureCounts:
        self._answer()
        return self.counts

    def observed_endpoints(self) -> dict[str, tuple[ObservedEndpoint, ...]]:
        self._answer()
        return {cluster: () if self.blind else self.endpoints(cluster) for cluster in ENDPOINT_CLUSTERS}

    def endpoints(self, cluster: str) -> tuple[ObservedEndpoint, ...]:
        """What the endpoint file of a cluster says."""
        (assignment,) = json.loads(endpoints_path(self._directory, cluster).read_text())["resources"]
        return tuple(
            ObservedEndpoint(
                entry["endpoint"]["address"]["socket_address"]["address"],
                entry["endpoint"]["address"]["socket_address"]["port_value"],
                entry["endpoint"]["hostname"],
                locality["priority"],
                is_healthy=True,
            )
            for locality in assignment["endpoints"]
            for entry in locality["lb_endpoints"]
        )

    def labels(self, cluster: str) -> list[str]:
        """Whose servers an endpoint file names, each once."""
        return list(dict.fromkeys(at.label for at in self.endpoints(cluster)))

    def _answer(self) -> None:
        if self.down:
            raise ServiceUnavailable("Envoy's admin does not answer")


class FakeServers(ModelServers):
    """
    Servers that are ready as soon as they are loaded, unless a test says otherwise. `unloaded` is what was stopped, in order.

    Every version has a spare from the start, unless `spares` is a set: then those labels whose spare was loaded. `leftovers`: what a killed
    supervisor left running. `on_check` is called while the files of a version are read, `on_unload` while a server is stopped.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, ModelVersion] = {}
        self.ports: dict[str, int] = {}
        self.not_ready: set[str] = set()
        self.died: dict[str, str] = {}
        self.unloaded: list[str] = []
        self.restarted: list[str] = []
        self.spares: set[str] | None = None
        self.leftovers: set[str] = set()
        self.memory_limits_mib: dict[str, float | None] = {}
        self.on_check: Callable[[], object] = lambda: None
        self.on_unload: Callable[[], object] = lambda: None

    def check(self, version: ModelVersion, *, server: str) -> CheckedFiles:
        if server not in ("interlock", "mlflow"):
            raise ServiceRefused(f"serving.server is {server!r}")
        self.on_check()
        return CheckedFiles(version, Path("models"), "interlock" if server == "interlock" else "mlflow")

    def load(self, files: CheckedFiles, *, thread_count: int, is_spare: bool = False, memory_limit_mib: float | None = None) -> None:
        version = files.version
        self.memory_limits_mib[version.label] = memory_limit_mib
        if is_spare:
            assert self.spares is not None
            self.spares.add(version.label)
            return
        if self.loaded.get(version.label, version) != version:
            raise ServiceRefused(f"{version.label} runs with other files")
        self.loaded[version.label] = version
        self.ports.setdefault(version.label, 20_000 + len(self.ports))

    def take_over(self, version: ModelVersion, *, server: str, thread_count: int, is_spare: bool = False) -> bool:
        name = version.label + " spare" * is_spare
        if name in self.leftovers and is_spare and self.spares is not None:
            self.spares.add(version.label)
        elif name in self.leftovers:
            self.load(CheckedFiles(version, Path("models"), "interlock"), thread_count=thread_count)
        return name in self.leftovers

    def set_free(self, version: ModelVersion) -> None:
        self.memory_limits_mib[version.label] = None

    def unload(self, version: ModelVersion) -> None:
        self.on_unload()
        if self.loaded.pop(version.label, None):
            self.unloaded.append(version.label)

    def observe(self, version: ModelVersion | None, *, is_spare: bool = False) -> ServerState | None:
        if version is None or version.label not in self.loaded:
            return None
        if is_spare and self.spares is not None and version.label not in self.spares:
            return None
        ready = version.label + " spare" * is_spare not in self.not_ready
        port = self.ports[version.label] + 10_000 * is_spare
        return ServerState(version, NOBODY, port, ready=ready, resident_mib=200.0, restart_count=0, peak_resident_mib=210.0)

    def watch(self, *, may_restart: Callable[[ModelVersion], bool]) -> None:
        self.restarted += [label for label, version in self.loaded.items() if label in self.died and may_restart(version)]

    def failure(self, version: ModelVersion) -> str | None:
        return self.died.get(version.label)


@dataclass
class FakePlane:
    """A controller over both, and how to start it again as after a crash of the supervisor."""

    root: Path
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.admin, self.servers = FakeAdmin(self.root / "envoy"), FakeServers()
        self.controller = self.restarted()

    @property
    def state_file(self) -> Path:
        return self.root / "plane.json"

    def restarted(self) -> PlaneController:
        """A new controller with the memory of the old one's state file."""
        return PlaneController(
            admin=self.admin,
            servers=self.servers,
            endpoints_directory=self.root / "envoy",
            state_file=self.state_file,
            clock=self.clock,
        )
