"""
What waits in the registry becomes releases: a poll and a difference, so that a lost or repeated event changes nothing.

The stage says what research wants, Prefect and the evidence say what was done about it; nothing that matters is kept in memory.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from interlock.control.ending import DECISION
from interlock.control.releases import ReleaseIndex
from interlock.control.resume import ARCHIVED, MAX_ATTEMPTS
from interlock.control.session import WATCHED_STAGE
from interlock.errors import ReleaseError, ServiceUnavailable
from interlock.ports import Clock, FlowRun, RegisteredVersion, Registry, Runs

RELEASE_DEPLOYMENT = "release/release"
PAUSES_SECONDS = (15.0, 60.0)  # before the second attempt and the third: a server that restarts needs the first, a sick machine the second
LONGEST_PAUSE_SECONDS = 600.0  # between runs that could not even begin: what is missing there takes a person, not a moment
ATTEMPT = ":attempt-"
PAGE_COUNT = 50  # keys asked for at once; Prefect answers with 200 runs at most
GIVEN_UP_TAG = "interlock.given-up"  # on an archived version: the last key that counts no more when research puts it into Staging again
UNDECIDED = frozenset({"CRASHED", "FAILED"})  # Prefect's TimedOut is a kind of FAILED; what a person cancelled is not tried again
WITHDRAWN = "Withdrawn"  # a run that found its version outside of Staging, and released nothing
CHAMPION = "champion"
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Intake:
    """
    Submits one release for each version that waits in stage Staging, and again when a release of it ended without a decision.

    Idempotent by key (model, version, profile digest, number of the run): a version that leaves Staging and comes back under the same
    profile is not released again once it was decided, and a restart of the poller repeats nothing. After three releases without a
    decision the version is archived; put into Staging again, it has three more. A run that could not open a release is no attempt.
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
        started = [self._look_at(version, f"{version.name}:{version.version}:{digest}") for version in staged]
        return [run_id for run_id in started if run_id]

    def _look_at(self, version: RegisteredVersion, first_key: str) -> str | None:
        if CHAMPION in version.aliases:  # it serves, or calls itself so: the reconciler puts that right, and there is nothing to release
            return None
        before = given_up(version, first_key)
        runs = dict(sorted(self._read_runs(first_key, above=before).items()))
        if not runs:
            return self._submit(version, numbered(first_key, before + 1))
        last_number, last = list(runs.items())[-1]
        if not self._is_over(last, version):
            return None
        have_opened = self.index.flow_runs()
        opened = [run.run_id in have_opened for run in runs.values()]
        if sum(opened) >= MAX_ATTEMPTS:
            self._give_up(version, last)
            return None
        return self._submit(version, numbered(first_key, last_number + 1)) if self._has_waited(version, last, opened) else None

    def _read_runs(self, first_key: str, *, above: int) -> dict[int, FlowRun]:
        """The runs that were asked for, by number. Runs that were deleted in Prefect leave gaps, and nothing else."""
        found: dict[int, FlowRun] = {}
        begin = above + 1
        while True:
            keys = {numbered(first_key, number): number for number in range(begin, begin + PAGE_COUNT)}
            page = {keys[key]: run for key, run in self.runs.read_by_key(list(keys)).items()}
            found |= page
            if max(page, default=0) < begin + PAGE_COUNT // 2:  # a longer gap is no gap
                return found
            begin += PAGE_COUNT

    def _is_over(self, last: FlowRun, version: RegisteredVersion) -> bool:
        """Whether the last run has ended, and nothing was decided in its evidence either."""
        if last.state_name == WITHDRAWN:
            return True
        if last.state_type not in UNDECIDED or self.index.is_doubtful(version.name, version.version):
            return False
        if (release := self.index.of_run(last.run_id)) is None:
            return True
        try:
            ending = self.index.ending(release.release_id)
        except ServiceUnavailable:  # said in the log; what was decided is not known
            return False
        return ending is not None and ending["kind"] != DECISION

    def _has_waited(self, version: RegisteredVersion, last: FlowRun, opened: list[bool]) -> bool:
        """Whether the last run ended long enough ago; says on the version what it waits for, when no release could begin."""
        if last.state_name == WITHDRAWN:
            return True
        now = self.clock.monotonic()
        if last.run_id not in self._failed_at and not opened[-1]:
            self._say_what_it_waits_for(version, last)
        return now - self._failed_at.setdefault(last.run_id, now) >= _pause_seconds(opened)

    def _submit(self, version: RegisteredVersion, key: str) -> str:
        parameters = {"model_name": version.name, "version": version.version, "profile_name": self.profile_name}
        return self.runs.submit(RELEASE_DEPLOYMENT, parameters, idempotency_key=key)

    def _say_what_it_waits_for(self, version: RegisteredVersion, last: FlowRun) -> None:
        what = last.message or f"flow run {last.run_id} ended as {last.state_name}"
        reason = f"waits: no release could begin ({what}). Mend that, and it goes on by itself; out of {WATCHED_STAGE} it waits no more"
        log.warning("%s/%s %s", version.name, version.version, reason)
        with contextlib.suppress(ReleaseError):  # for people
            token = self.registry.read_token(version.name)
            self.registry.set_tags(version.name, version.version, {"interlock.reason": reason[:500]}, token=token)

    def _give_up(self, version: RegisteredVersion, last: FlowRun) -> None:
        """Archive, saying why; not what a person has moved meanwhile, and not who serves."""
        now = self.registry.read_version(version.name, version.version)
        if now.stage != WATCHED_STAGE or CHAMPION in now.aliases:
            return
        reason = (
            f"{MAX_ATTEMPTS} releases ended without a decision, the last one {last.state_name} (flow run {last.run_id}: {last.message}): "
            f"mend that, and move the version to {WATCHED_STAGE} again"
        )
        log.warning("%s/%s is archived: %s", version.name, version.version, reason)
        token = self.registry.read_token(version.name)  # it is no move of traffic: whoever has the model keeps it
        self.registry.set_tags(version.name, version.version, tag_ending("Failed", reason, ""), token=token)
        self.registry.set_stage(version.name, version.version, ARCHIVED, token=token)
        # Last: had it been cut before, the version would have three more attempts without anybody having asked for them.
        self.registry.set_tags(version.name, version.version, {GIVEN_UP_TAG: last.idempotency_key}, token=token)


def _pause_seconds(opened: list[bool]) -> float:
    """How long to wait after runs of which these have opened a release: longer after each one, and up to 10 min where none could."""
    if opened[-1]:
        return PAUSES_SECONDS[min(sum(opened), len(PAUSES_SECONDS)) - 1]
    refused = next((count for count, has_opened in enumerate(reversed(opened)) if has_opened), len(opened))
    return min(PAUSES_SECONDS[0] * 2.0 ** min(refused - 1, 10), LONGEST_PAUSE_SECONDS)


def numbered(first_key: str, number: int) -> str:
    """The key of the run of this number, from 1."""
    return first_key if number == 1 else f"{first_key}{ATTEMPT}{number}"


def attempt_of(key: str) -> int:
    """Which run of its version a run was asked for as, by its idempotency key; 1 for any other key."""
    _, found, number = key.rpartition(ATTEMPT)
    return int(number) if found and number.isdecimal() and len(number) < 10 else 1


def given_up(version: RegisteredVersion, first_key: str) -> int:
    """The number of the last run of these keys that counts no more, because the version was archived behind it; 0 when there is none."""
    key = version.tags.get(GIVEN_UP_TAG, "")
    return attempt_of(key) if key == first_key or key.startswith(first_key + ATTEMPT) else 0


def entered(versions: Iterable[RegisteredVersion]) -> list[RegisteredVersion]:
    """Versions that wait in the watched stage, the one that changed first in front."""
    return sorted((v for v in versions if v.stage == WATCHED_STAGE), key=lambda v: (v.updated_at_ms, v.version))


def tag_ending(name: str, reason: str, release_id: str) -> dict[str, str]:
    """What research reads about the end of a release on the model version."""
    return {"interlock.decision": name, "interlock.reason": reason[:500], "interlock.release": release_id}


def is_asked_by_intake(key: str, model_name: str, version: str) -> bool:
    """Whether a run has been asked for because its version waits in the watched stage; a person's run has no such key."""
    return key.startswith(f"{model_name}:{version}:")
