"""Where the model servers of both arms are, as Envoy was told and has taken over; and the split that is always safe."""

from collections.abc import Sequence
from pathlib import Path

from interlock.errors import ServiceRefused, TrafficNotConverged
from interlock.model.plane import ServerState
from interlock.model.release import ModelVersion
from interlock.plane.endpoints import Endpoint, write_arms
from interlock.plane.envoy_admin import EnvoyAdmin, EnvoySplit
from interlock.plane.envoy_settings import CANDIDATE, CANDIDATE_ONLY, INCUMBENT, INCUMBENT_ONLY
from interlock.plane.model_servers import ModelServers
from interlock.ports import Clock

CONVERGE_SECONDS = 5.0  # Envoy takes a new endpoint file over within about 0.1 s; 5 s is a machine in trouble
POLL_SECONDS = 0.02
SAFE_SPLIT = EnvoySplit(0, is_mirroring=False, is_quiet=True)


class Arms:
    """Places the arms' servers in Envoy; nothing is placed before Envoy was seen to use it."""

    def __init__(self, *, admin: EnvoyAdmin, servers: ModelServers, directory: Path, clock: Clock) -> None:
        self._admin = admin
        self._servers = servers
        self._directory = directory
        self._clock = clock
        self._placed: tuple[ModelVersion | None, ModelVersion | None] = (None, None)
        self._told: list[Endpoint] = []

    def place(self, *, incumbent: ModelVersion | None, candidate: ModelVersion | None) -> None:
        """Tell Envoy where the arms are and wait until it has taken that over. TrafficNotConverged after 5 s."""
        wanted = self._tell(incumbent, candidate)
        deadline = self._clock.monotonic() + CONVERGE_SECONDS
        while late := self._late(wanted):
            if self._clock.monotonic() > deadline:
                raise TrafficNotConverged(f"Envoy has not taken over the endpoints of {', '.join(late)} after {CONVERGE_SECONDS:g} s")
            self._clock.sleep(POLL_SECONDS)

    def is_placed(self, *, incumbent: ModelVersion | None, candidate: ModelVersion | None) -> bool:
        """Tell Envoy the same and look once, without waiting."""
        return not self._late(self._tell(incumbent, candidate))

    def refresh(self) -> None:
        """Tell Envoy when the servers of the placed arms have changed: a spare that answers now, or has gone."""
        incumbent, candidate = self._placed
        if self._endpoints(incumbent, candidate) != self._told:
            self._tell(incumbent, candidate)

    def make_safe(self) -> None:
        """All traffic to the incumbent, nothing mirrored, read back. TrafficNotConverged when Envoy says otherwise."""
        self._admin.set_split(0, mirror=False, quiet=True)
        if (found := self._admin.observe_split()) != SAFE_SPLIT:
            raise TrafficNotConverged(f"Envoy was asked for all traffic on the incumbent and has {found}: it is asked again")

    def keep_safe(self) -> None:
        """Make the split safe unless it is."""
        try:
            if self._admin.observe_split() == SAFE_SPLIT:
                return
        except ServiceRefused:
            pass  # runtime values that nobody here has set are not safe either
        self.make_safe()

    def _tell(self, incumbent: ModelVersion | None, candidate: ModelVersion | None) -> dict[str, set[int]]:
        """Write the endpoint files; returns the ports that each cluster must have."""
        endpoints = self._endpoints(incumbent, candidate)
        of_incumbent = [at for at in endpoints if at.arm == INCUMBENT]
        of_candidate = [at for at in endpoints if at.arm == CANDIDATE]
        write_arms(self._directory, incumbent=of_incumbent, candidate=of_candidate)
        self._placed, self._told = (incumbent, candidate), endpoints
        return {
            INCUMBENT: _ports(of_incumbent),
            INCUMBENT_ONLY: _ports(of_incumbent),
            CANDIDATE_ONLY: _ports(of_candidate),
            CANDIDATE: _ports(endpoints),
        }

    def _late(self, wanted: dict[str, set[int]]) -> list[str]:
        observed = self._admin.observed_endpoints()
        return [cluster for cluster, ports in wanted.items() if {at.port for at in observed[cluster]} != ports]

    def _endpoints(self, incumbent: ModelVersion | None, candidate: ModelVersion | None) -> list[Endpoint]:
        """The servers of both arms; the incumbent's spare behind it, from its first answer on: a slow one is better than none."""
        primary, spare = self._servers.observe(incumbent), self._servers.observe(incumbent, is_spare=True)
        has_answered = spare is not None and (spare.ready or spare.port in _ports(self._told))
        of_incumbent = [primary, spare if has_answered else None]
        return [*_placed_at(of_incumbent, INCUMBENT), *_placed_at([self._servers.observe(candidate)], CANDIDATE)]


def _placed_at(servers: Sequence[ServerState | None], arm: str) -> list[Endpoint]:
    return [Endpoint("127.0.0.1", state.port, state.version.label, arm) for state in servers if state]


def _ports(endpoints: Sequence[Endpoint]) -> set[int]:
    return {endpoint.port for endpoint in endpoints}
