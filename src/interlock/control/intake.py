"""
What waits in the registry becomes releases: a poll and a difference, so that a lost or repeated event changes nothing.

The stage says what research wants, Prefect and the evidence say what was done about it; nothing that matters is kept in memory.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from interlock.control.ending import DECISION
from interlock.control.releases import ReleaseIndex
from interlock.control.resume import ARCHIVED, MAX_ATTEMPTS
from interlock.control.session import WATCHED_STAGE
from interlock.ports import Clock, FlowRun, RegisteredVersion, Registry, Runs

RELEASE_DEPLOYMENT = "release/release"
PAUSES_SECONDS = (15.0, 60.0)  # before the second attempt and the third: a server that restarts needs the first, a sick machine the second
ATTEMPT = ":attempt-"
UNDECIDED = frozenset({"CRASHED", "FAILED"})  # Prefect's TimedOut is a kind of FAILED; what a person cancelled is not tried again
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Intake:
    """
    Submits one release for each version that waits in stage Staging, and again when a release of it ended without a decision.

    Idempotent by key (model, version, profile digest, attempt): a version that leaves Staging and comes back under the same profile is
    not released again once it was decided, and a restart of the poller repeats nothing. After three attempts the version is archived.
    """

    registry: Registry
    runs: Runs
    index: ReleaseIndex
    clock: Clock
    model_name: str
    profile_name: str
    read_profile_digest: Callable[[], str]
    _failed_at: dict[str, float] = field(default_factory=dict)  # for the pause only: a restart begins it anew

    def poll(self) -> list[str]:
        """Look once; returns the ids of the release runs that were asked for now."""
        if not (staged := entered(self.registry.read_versions(self.model_name))):
            return []
        digest = self.read_profile_digest()
        keys = {version.version: self._keys(version, digest) for version in staged}
        runs = self.runs.read_by_key([key for known in keys.values() for key in known])
        started = [self._look_at(version, keys[version.version], runs) for version in staged]
        return [run_id for run_id in started if run_id]

    def _keys(self, version: RegisteredVersion, digest: str) -> list[str]:
        first = f"{version.name}:{version.version}:{digest}"
        return [first, *(f"{first}{ATTEMPT}{attempt}" for attempt in range(2, MAX_ATTEMPTS + 1))]

    def _look_at(self, version: RegisteredVersion, keys: list[str], runs: Mapping[str, FlowRun]) -> str | None:
        done = [runs[key] for key in keys if key in runs]
        if not done:
            return self._submit(version, keys[0])
        last, attempts = done[-1], len(done)
        release = self.index.of_run(last.run_id)
        if last.state_type not in UNDECIDED or not self._may_go_on(last, release.release_id if release else None, attempts):
            return None
        if attempts < MAX_ATTEMPTS:
            return self._submit(version, keys[attempts])
        self._give_up(version, last)
        return None

    def _may_go_on(self, last: FlowRun, release_id: str | None, attempts: int) -> bool:
        """Whether the last attempt is over, undecided in its evidence too, and long enough ago."""
        if release_id is not None:
            ending = self.index.ending(release_id)
            if ending is None or ending["kind"] == DECISION:
                return False
        if attempts >= MAX_ATTEMPTS:
            return True
        now = self.clock.monotonic()
        return now - self._failed_at.setdefault(last.run_id, now) >= PAUSES_SECONDS[attempts - 1]

    def _submit(self, version: RegisteredVersion, key: str) -> str:
        parameters = {"model_name": version.name, "version": version.version, "profile_name": self.profile_name}
        return self.runs.submit(RELEASE_DEPLOYMENT, parameters, idempotency_key=key)

    def _give_up(self, version: RegisteredVersion, last: FlowRun) -> None:
        reason = f"{MAX_ATTEMPTS} releases ended without a decision, the last one {last.state_name} (flow run {last.run_id})"
        log.warning("%s/%s is archived: %s", version.name, version.version, reason)
        token = self.registry.read_token(version.name)  # it is no move of traffic: whoever has the model keeps it
        self.registry.set_tags(version.name, version.version, tag_ending("Failed", reason, ""), token=token)
        self.registry.set_stage(version.name, version.version, ARCHIVED, token=token)


def attempt_of(key: str) -> int:
    """Which attempt a run was asked for as, by its idempotency key; 1 for any other key."""
    _, found, number = key.rpartition(ATTEMPT)
    return int(number) if found and number.isdecimal() else 1


def entered(versions: Iterable[RegisteredVersion]) -> list[RegisteredVersion]:
    """Versions that wait in the watched stage, the one that changed first in front."""
    return sorted((v for v in versions if v.stage == WATCHED_STAGE), key=lambda v: (v.updated_at_ms, v.version))


def tag_ending(name: str, reason: str, release_id: str) -> dict[str, str]:
    """What research reads about the end of a release on the model version."""
    return {"interlock.decision": name, "interlock.reason": reason[:500], "interlock.release": release_id}
