"""What is released, and how a release ends."""

import re
from dataclasses import dataclass
from enum import StrEnum

RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,150}")  # it is also the name of files, and a part of addresses


class Decision(StrEnum):
    """What a release did. The values are the names of Prefect states and of evidence records."""

    PROMOTED = "Promoted"
    HELD = "Held"
    REJECTED = "Rejected"
    ROLLED_BACK = "RolledBack"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One MLflow registered model version, pinned by the SHA-256 over its files (`sha256:<hex>`)."""

    name: str
    version: str
    digest: str

    @property
    def label(self) -> str:
        """`name/version`, the way the plane stamps it on responses."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt to bring one candidate to all traffic. `token` fences it: the plane refuses an older one."""

    release_id: str
    candidate: ModelVersion
    incumbent: ModelVersion
    profile_name: str
    profile_digest: str
    token: int
