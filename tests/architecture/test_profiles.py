"""The release profiles we ship are good, their schema is current, and no number that decides has a default."""

import json
from pathlib import Path
from typing import Any

import pytest

from interlock.profile.reader import parse_profile
from interlock.profile.schema import ReleaseProfile

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "profiles" / "schema" / "release-profile.v1.json"
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def test_the_committed_schema_is_the_generated_one() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == ReleaseProfile.model_json_schema(), "run `make schema`"


def test_there_are_profiles() -> None:
    assert PROFILES


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_good_named_like_its_file_and_knows_its_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert parse_profile(text, source=path.name).profile.name == path.stem
    assert text.splitlines()[0] == "# yaml-language-server: $schema=schema/release-profile.v1.json"
    assert len(text.splitlines()) <= 140, "a policy is read in one screen"


def test_nothing_that_decides_has_a_default_and_nothing_unknown_is_allowed() -> None:
    schema = ReleaseProfile.model_json_schema()
    parts: list[dict[str, Any]] = [schema, *schema["$defs"].values()]
    assert len(parts) > 10
    for part in parts:
        assert set(part.get("required", [])) == set(part["properties"]), part["title"]
        assert all("default" not in field for field in part["properties"].values()), part["title"]
        assert part["additionalProperties"] is False, part["title"]
