"""
Reads a release profile: strict YAML (1.2 words, no key twice, finite numbers), then the strict schema.

Looks in INTERLOCK_PROFILES_DIR, then in the installed package; never in the working directory.
"""

import hashlib
import importlib.resources
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from interlock.errors import PolicyError
from interlock.profile.schema import ReleaseProfile

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A profile, the text it was read from, and the text's SHA-256 (`sha256:<hex>`), which goes into the evidence."""

    profile: ReleaseProfile
    text: str
    digest: str


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2 core words only: `yes`, `on`, `5:00` and dates stay text; a key given twice and an alias are refused."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, unless it is an alias: a policy is read in one screen, and aliases of aliases grow without end."""
        if self.check_event(yaml.AliasEvent):
            line = self.get_mark().line + 1
            raise PolicyError(f"an alias is used by line {line}: write the value out")
        return super().compose_node(parent, index)


_StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|nan))$", "-+0123456789."),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
):
    _flags = re.IGNORECASE if _tag == "float" else 0
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern, _flags), list(_first))


def _mapping_without_twice_given_keys(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if key in mapping:
            raise PolicyError(f"key {key!r} is given twice (line {key_node.start_mark.line + 1}): keep one of them")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_twice_given_keys)


def read_profile(name: str, directory: Path | None = None) -> LoadedProfile:
    """
    The release profile called `name`, checked whole; from `directory`, else from `profiles_directory()`.

    Raises:
        PolicyError: unknown name, unreadable file, or anything in it that the schema does not allow; says where and why.
    """
    path = _find(name, directory or profiles_directory())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"profile {name!r} cannot be read ({error}): mend {path}") from error
    return parse_profile(text, source=str(path))


def parse_profile(text: str, *, source: str) -> LoadedProfile:
    """The profile in `text`; `source` names it in error messages. Raises PolicyError."""
    try:
        raw = yaml.load(text, Loader=_StrictLoader)  # _StrictLoader is a SafeLoader
        profile = ReleaseProfile.model_validate_json(json.dumps(_finite(raw), allow_nan=False))
    except PolicyError as error:
        raise PolicyError(f"profile {source}: {error}") from None
    except RecursionError:
        raise PolicyError(f"profile {source}: it is nested far deeper than any profile") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise PolicyError(f"profile {source}: {_explain(error)}") from None
    return LoadedProfile(profile, text, f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def list_profiles() -> list[str]:
    """Names of all profiles that can be read from the profiles directory, sorted."""
    return sorted(path.stem for path in profiles_directory().glob("*.yaml"))


def profiles_directory() -> Path:
    """
    Where profiles are read from: INTERLOCK_PROFILES_DIR, else the packaged copy, else the source checkout's.

    Raises:
        PolicyError: neither exists.
    """
    if configured := os.environ.get("INTERLOCK_PROFILES_DIR"):
        return Path(configured)
    package = Path(str(importlib.resources.files("interlock")))
    for candidate in (package / "_profiles", package.parent.parent / "profiles"):
        if candidate.is_dir():
            return candidate
    raise PolicyError("no release profiles are installed: set INTERLOCK_PROFILES_DIR to the directory that holds them")


def _find(name: str, directory: Path) -> Path:
    path = directory / f"{name}.yaml"
    if not _NAME.match(name) or not path.is_file():
        known = ", ".join(sorted(found.stem for found in directory.glob("*.yaml"))) or "none"
        raise PolicyError(f"there is no release profile {name!r}; known: {known} (in {directory})")
    return path


def _finite(value: Any, where: str = "") -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise PolicyError(f"{where or 'value'} is {value}: give a finite number")
    if isinstance(value, dict):
        return {str(key): _finite(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains the missing one
    where = ".".join(str(part) for part in first["loc"]) or "the profile"
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    more = f"; and {len(others)} more" if others else ""
    return f"{where}: {first['msg']}{shown}{more}"
