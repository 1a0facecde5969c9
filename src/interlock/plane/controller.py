"""
What the traffic plane may do, and to whom it listens.

Every move towards the candidate needs the token of the release that holds the plane, and is leased: when nobody renews,
`enforce_lease` puts all traffic back on the incumbent. Moves towards the incumbent need no token and always win.
"""

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

from interlock.errors import ConcurrencyError, ReleaseError, ServiceRefused
from interlock.model.plane import ALL_TRAFFIC_BPS, CandidateLimits, CaptureCounts, PlaneState
from interlock.model.release import ModelVersion
from interlock.plane.arms import Arms
from interlock.plane.candidate import CandidateSeat
from interlock.plane.departures import Departures
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.lease import Lease, Lost, Unended
from interlock.plane.live_history import LiveHistory
from interlock.plane.memory import PlaneMemory, read_memory, write_memory
from interlock.plane.model_servers import ModelServers
from interlock.plane.warmth import Warmth
from interlock.ports import Clock

TIDY_SECONDS = 1.0  # how often Envoy is compared with what it should do while nobody moves it; one look takes about 1 ms


class PlaneController:
    """The one writer of Envoy's split and endpoints. Its memory of who is the incumbent survives a restart."""

    def __init__(self, *, admin: EnvoyAdmin, servers: ModelServers, endpoints_directory: Path, state_file: Path, clock: Clock) -> None:
        self._admin = admin
        self._servers = servers
        self._state_file = state_file
        self._clock = clock
        self._arms = Arms(admin=admin, servers=servers, directory=endpoints_directory, clock=clock)
        self._departures = Departures(servers, clock)
        self._warmth = Warmth(servers, clock)
        self._history = LiveHistory(clock)
        self._lease = Lease(clock, state_file.with_name("lease.json"))
        self._lock = threading.RLock()
        self._memory = read_memory(state_file)
        self._seat = CandidateSeat(servers, self._departures)
        self._restore_reason: str | None = None
        self._tidy_at = 0.0
        self._blown = Unended(clock)

    @property
    def incumbent(self) -> ModelVersion | None:
        """The version that serves when no release runs."""
        return self._memory.incumbent

    @property
    def release_id(self) -> str | None:
        """The release that holds the plane."""
        return self._lease.release_id

    def start(self) -> None:
        """Bring back the incumbent of the last time, if there was one, on the servers it has; a release that was under way is over."""
        with self._lock:
            self._arms.make_safe()
            self._lease.free()
            if self.incumbent:
                self._warmth.bring_back(self.incumbent, self._memory.serving)
                self._arms.place(incumbent=self.incumbent, candidate=None)

    def observe(self) -> PlaneState:
        """The plane as read back from Envoy and from the processes."""
        split = self._admin.observe_split()
        with self._lock:
            return PlaneState(
                incumbent=self._servers.observe(self.incumbent),
                spare=self._servers.observe(self.incumbent, is_spare=True),
                candidate=self._servers.observe(self._seat.version),
                candidate_weight_bps=split.candidate_weight_bps,
                is_mirroring=split.is_mirroring,
                release_id=self.release_id,
                token=self._memory.token,
                lease_remaining_seconds=self._lease.remaining_seconds,
                last_restore_reason=self._restore_reason,
            )

    def adopt(self, version: ModelVersion, *, server: str, thread_count: int) -> PlaneState:
        """Make this version the first incumbent. Another one that has never been ready is stopped and forgotten, else ServiceRefused."""
        checked = self._servers.check(version, server=server)  # reads every file: not while the lease thread waits for the lock
        self._departures.await_end(version)
        if failed := self._forget_failed(version):
            self._servers.unload(failed)  # it has never answered anybody
        with self._lock:
            if self.incumbent not in (None, version):
                raise ConcurrencyError(f"another version was adopted meanwhile, asked was {version.label}: look who serves")
            self._departures.refuse(version)
            # First on disk: a server that runs for nobody would be a leak, an incumbent that has no server is loaded again.
            is_proved = self._memory.is_proved and self.incumbent == version
            self._remember(replace(self._memory, incumbent=version, serving=(server, thread_count), is_proved=is_proved))
            self._servers.load(checked, thread_count=thread_count)
            self._arms.place(incumbent=self.incumbent, candidate=self._seat.version)
        return self.observe()

    def begin(self, release_id: str, *, lease_seconds: float, above: int = 0) -> int:
        """Reserve the plane for one release; its token is larger than every earlier one, and than `above`."""
        ends_at = self._lease.end_of(lease_seconds)
        with self._lock:
            if self.release_id is not None:
                raise ConcurrencyError(f"release {self.release_id} holds the traffic plane: wait until it has ended")
            self._warmth.require(self.incumbent)
            token = max(self._memory.token, above) + 1
            self._blown.forget()
            self._remember(replace(self._memory, token=token, is_proved=True))  # first: a token that a restart forgets is given out twice
            self._lease.hold(release_id, token=token, ends_at=ends_at)
            return token

    def load_candidate(self, version: ModelVersion, *, server: str, thread_count: int, limits: CandidateLimits, token: int) -> None:
        """Start the candidate's server, without traffic; from now on the fuse holds it to these limits."""
        with self._lock:
            self._lease.require(token)
        checked = self._servers.check(version, server=server)  # reads every file: not while the lease thread waits for the lock
        self._departures.await_end(version)
        with self._lock:
            self._lease.require(token)
            if version == self.incumbent:
                raise ServiceRefused(f"{version.label} is the incumbent already: there is nothing to release")
            self._lease.guard(limits, pid=self._seat.take(checked, thread_count=thread_count, limits=limits))

    def candidate_failure(self) -> str | None:
        """Why the candidate's server ended by itself; None while it runs or none is loaded."""
        return self._servers.failure(self._seat.version) if self._seat.version else None

    def incumbent_failure(self) -> str | None:
        """Why the incumbent's server does not run, and is not started again yet; None while it runs or there is none."""
        return self._servers.failure(self.incumbent) if self.incumbent else None

    def set_mirroring(self, *, enabled: bool, token: int) -> None:
        """Mirror and capture both directions from now on, or stop."""
        with self._lock:
            self._lease.require(token)
            if enabled:
                self._seat.require_ready()
                self._arms.place(incumbent=self.incumbent, candidate=self._seat.version)
            weight_bps = self._admin.observe_split().candidate_weight_bps
            if not enabled and weight_bps > 0:
                raise ServiceRefused("the candidate has live traffic: its predictions must stay compared")
            if weight_bps == 0:
                self._seat.shadow()
            self._admin.set_split(weight_bps, mirror=enabled, quiet=not enabled)

    def set_weight(self, weight_bps: int, *, lease_seconds: float, token: int) -> None:
        """Give the candidate this share of live requests, for `lease_seconds` at a time."""
        if not 0 <= weight_bps <= ALL_TRAFFIC_BPS:
            raise ServiceRefused(f"candidate weight {weight_bps} bps is outside 0..{ALL_TRAFFIC_BPS}")
        ends_at = self._lease.end_of(lease_seconds)
        with self._lock:
            self._lease.require(token)
            if weight_bps > 0:
                self._seat.require_ready()
                self._seat.expose()
            self._lease.renew(ends_at)
            self._admin.set_split(weight_bps, mirror=True, quiet=False)

    def renew(self, *, lease_seconds: float, token: int) -> None:
        """Hold the plane and the candidate's share for another `lease_seconds`."""
        ends_at = self._lease.end_of(lease_seconds)
        with self._lock:
            self._lease.require(token)
            self._lease.renew(ends_at)

    def promote(self, *, token: int) -> None:
        """
        Make the candidate the incumbent without losing a request; the former incumbent drains and stops.

        From the moment it is on disk there is only forwards: called again with the same token, it finishes what is left.
        """
        with self._lock:
            if token != self._memory.promoted_token:
                self._make_incumbent(token)
            elif token != self._memory.token:
                return  # done long ago, and another release has begun since
            self._arms.place(incumbent=self.incumbent, candidate=self._seat.version)
            former = self._departures.pending
            self._arms.make_safe()
            self._lease.free()
        self._departures.stop(former)

    def restore_incumbent(self, *, reason: str, token: int | None = None) -> None:
        """All traffic to the incumbent, mirroring off; whoever held the plane has lost it. Needs no token; an older one is refused."""
        with self._lock:
            if token is not None and token < self._memory.token:
                raise ConcurrencyError(f"token {token} is stale: a release with token {self._memory.token} has begun; nothing was changed")
            self._admin.set_split(0, mirror=False, quiet=True)
            self._note_restored(reason)

    def end(self, *, token: int | None) -> None:
        """Stop the candidate's server and free the plane."""
        with self._lock:
            if token is not None and self.release_id is not None:
                self._lease.require(token)
            if self._admin.observe_split().candidate_weight_bps != 0:
                raise ServiceRefused("the candidate still has traffic: restore the incumbent first")
            self._admin.set_split(0, mirror=False, quiet=True)
            self._arms.place(incumbent=self.incumbent, candidate=None)
            self._seat.leave()
            self._blown.forget()
            self._lease.free()
        self._departures.stop(self._departures.pending)

    def capture_counts(self) -> CaptureCounts:
        """What mirroring and capture have given up so far, and the live traffic of the last hour; each call adds to its history."""
        return self._history.complete(self._admin.capture_counts)

    def enforce_lease(self) -> Lost | None:
        """
        Restore the incumbent when the lease is over or the fuse has blown; returns the release that lost the plane, if one did now.

        It has lost the plane only when the safe split was read back; until then every call asks for it again. While nobody has
        anything to lose, every call compares Envoy with what it should do, once a second at most, and puts that right.
        """
        with self._lock:
            if (blown := self._lease.blown()) is not None:
                self._arms.make_safe()
                self._blown.note(Lost(blown.release_id, self._seat.version))
                self._note_restored(f"the fuse has blown: {blown.reason}")
            if not self._lease.is_over:
                self._tidy()
                return self._blown.due()
            self._arms.make_safe()
            lost = Lost(self.release_id or "unknown", self._seat.version)
            self._note_restored(f"the lease of release {lost.release_id} expired")
            self._tidy_at = self._clock.monotonic()  # traffic is safe; the candidate's server is seen to in later calls
            with contextlib.suppress(ReleaseError):
                self._tidy()
            return lost

    def watch_servers(self) -> None:
        """Read every model server's health once; the incumbent's are restarted when they died or hang, a candidate's never."""
        self._servers.watch(may_restart=lambda version: version == self.incumbent)
        with self._lock:
            self._arms.refresh()
            if not self._memory.is_proved and self._warmth.is_ready(self.incumbent):
                self._remember(replace(self._memory, is_proved=True))

    def keep_spare(self) -> None:
        """Start a second server of an incumbent that answers, unless there is one: it serves when the first one ends or hangs."""
        incumbent, serving = self.incumbent, self._memory.serving
        if files := self._warmth.check_spare(incumbent, serving):  # reads every file: not while the lease thread waits for the lock
            with self._lock:
                if self.incumbent == incumbent:
                    self._servers.load(files, thread_count=serving[1], is_spare=True)

    def _tidy(self) -> None:
        """Put right what nobody else will: a share that no release holds, a mirror left on, servers that no arm needs."""
        if (now := self._clock.monotonic()) < self._tidy_at:
            return
        self._tidy_at = now + TIDY_SECONDS  # also when Envoy fails now: others wait for the lock
        if self.release_id is None:
            self._arms.keep_safe()
        kept = self._seat.version if self.release_id is not None else None
        if (self._seat.version == kept and not self._departures.pending) or self._departures.is_stopping:
            return
        if not self._arms.is_placed(incumbent=self.incumbent, candidate=kept):
            self._tidy_at = now  # Envoy needs about 0.1 s: the next call looks again
            return
        if kept is None:
            self._seat.leave()
        self._departures.stop_in_background(self._departures.pending)

    def _make_incumbent(self, token: int) -> None:
        """The promotion itself, on disk first: when that fails nothing has changed, and the release can still go back."""
        self._lease.require(token)
        self._seat.require_ready()
        weight_bps = self._admin.observe_split().candidate_weight_bps
        if weight_bps != ALL_TRAFFIC_BPS:
            raise ServiceRefused(f"the candidate has {weight_bps} of {ALL_TRAFFIC_BPS} bps: it is promoted at all traffic only")
        former, serving = self.incumbent, self._seat.serving
        self._remember(replace(self._memory, incumbent=self._seat.version, serving=serving, is_proved=True, promoted_token=token))
        if former:
            self._departures.add(former)
        self._seat.promote()

    def _forget_failed(self, version: ModelVersion) -> ModelVersion | None:
        """The incumbent that has never been ready, forgotten in favour of this version; None when there is nothing to forget."""
        with self._lock:
            failed = self.incumbent
            if failed is None or failed == version:
                return None
            if self._memory.is_proved or self._warmth.is_ready(self.incumbent):
                raise ServiceRefused(f"{failed.label} is the incumbent: later versions come to traffic by a release only")
            self._remember(replace(self._memory, incumbent=None))
            return failed

    def _note_restored(self, reason: str) -> None:
        self._restore_reason = reason
        self._lease.free()

    def _remember(self, memory: PlaneMemory) -> None:
        write_memory(self._state_file, memory)
        self._memory = memory
