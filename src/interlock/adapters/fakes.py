"""
The world in memory, for unit tests. Each fake is held to the same contract suite as the real thing (tests/contract/).

Nothing here sleeps: FakeClock moves when somebody waits.
"""

import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from interlock.adapters.fake_registry import FakeRegistry as FakeRegistry  # one address for all fakes
from interlock.errors import ConcurrencyError, EvidenceError, ServiceRefused, ServiceUnavailable
from interlock.model.journal import Leg
from interlock.model.plane import ALL_TRAFFIC_BPS, CandidateLimits, CaptureCounts, PlaneState, ServerState
from interlock.model.release import ModelVersion
from interlock.ports import FlowRun

LONGEST_LEASE_SECONDS = 120.0
INCUMBENT_PORT, CANDIDATE_PORT, SPARE_PORT = 1, 2, 3


class FakeClock:
    """
    Time that moves only when somebody sleeps. `on_sleep` lets a test make the world go on meanwhile.
    Another thread than the one that made the clock sleeps for itself alone.
    """

    def __init__(self) -> None:
        self.seconds = 1000.0
        self._thread, self._own = threading.get_ident(), threading.local()
        self.jumped_seconds = 0.0  # of the wall clock alone
        self.on_sleep: Callable[[float], None] = lambda _: None

    def monotonic(self) -> float:
        """Seconds slept so far, from 1000."""
        return self.seconds + float(getattr(self._own, "seconds", 0.0))

    def utc_now(self) -> datetime:
        """The same as a moment of 2026, plus what a test lets the wall clock jump."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds + self.jumped_seconds)

    def sleep(self, seconds: float) -> None:
        """Move on."""
        if threading.get_ident() != self._thread:
            self._own.seconds = getattr(self._own, "seconds", 0.0) + seconds
            return
        self.seconds += seconds
        self.on_sleep(seconds)


class FakeTraffic:
    """
    A plane that does at once what it is asked, with the real one's rules about tokens and leases.

    Faults for tests: `deaf` (says yes, changes nothing), `down` (does not answer), `candidate_ready`, `incumbent_ready`,
    `incumbent_pid`, `spare_ready`, `dead_reason`. `calls` is what was asked, in order.
    """

    def __init__(self, clock: FakeClock, incumbent: ModelVersion | None) -> None:
        self._clock = clock
        self.incumbent = incumbent
        self.candidate: ModelVersion | None = None
        self.weight_bps, self.mirroring = 0, False
        self.release_id: str | None = None
        self.token = 0
        self.lease_ends_at: float | None = None
        self.restore_reason: str | None = None
        self.deaf = self.down = False
        self.candidate_ready = self.incumbent_ready = self.spare_ready = True
        self.incumbent_pid = 1
        self.dead_reason: str | None = None
        self.counts = CaptureCounts(0, 0, 0)
        self.calls: list[str] = []

    def observe(self) -> PlaneState:
        """What it does now."""
        self._answer("observe")
        remaining = None if self.lease_ends_at is None else max(0.0, self.lease_ends_at - self._clock.monotonic())
        incumbent = _server(self.incumbent, port=INCUMBENT_PORT, ready=self.incumbent_ready, pid=self.incumbent_pid)
        candidate = _server(self.candidate, port=CANDIDATE_PORT, ready=self.candidate_ready)
        held = (self.weight_bps, self.mirroring, self.release_id, self.token, remaining)
        spare = _server(self.incumbent, port=SPARE_PORT, ready=self.spare_ready, pid=3)
        return PlaneState(incumbent, candidate, *held, spare=spare, last_restore_reason=self.restore_reason)

    def adopt(self, version: ModelVersion, *, server: str, thread_count: int) -> PlaneState:
        """The first incumbent."""
        self._answer(f"adopt {version.label} {server} {thread_count}")
        if self.incumbent not in (None, version):
            raise ServiceRefused("there is an incumbent already")
        self.incumbent = version
        return self.observe()

    def begin(self, release_id: str, *, lease_seconds: float, above: int = 0) -> int:
        """Reserve."""
        self._answer(f"begin {release_id}")
        lease_ends_at = self._lease_end(lease_seconds)
        if self.release_id is not None:
            raise ConcurrencyError(f"release {self.release_id} holds the plane")
        if self.incumbent is None or not self.incumbent_ready:
            raise ServiceRefused("INCUMBENT_UNHEALTHY")
        self.token = max(self.token, above) + 1
        self.release_id, self.lease_ends_at = release_id, lease_ends_at
        return self.token

    def load_candidate(self, version: ModelVersion, *, server: str, thread_count: int, limits: CandidateLimits, token: int) -> None:
        """Start a server. Nobody enforces the limits here."""
        del limits
        self._answer(f"load {version.label} {server} {thread_count}")
        self._require(token)
        if version == self.incumbent:
            raise ServiceRefused(f"{version.label} is the incumbent already")
        self.candidate = version

    def candidate_failure(self) -> str | None:
        """Why it died, if it did."""
        self._answer("candidate failure")
        return self.dead_reason

    def set_mirroring(self, *, enabled: bool, token: int) -> None:
        """Mirror, or stop."""
        self._answer(f"mirroring {enabled}")
        self._require(token)
        if enabled:
            self._require_candidate()
        elif self.weight_bps > 0:
            raise ServiceRefused("the candidate has live traffic")
        self.mirroring = enabled or (self.mirroring and self.deaf)

    def set_weight(self, weight_bps: int, *, lease_seconds: float, token: int) -> None:
        """Give a share."""
        self._answer(f"weight {weight_bps}")
        self._require(token)
        if not 0 <= weight_bps <= ALL_TRAFFIC_BPS:
            raise ServiceRefused(f"weight {weight_bps} is outside 0..{ALL_TRAFFIC_BPS}")
        if weight_bps > 0:
            self._require_candidate()
        self.lease_ends_at = self._lease_end(lease_seconds)
        if not self.deaf:
            self.weight_bps, self.mirroring = weight_bps, True

    def renew(self, *, lease_seconds: float, token: int) -> None:
        """Hold on."""
        self._answer("renew")
        self._require(token)
        self.lease_ends_at = self._lease_end(lease_seconds)

    def promote(self, *, token: int) -> None:
        """The candidate becomes the incumbent."""
        self._answer("promote")
        self._require(token)
        self._require_candidate()
        if self.weight_bps != ALL_TRAFFIC_BPS:
            raise ServiceRefused("promoted at all traffic only")
        self.incumbent, self.candidate = self.candidate, None
        self.weight_bps, self.mirroring, self.release_id, self.lease_ends_at = 0, False, None, None

    def restore_incumbent(self, *, reason: str, token: int | None = None) -> None:
        """All traffic to the incumbent."""
        self._answer(f"restore: {reason}")
        if token is not None and token < self.token:
            raise ConcurrencyError(f"token {token} is stale: a release with token {self.token} has begun")
        if not self.deaf:
            self.weight_bps, self.mirroring = 0, False
            self.release_id, self.lease_ends_at, self.restore_reason = None, None, reason

    def end(self, *, token: int | None) -> None:
        """Stop the candidate, free the plane."""
        self._answer("end")
        if token is not None and self.release_id is not None:
            self._require(token)
        if self.weight_bps != 0:
            raise ServiceRefused("the candidate still has traffic")
        self.candidate, self.mirroring, self.release_id, self.lease_ends_at = None, False, None, None

    def probe(self, count: int) -> Mapping[str, int]:
        """Whoever has the larger share answers all."""
        self._answer("probe")
        serving = self.candidate if self.weight_bps > ALL_TRAFFIC_BPS // 2 else self.incumbent
        return {serving.label: count} if serving else {"": count}

    def capture_counts(self) -> CaptureCounts:
        """What a test has set."""
        self._answer("counts")
        return self.counts

    def _answer(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise ServiceUnavailable("the plane does not answer")
        if self.lease_ends_at is not None and self._clock.monotonic() >= self.lease_ends_at:
            self.restore_reason = f"the lease of release {self.release_id} expired"
            self.weight_bps, self.mirroring, self.release_id, self.lease_ends_at, self.candidate = 0, False, None, None, None

    def _lease_end(self, lease_seconds: float) -> float:
        if not 0 < lease_seconds <= LONGEST_LEASE_SECONDS:
            raise ServiceRefused(f"a lease of {lease_seconds} s is outside 0..{LONGEST_LEASE_SECONDS:g}")
        return self._clock.monotonic() + lease_seconds

    def _require(self, token: int) -> None:
        if self.release_id is None or token != self.token:
            raise ConcurrencyError(f"token {token} is stale")

    def _require_candidate(self) -> None:
        if self.candidate is None or not self.candidate_ready:
            raise ServiceRefused("the candidate's server is not ready")


@dataclass
class FakeEvidence:
    """Records in memory. `full` makes every write fail as a full disk does."""

    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    full: bool = False

    def append(self, release_id: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Keep one record."""
        if self.full:
            raise ServiceUnavailable("the disk is full")
        records = self.records.setdefault(release_id, [])
        record = {"seq": len(records), "at": "2026-01-01T00:00:00+00:00", "kind": kind, **payload}
        try:
            records.append(json.loads(json.dumps(record, allow_nan=False)))
        except (ValueError, TypeError) as error:
            raise EvidenceError(f"record {kind} of {release_id} cannot be written as JSON: {error}") from error

    def read(self, release_id: str) -> Sequence[Mapping[str, Any]]:
        """All records of one release."""
        return list(self.records.get(release_id, []))

    def read_ends(self, release_id: str, *, last_count: int) -> Sequence[Mapping[str, Any]]:
        """The first record and the last ones."""
        records = self.read(release_id)
        return [*records[:1], *records[1:][-last_count:]]

    def list_releases(self) -> Sequence[str]:
        """Release ids, oldest first."""
        return list(self.records)


@dataclass
class FakeRuns:
    """Flow runs as Prefect keeps them: the same key gives the same run. `fails_at`: the submission, from 1, that is not answered once."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    fails_at: int | None = None
    messages: dict[str, str] = field(default_factory=dict)

    def submit(self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str) -> str:
        """Ask for a run."""
        if len(self.asked) + 1 == self.fails_at:
            self.fails_at = None
            raise ServiceUnavailable("Prefect does not answer")
        self.asked.append(parameters)
        run = self.read_by_key([idempotency_key]).get(idempotency_key)
        if run is None:
            number = next(number for number in itertools.count(len(self.runs) + 1) if f"run-{number}" not in self.runs)
            run = FlowRun(f"run-{number}", idempotency_key, "SCHEDULED", "Scheduled", None)
            self.runs[run.run_id] = run
        return run.run_id

    def read_by_key(self, keys: Sequence[str]) -> Mapping[str, FlowRun]:
        """The runs of these keys."""
        return {run.idempotency_key: run for run in self.runs.values() if run.idempotency_key in keys}

    def read_under_way(self, deployment: str) -> Sequence[FlowRun]:
        """Runs that hold a slot."""
        return [run for run in self.runs.values() if run.state_type in ("PENDING", "RUNNING", "CANCELLING")]

    def end(self, run_id: str, *, state_type: str, state_name: str, message: str) -> None:
        """Set the final state."""
        self.set_state(run_id, state_type, state_name, message=message)
        self.messages[run_id] = message

    def set_state(self, run_id: str, state_type: str, state_name: str, *, pid: int | None = None, message: str = "") -> None:
        """What Prefect itself would do."""
        run = self.runs.get(run_id) or FlowRun(run_id, run_id, "", "", None)
        self.runs[run_id] = replace(run, state_type=state_type, state_name=state_name, pid=pid or run.pid, message=message)


@dataclass
class FakeJournal:
    """Legs that a test puts in."""

    waiting: list[Leg] = field(default_factory=list)

    def read_new(self) -> Sequence[Leg]:
        """Legs since the last call."""
        legs, self.waiting = self.waiting, []
        return legs


def _server(version: ModelVersion | None, *, port: int, ready: bool, pid: int = 1) -> ServerState | None:
    if version is None:
        return None
    return ServerState(version, pid=pid, port=port, ready=ready, resident_mib=200.0, restart_count=0, peak_resident_mib=210.0)
