"""
The world in memory, for unit tests. Each fake is held to the same contract suite as the real thing (tests/contract/).

Nothing here sleeps: FakeClock moves when somebody waits.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from interlock.errors import ConcurrencyError, EvidenceError, ServiceRefused, ServiceUnavailable
from interlock.model.journal import Leg
from interlock.model.plane import ALL_TRAFFIC_BPS, CaptureCounts, PlaneState, ServerState
from interlock.model.release import ModelVersion
from interlock.ports import RegisteredVersion

PRODUCTION, ARCHIVED = "Production", "Archived"
LONGEST_LEASE_SECONDS = 120.0
INCUMBENT_PORT, CANDIDATE_PORT = 1, 2


class FakeClock:
    """Time that moves only when somebody sleeps. `on_sleep` lets a test make the world go on meanwhile."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.on_sleep: Callable[[float], None] = lambda _: None

    def monotonic(self) -> float:
        """Seconds slept so far, from 1000."""
        return self.seconds

    def utc_now(self) -> datetime:
        """The same as a moment of 2026."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds
        self.on_sleep(seconds)


@dataclass
class FakeRegistry:
    """Model versions in a dictionary. `down` makes every call fail as an outage does."""

    versions: dict[tuple[str, str], RegisteredVersion] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    down: bool = False
    _changes: int = 0

    def add(self, name: str, version: str, stage: str = "None") -> None:
        """Register a version."""
        self._changes += 1
        self.versions[(name, version)] = RegisteredVersion(name, version, stage, (), {}, self._changes)

    def read_version(self, name: str, version: str) -> RegisteredVersion:
        """The version, or ServiceRefused."""
        self._answer()
        if (name, version) not in self.versions:
            raise ServiceRefused(f"there is no {name} version {version}")
        aliases = ("champion",) if self.champions.get(name) == version else ()
        return replace(self.versions[(name, version)], aliases=aliases)

    def read_versions(self, name: str) -> Sequence[RegisteredVersion]:
        """Every version of a model, most recently changed first."""
        self._answer()
        found = [self.read_version(*key) for key in self.versions if key[0] == name]
        return sorted(found, key=lambda v: -v.updated_at_ms)

    def read_champion(self, name: str) -> str | None:
        """The champion's version, or None."""
        self._answer()
        return self.champions.get(name)

    def set_champion(self, name: str, version: str) -> None:
        """Alias and stage to this version, the former Production version archived."""
        self.read_version(name, version)
        self.champions[name] = version
        if self.versions[(name, version)].stage != PRODUCTION:
            for key, other in list(self.versions.items()):
                if key[0] == name and other.stage == PRODUCTION:
                    self.set_stage(*key, ARCHIVED)
            self.set_stage(name, version, PRODUCTION)

    def set_stage(self, name: str, version: str, stage: str) -> None:
        """Move one version."""
        if self.read_version(name, version).stage != stage:
            self._changes += 1
            self.versions[(name, version)] = replace(self.versions[(name, version)], stage=stage, updated_at_ms=self._changes)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Write tags."""
        known = self.read_version(name, version)
        self.versions[(name, version)] = replace(self.versions[(name, version)], tags={**known.tags, **tags})

    def _answer(self) -> None:
        if self.down:
            raise ServiceUnavailable("the registry is down")


class FakeTraffic:
    """
    A plane that does at once what it is asked, with the real one's rules about tokens and leases.

    Faults for tests: `deaf` (says yes, changes nothing), `down` (does not answer), `candidate_ready`, `incumbent_ready`, `dead_reason`.
    `calls` is what was asked, in order.
    """

    def __init__(self, clock: FakeClock, incumbent: ModelVersion | None) -> None:
        self._clock = clock
        self.incumbent = incumbent
        self.candidate: ModelVersion | None = None
        self.weight_bps, self.mirroring = 0, False
        self.release_id: str | None = None
        self.token = 0
        self.lease_ends_at: float | None = None
        self.deaf = self.down = False
        self.candidate_ready = self.incumbent_ready = True
        self.dead_reason: str | None = None
        self.counts = CaptureCounts(0, 0, 0)
        self.calls: list[str] = []

    def observe(self) -> PlaneState:
        """What it does now."""
        self._answer("observe")
        remaining = None if self.lease_ends_at is None else max(0.0, self.lease_ends_at - self._clock.monotonic())
        incumbent = _server(self.incumbent, port=INCUMBENT_PORT, ready=self.incumbent_ready)
        candidate = _server(self.candidate, port=CANDIDATE_PORT, ready=self.candidate_ready)
        return PlaneState(incumbent, candidate, self.weight_bps, self.mirroring, self.release_id, self.token, remaining)

    def adopt(self, version: ModelVersion, *, server: str, thread_count: int) -> PlaneState:
        """The first incumbent."""
        self._answer(f"adopt {version.label} {server} {thread_count}")
        if self.incumbent not in (None, version):
            raise ServiceRefused("there is an incumbent already")
        self.incumbent = version
        return self.observe()

    def begin(self, release_id: str, *, lease_seconds: float) -> int:
        """Reserve."""
        self._answer(f"begin {release_id}")
        lease_ends_at = self._lease_end(lease_seconds)
        if self.release_id is not None:
            raise ConcurrencyError(f"release {self.release_id} holds the plane")
        if self.incumbent is None or not self.incumbent_ready:
            raise ServiceRefused("INCUMBENT_UNHEALTHY")
        self.token += 1
        self.release_id, self.lease_ends_at = release_id, lease_ends_at
        return self.token

    def load_candidate(self, version: ModelVersion, *, server: str, thread_count: int, token: int) -> None:
        """Start a server."""
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

    def restore_incumbent(self, *, reason: str) -> None:
        """All traffic to the incumbent."""
        self._answer(f"restore: {reason}")
        if not self.deaf:
            self.weight_bps, self.mirroring = 0, False
            self.release_id, self.lease_ends_at = None, None

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

    def list_releases(self) -> Sequence[str]:
        """Release ids, oldest first."""
        return list(self.records)


@dataclass
class FakeJournal:
    """Legs that a test puts in."""

    waiting: list[Leg] = field(default_factory=list)

    def read_new(self) -> Sequence[Leg]:
        """Legs since the last call."""
        legs, self.waiting = self.waiting, []
        return legs


def _server(version: ModelVersion | None, *, port: int, ready: bool) -> ServerState | None:
    return None if version is None else ServerState(version, pid=1, port=port, ready=ready, resident_mib=200.0, restart_count=0)
