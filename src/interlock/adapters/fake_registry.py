"""The model registry in memory, for unit tests; held to the same contract suite as the real one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from interlock.errors import ConcurrencyError, ServiceRefused, ServiceUnavailable
from interlock.ports import RegisteredVersion

PRODUCTION, ARCHIVED = "Production", "Archived"


@dataclass
class FakeRegistry:
    """
    Model versions in a dictionary. `down` makes every call fail as an outage does.

    `on_effect` is called behind each change that MLflow makes by a request of its own: a setter may be cut between two of them.
    """

    versions: dict[tuple[str, str], RegisteredVersion] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    down: bool = False
    on_effect: Callable[[], None] = lambda: None
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

    def read_token(self, name: str) -> int:
        """The largest token so far."""
        self._answer()
        return self.tokens.get(name, 0)

    def claim(self, name: str, *, token: int) -> None:
        """Refuse older tokens from now on."""
        self._require(name, token)
        if not any(key[0] == name for key in self.versions):
            raise ServiceRefused(f"there is no model {name}")
        self.tokens[name] = token

    def set_champion(self, name: str, version: str, *, token: int) -> None:
        """Alias and stage to this version, the former Production version archived."""
        self._require(name, token)
        self.read_version(name, version)
        if self.champions.get(name) != version:
            self.champions[name] = version
            self.on_effect()
        if self.versions[(name, version)].stage != PRODUCTION:
            for key, other in list(self.versions.items()):
                if key[0] == name and other.stage == PRODUCTION:
                    self.move(*key, ARCHIVED)
            self.move(name, version, PRODUCTION)
            self.on_effect()

    def set_stage(self, name: str, version: str, stage: str, *, token: int) -> None:
        """Move one version."""
        self._require(name, token)
        if self.read_version(name, version).stage != stage:
            self.move(name, version, stage)
            self.on_effect()

    def move(self, name: str, version: str, stage: str) -> None:
        """What a person does in MLflow: no token is asked for."""
        if self.read_version(name, version).stage != stage:
            self._changes += 1
            self.versions[(name, version)] = replace(self.versions[(name, version)], stage=stage, updated_at_ms=self._changes)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str], *, token: int) -> None:
        """Write tags."""
        self._require(name, token)
        for key, value in tags.items():
            known = self.read_version(name, version)
            self.versions[(name, version)] = replace(self.versions[(name, version)], tags={**known.tags, key: value})
            self.on_effect()

    def _require(self, name: str, token: int) -> None:
        if (claimed := self.read_token(name)) > token:
            raise ConcurrencyError(f"{name} was claimed with token {claimed}, token {token} is stale")

    def _answer(self) -> None:
        if self.down:
            raise ServiceUnavailable("the registry is down")
