"""What changed in the registry becomes releases: a poll and a difference, so that a lost or repeated event changes nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from interlock.ports import RegisteredVersion, Registry, Submitter

WATCHED_STAGE = "Staging"
RELEASE_DEPLOYMENT = "release/release"


@dataclass(slots=True)
class Intake:
    """
    Submits one release for each version that enters stage Staging.

    Idempotent by key (model, version, profile digest): a version that leaves Staging and comes back under the same profile is
    not released again, and a restart of the poller repeats nothing.
    """

    registry: Registry
    submitter: Submitter
    model_name: str
    profile_name: str
    read_profile_digest: Callable[[], str]
    _waiting: dict[str, RegisteredVersion] = field(default_factory=dict)

    def poll(self) -> list[str]:
        """Look once; returns the ids of the release runs that were asked for now."""
        staged = {version.version: version for version in entered(self.registry.read_versions(self.model_name))}
        started = [self._submit(version) for number, version in staged.items() if number not in self._waiting]
        self._waiting = staged
        return started

    def _submit(self, version: RegisteredVersion) -> str:
        parameters = {"model_name": version.name, "version": version.version, "profile_name": self.profile_name}
        key = f"{version.name}:{version.version}:{self.read_profile_digest()}"
        return self.submitter.submit(RELEASE_DEPLOYMENT, parameters, idempotency_key=key)


def entered(versions: Iterable[RegisteredVersion]) -> list[RegisteredVersion]:
    """Versions that wait in the watched stage, the one that changed first in front."""
    return sorted((v for v in versions if v.stage == WATCHED_STAGE), key=lambda v: (v.updated_at_ms, v.version))
