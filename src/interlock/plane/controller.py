"""
What the traffic plane may do, and to whom it listens.

Every move towards the candidate needs the token of the release that holds the plane, and is leased: when nobody renews,
`enforce_lease` puts all traffic back on the incumbent. Moves towards the incumbent need no token and always win.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from interlock.errors import ConcurrencyError, ServiceRefused, StateError, TrafficNotConverged
from interlock.model.plane import ALL_TRAFFIC_BPS, CaptureCounts, PlaneState
from interlock.model.release import ModelVersion
from interlock.plane.endpoints import Endpoint, write_arms
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.envoy_settings import CANDIDATE, CANDIDATE_ONLY, INCUMBENT, INCUMBENT_ONLY
from interlock.plane.model_servers import ModelServers
from interlock.plane.state_directory import write_json
from interlock.ports import Clock

CONVERGE_SECONDS = 5.0  # Envoy takes a new endpoint file over within about 0.1 s; 5 s is a machine in trouble
LONGEST_LEASE_SECONDS = 120.0  # the gates' reservation; a lease that outlives its release by more protects nobody
DRAIN_SECONDS = 1.0  # requests in flight finish in milliseconds; the model server itself waits 5 s more on SIGTERM


class PlaneController:
    """The one writer of Envoy's split and endpoints. Its memory of who is the incumbent survives a restart."""

    def __init__(self, *, admin: EnvoyAdmin, servers: ModelServers, endpoints_directory: Path, state_file: Path, clock: Clock) -> None:
        self._admin = admin
        self._servers = servers
        self._endpoints = endpoints_directory
        self._state_file = state_file
        self._clock = clock
        self._lock = threading.RLock()
        self._incumbent: ModelVersion | None = None
        self._candidate: ModelVersion | None = None
        self._serving = self._candidate_serving = ("interlock", 4)
        self._release_id: str | None = None
        self._token = 0
        self._lease_ends_at: float | None = None
        self._remember()

    @property
    def incumbent(self) -> ModelVersion | None:
        """The version that serves when no release runs."""
        return self._incumbent

    def start(self) -> None:
        """Bring back the incumbent of the last time, if there was one; a release that was under way is over."""
        with self._lock:
            self._admin.set_split(0, mirror=False, quiet=True)
            if self._incumbent:
                self._servers.load(self._incumbent, server=self._serving[0], thread_count=self._serving[1])
                self._write_endpoints()

    def observe(self) -> PlaneState:
        """The plane as read back from Envoy and from the processes."""
        split = self._admin.observe_split()
        with self._lock:
            remaining = None if self._lease_ends_at is None else max(0.0, self._lease_ends_at - self._clock.monotonic())
            return PlaneState(
                incumbent=self._servers.observe(self._incumbent),
                candidate=self._servers.observe(self._candidate),
                candidate_weight_bps=split.candidate_weight_bps,
                is_mirroring=split.is_mirroring,
                release_id=self._release_id,
                token=self._token,
                lease_remaining_seconds=remaining,
            )

    def adopt(self, version: ModelVersion, *, server: str, thread_count: int) -> PlaneState:
        """Make this version the first incumbent. ServiceRefused when there is one already."""
        with self._lock:
            if self._incumbent is not None and self._incumbent != version:
                raise ServiceRefused(f"{self._incumbent.label} is the incumbent: later versions come to traffic by a release only")
            self._servers.load(version, server=server, thread_count=thread_count)
            self._save(version, (server, thread_count), self._token)
            self._incumbent, self._serving = version, (server, thread_count)
            self._write_endpoints()
        return self.observe()

    def begin(self, release_id: str, *, lease_seconds: float) -> int:
        """Reserve the plane for one release; its token is larger than every earlier one."""
        lease_ends_at = self._lease_end(lease_seconds)
        with self._lock:
            if self._release_id is not None:
                raise ConcurrencyError(f"release {self._release_id} holds the traffic plane: wait until it has ended")
            incumbent = self._servers.observe(self._incumbent)
            if incumbent is None or not incumbent.ready:
                raise ServiceRefused("INCUMBENT_UNHEALTHY: no incumbent is ready to serve; bring it back before releasing another version")
            self._save(self._incumbent, self._serving, self._token + 1)  # first: a token that a restart forgets would be given out twice
            self._token += 1
            self._release_id, self._lease_ends_at = release_id, lease_ends_at
            return self._token

    def load_candidate(self, version: ModelVersion, *, server: str, thread_count: int, token: int) -> None:
        """Start the candidate's server, without traffic."""
        with self._lock:
            self._require(token)
            if version == self._incumbent:
                raise ServiceRefused(f"{version.label} is the incumbent already: there is nothing to release")
            self._servers.load(version, server=server, thread_count=thread_count)
            left_over, self._candidate = self._candidate, version
            self._candidate_serving = (server, thread_count)
        if left_over not in (None, version):  # of a release that lost the plane and could not clean up
            self._servers.unload(left_over)

    def candidate_failure(self) -> str | None:
        """Why the candidate's server ended by itself; None while it runs or none is loaded."""
        return self._servers.failure(self._candidate) if self._candidate else None

    def set_mirroring(self, *, enabled: bool, token: int) -> None:
        """Mirror and capture both directions from now on, or stop."""
        with self._lock:
            self._require(token)
            if enabled:
                self._require_ready_candidate()
                self._write_endpoints()
            weight_bps = self._admin.observe_split().candidate_weight_bps
            if not enabled and weight_bps > 0:
                raise ServiceRefused("the candidate has live traffic: its predictions must stay compared")
            self._admin.set_split(weight_bps, mirror=enabled, quiet=not enabled)

    def set_weight(self, weight_bps: int, *, lease_seconds: float, token: int) -> None:
        """Give the candidate this share of live requests, for `lease_seconds` at a time."""
        if not 0 <= weight_bps <= ALL_TRAFFIC_BPS:
            raise ServiceRefused(f"candidate weight {weight_bps} bps is outside 0..{ALL_TRAFFIC_BPS}")
        lease_ends_at = self._lease_end(lease_seconds)
        with self._lock:
            self._require(token)
            if weight_bps > 0:
                self._require_ready_candidate()
            self._lease_ends_at = lease_ends_at
            self._admin.set_split(weight_bps, mirror=True, quiet=False)

    def renew(self, *, lease_seconds: float, token: int) -> None:
        """Hold the plane and the candidate's share for another `lease_seconds`."""
        lease_ends_at = self._lease_end(lease_seconds)
        with self._lock:
            self._require(token)
            self._lease_ends_at = lease_ends_at

    def promote(self, *, token: int) -> None:
        """Make the candidate the incumbent without losing a request; the former incumbent drains and stops."""
        with self._lock:
            self._require(token)
            self._require_ready_candidate()
            weight_bps = self._admin.observe_split().candidate_weight_bps
            if weight_bps != ALL_TRAFFIC_BPS:
                raise ServiceRefused(f"the candidate has {weight_bps} of {ALL_TRAFFIC_BPS} bps: it is promoted at all traffic only")
            former = self._incumbent
            # First on disk: when that fails nothing has changed, and the release can still go back to its incumbent.
            self._save(self._candidate, self._candidate_serving, self._token)
            self._incumbent, self._candidate, self._serving = self._candidate, None, self._candidate_serving
            self._write_endpoints()
            self._admin.set_split(0, mirror=False, quiet=True)
            self._free()
        self._stop_drained(former)

    def restore_incumbent(self, *, reason: str) -> None:
        """All traffic to the incumbent, mirroring off; whoever held the plane has lost it. Needs no token, is idempotent."""
        del reason  # recorded by the caller; here it makes the call explain itself
        with self._lock:
            self._admin.set_split(0, mirror=False, quiet=True)
            self._free()

    def end(self, *, token: int | None) -> None:
        """Stop the candidate's server and free the plane."""
        with self._lock:
            if token is not None and self._release_id is not None:
                self._require(token)
            if self._admin.observe_split().candidate_weight_bps != 0:
                raise ServiceRefused("the candidate still has traffic: restore the incumbent first")
            self._admin.set_split(0, mirror=False, quiet=True)
            former = self._drop_candidate()
            self._free()
        self._stop_drained(former)

    def capture_counts(self) -> CaptureCounts:
        """What mirroring and capture have given up so far."""
        return self._admin.capture_counts()

    def enforce_lease(self) -> str | None:
        """
        Restore the incumbent when the lease is over; returns the release that lost the plane, if one did now.

        The candidate's server is stopped in a thread of its own: that takes seconds, and the next lease may be over before.
        """
        with self._lock:
            if not self._lease_is_over():
                return None
            lost = self._release_id
            self.restore_incumbent(reason="lease expired")
            former = self._drop_candidate()
        threading.Thread(target=self._stop_drained, args=(former,), name="stop candidate", daemon=True).start()
        return lost

    def watch_servers(self) -> None:
        """Read every model server's health once; the incumbent's is restarted when it died, a candidate's never."""
        self._servers.watch(may_restart=lambda version: version == self._incumbent)

    def _require(self, token: int) -> None:
        if self._release_id is None or token != self._token or self._lease_is_over():
            holder = self._release_id or "nobody"
            raise ConcurrencyError(f"token {token} is stale: the plane is held by {holder} with token {self._token}; this release is over")

    def _require_ready_candidate(self) -> None:
        state = self._servers.observe(self._candidate)
        if state is None or not state.ready:
            raise ServiceRefused("the candidate's server is not ready: it gets no traffic")

    def _write_endpoints(self) -> None:
        """Tell Envoy where the arms are and wait until it has taken that over."""
        incumbent, candidate = self._endpoints_of(self._incumbent, INCUMBENT), self._endpoints_of(self._candidate, CANDIDATE)
        write_arms(self._endpoints, incumbent=incumbent, candidate=candidate)
        wanted = {
            INCUMBENT: _ports(incumbent),
            INCUMBENT_ONLY: _ports(incumbent),
            CANDIDATE_ONLY: _ports(candidate),
            CANDIDATE: _ports([*candidate, *incumbent]),
        }
        deadline = self._clock.monotonic() + CONVERGE_SECONDS
        while True:
            observed = self._admin.observed_endpoints()
            late = [cluster for cluster, ports in wanted.items() if {at.port for at in observed[cluster]} != ports]
            if not late:
                return
            if self._clock.monotonic() > deadline:
                raise TrafficNotConverged(f"Envoy has not taken over the endpoints of {', '.join(late)} after {CONVERGE_SECONDS:g} s")
            self._clock.sleep(0.02)

    def _endpoints_of(self, version: ModelVersion | None, arm: str) -> list[Endpoint]:
        state = self._servers.observe(version)
        return [Endpoint("127.0.0.1", state.port, state.version.label, arm)] if state else []

    def _drop_candidate(self) -> ModelVersion | None:
        """Take the candidate out of Envoy; it is forgotten only when Envoy has done that. Returns whose server is to be stopped."""
        former, self._candidate = self._candidate, None
        try:
            self._write_endpoints()
        except Exception:
            self._candidate = former
            raise
        return former

    def _stop_drained(self, former: ModelVersion | None) -> None:
        if former:
            self._clock.sleep(DRAIN_SECONDS)
            self._servers.unload(former)

    def _lease_end(self, lease_seconds: float) -> float:
        if not 0 < lease_seconds <= LONGEST_LEASE_SECONDS:  # NaN is outside too
            raise ServiceRefused(f"a lease of {lease_seconds} s was asked, must be above 0 and at most {LONGEST_LEASE_SECONDS:g} s")
        return self._clock.monotonic() + lease_seconds

    def _lease_is_over(self) -> bool:
        return self._lease_ends_at is not None and self._clock.monotonic() >= self._lease_ends_at

    def _free(self) -> None:
        self._release_id, self._lease_ends_at = None, None

    def _save(self, incumbent: ModelVersion | None, serving: tuple[str, int], token: int) -> None:
        saved = {"incumbent": asdict(incumbent) if incumbent else None, "serving": list(serving), "token": token}
        try:
            write_json(self._state_file, saved)
        except OSError as error:
            raise StateError(f"{self._state_file} cannot be written ({error.strerror}): free or unlock the state directory") from error

    def _remember(self) -> None:
        if not self._state_file.exists():
            return
        try:
            saved = json.loads(self._state_file.read_text())
            self._token = int(saved["token"])
            self._serving = (str(saved["serving"][0]), int(saved["serving"][1]))
            self._incumbent = ModelVersion(**saved["incumbent"]) if saved["incumbent"] else None
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise StateError(
                f"{self._state_file} does not say who the incumbent is ({type(error).__name__}): mend it, or choose another directory"
            ) from error


def _ports(endpoints: Sequence[Endpoint]) -> set[int]:
    return {endpoint.port for endpoint in endpoints}
