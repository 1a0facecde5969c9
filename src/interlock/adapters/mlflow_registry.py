"""
The MLflow model registry over its REST protocol.

The mlflow package is not imported: it costs seconds in every process, and a rollback has none to spare.

A tag of the registered model holds the largest release token that has claimed it. MLflow knows no compare-and-swap, so a claim that comes
between the reading of the tag and the write behind it (one request, 5 s at most) does not stop that write. It cannot be two releases at
work: a newer token is given out only by the traffic plane's `begin`, which refuses while an older release holds the plane, and a release
that has just lost it writes at most what it was about to write. Setters read the tag again behind the write, so that the older one is told,
and the newer one sets champion and stages itself before it ends.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from interlock.adapters.http_service import HttpService
from interlock.errors import ConcurrencyError, ServiceRefused, TrafficNotConverged
from interlock.ports import RegisteredVersion

CHAMPION = "champion"
PRODUCTION = "Production"
ARCHIVED = "Archived"
TOKEN_TAG = "interlock.token"
_TOKEN = re.compile(r"[0-9]{1,18}")  # what a person has written there may be anything, and thousands of digits long
_API = "/api/2.0/mlflow"


class MlflowRegistry:
    """Stages, aliases and tags of model versions. Setters read back what they set."""

    def __init__(self, tracking_url: str, *, timeout_seconds: float = 5.0) -> None:
        self._service = HttpService("the MLflow registry", tracking_url, timeout_seconds=timeout_seconds)

    def read_version(self, name: str, version: str) -> RegisteredVersion:
        """The version; ServiceRefused when the model or the version does not exist."""
        answer = self._service.get(f"{_API}/model-versions/get", name=name, version=version)
        return _version(answer["model_version"], self._aliases(name))

    def read_versions(self, name: str) -> Sequence[RegisteredVersion]:
        """Every version of the model, most recently changed first; empty when there is no such model."""
        # MLflow's filters know no escape, and a name cut short by its own quote would find nothing, without an error.
        quote = '"' if "'" in name else "'"
        if quote in name:
            raise ServiceRefused(f"model {name!r} has both kinds of quotes in its name, which MLflow cannot search for: rename it")
        aliases, versions, page = self._aliases(name), [], ""
        while True:
            answer = self._service.get(
                f"{_API}/model-versions/search",
                filter=f"name={quote}{name}{quote}",
                order_by="last_updated_timestamp DESC",
                max_results=200,
                **({"page_token": page} if page else {}),
            )
            versions += [_version(item, aliases) for item in answer.get("model_versions", [])]
            if not (page := answer.get("next_page_token", "")):
                return versions

    def read_champion(self, name: str) -> str | None:
        """The version with alias `champion`; None when the model or the alias does not exist."""
        return next((version for version, names in self._aliases(name).items() if CHAMPION in names), None)

    def read_token(self, name: str) -> int:
        """The largest token that has claimed the model; 0 without one, and for a tag that is no token: it must not stop a rollback."""
        tags = {str(tag["key"]): str(tag["value"]) for tag in self._model(name).get("tags", [])}
        return int(found) if _TOKEN.fullmatch(found := tags.get(TOKEN_TAG, "")) else 0

    def claim(self, name: str, *, token: int) -> None:
        """Raise the token; read back. Idempotent."""
        if self._require(name, token) != token:
            self._service.post(f"{_API}/registered-models/set-tag", {"name": name, "key": TOKEN_TAG, "value": str(token)})
        if (observed := self._require(name, token)) != token:
            raise TrafficNotConverged(f"MLflow says token {observed} for {name}, wanted {token}")

    def set_champion(self, name: str, version: str, *, token: int) -> None:
        """Alias `champion` and stage Production to this version, the former one archived; read back. Idempotent."""
        self._require(name, token)
        if self.read_champion(name) != version:
            self._service.post(f"{_API}/registered-models/alias", {"name": name, "alias": CHAMPION, "version": version})
        if self.read_version(name, version).stage != PRODUCTION:
            self._transition(name, version, PRODUCTION, archive_existing=True)
        observed, stage = self.read_champion(name), self.read_version(name, version).stage
        if observed != version or stage != PRODUCTION:
            raise TrafficNotConverged(
                f"MLflow says champion={observed}, stage={stage} for {name}, wanted champion={version}, stage={PRODUCTION}"
            )
        self._require(name, token)

    def set_stage(self, name: str, version: str, stage: str, *, token: int) -> None:
        """Move one version to a stage; read back. Idempotent."""
        self._require(name, token)
        if self.read_version(name, version).stage != stage:
            self._transition(name, version, stage, archive_existing=False)
        if (observed := self.read_version(name, version).stage) != stage:
            raise TrafficNotConverged(f"MLflow says {name} version {version} is in stage {observed}, wanted {stage}")
        self._require(name, token)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str], *, token: int) -> None:
        """Write tags on one version."""
        self._require(name, token)
        for key, value in tags.items():
            self._service.post(f"{_API}/model-versions/set-tag", {"name": name, "version": version, "key": key, "value": value})

    def _transition(self, name: str, version: str, stage: str, *, archive_existing: bool) -> None:
        body = {"name": name, "version": version, "stage": stage, "archive_existing_versions": archive_existing}
        self._service.post(f"{_API}/model-versions/transition-stage", body)

    def _require(self, name: str, token: int) -> int:
        """The token that has claimed the model. ConcurrencyError when it is larger than this one."""
        if (claimed := self.read_token(name)) > token:
            raise ConcurrencyError(
                f"{name} was claimed in MLflow by a newer release with token {claimed}: token {token} is stale "
                f"(if there is no such release, delete the tag {TOKEN_TAG} of the registered model {name})"
            )
        return claimed

    def _model(self, name: str) -> Mapping[str, Any]:
        """The registered model; empty when there is none."""
        try:
            model: Mapping[str, Any] = self._service.get(f"{_API}/registered-models/get", name=name)["registered_model"]
        except ServiceRefused:
            return {}
        return model

    def _aliases(self, name: str) -> dict[str, tuple[str, ...]]:
        aliases: dict[str, tuple[str, ...]] = {}
        for item in self._model(name).get("aliases", []):
            version = str(item["version"])
            aliases[version] = (*aliases.get(version, ()), str(item["alias"]))
        return aliases


def _version(item: Mapping[str, Any], aliases: Mapping[str, tuple[str, ...]]) -> RegisteredVersion:
    version = str(item["version"])
    return RegisteredVersion(
        name=str(item["name"]),
        version=version,
        stage=str(item.get("current_stage", "None")),
        aliases=aliases.get(version, ()),
        tags={str(tag["key"]): str(tag["value"]) for tag in item.get("tags", [])},
        updated_at_ms=int(item.get("last_updated_timestamp", 0)),
    )
