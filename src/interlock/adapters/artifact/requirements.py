"""What a model version says it needs, beside what is installed where it will be served: in this very environment."""

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.version import InvalidVersion, Version

from interlock.adapters.artifact.texts import read_plain_yaml
from interlock.model.artifact import Agreement, Requirement

BUILD_TOOLS = {"pip", "setuptools", "wheel"}  # they made the environment; nothing of the model calls them
NESTED = re.compile(r"(?:-r|--requirement)[ =]*(?P<name>\S+)")


def read_requirements(directory: Path) -> tuple[Requirement, ...]:
    """Every line of requirements.txt, conda.yaml and python_env.yaml that holds here by its marker, each requirement once."""
    found = dict[str, Requirement]()
    for one in (*_of_lines(directory, "requirements.txt"), *_of_python_env(directory), *_of_conda(directory)):
        found.setdefault(one.text, one)
    return tuple(found.values())


def _of_lines(directory: Path, name: str) -> Iterator[Requirement]:
    try:
        lines = (directory / name).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield Requirement(name, name, None, "unreadable")
        return
    for line in lines:
        if text := re.sub(r"(^|\s)#.*", "", line).strip():
            yield from _judge_line(text, name)


def _of_python_env(directory: Path) -> Iterator[Requirement]:
    described = _read_yaml(directory / "python_env.yaml")
    if described is None:
        return
    if not isinstance(described, dict):
        yield Requirement("python_env.yaml", "python_env.yaml", None, "unreadable")
        return
    if python := described.get("python"):
        yield _python(str(python), "python_env.yaml")
    for line in described.get("dependencies") or ():
        if not NESTED.fullmatch(str(line)):  # that is requirements.txt
            yield from _judge_line(str(line), "python_env.yaml")


def _of_conda(directory: Path) -> Iterator[Requirement]:
    described = _read_yaml(directory / "conda.yaml")
    if described is None:
        return
    if not isinstance(described, dict):
        yield Requirement("conda.yaml", "conda.yaml", None, "unreadable")
        return
    for entry in described.get("dependencies") or ():
        if isinstance(entry, dict):
            for line in entry.get("pip") or ():
                yield from _judge_line(str(line), "conda.yaml")
        elif match := re.fullmatch(r"python\s*=+\s*([\d.]+)\S*", str(entry)):
            yield _python(match[1], "conda.yaml")
        elif match := re.fullmatch(r"([\w.-]+)\s*=\s*([^=\s]+)(?:=\S+)?", str(entry)):
            yield from _judge_line(f"{match[1]}=={match[2]}", "conda.yaml")
        else:
            yield from _judge_line(str(entry), "conda.yaml")


def _read_yaml(path: Path) -> Any:
    """None when there is no such file; "" when it is not YAML, or not plain."""
    try:
        return read_plain_yaml(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return ""


def _python(version: str, source: str) -> Requirement:
    here = platform.python_version()
    return Requirement(f"python=={version}", source, here, _agreement(version, here))


def _judge_line(text: str, source: str) -> Iterator[Requirement]:
    """Nothing for a build tool or a marker that does not hold here. Options of pip and addresses are no packages: unreadable."""
    try:
        parsed = Parsed(text)
    except InvalidRequirement:
        yield Requirement(text, source, None, "unreadable")
        return
    if parsed.name.lower() in BUILD_TOOLS or (parsed.marker is not None and not parsed.marker.evaluate()):
        return
    try:
        installed = metadata.version(parsed.name)
    except metadata.PackageNotFoundError:
        yield Requirement(text, source, None, "absent")
        return
    yield Requirement(text, source, installed, _of_range(parsed, installed))


def _of_range(parsed: Parsed, installed: str) -> Agreement:
    """How near the installed version is to the one that is pinned; without a pin, whether it lies in the range."""
    if parsed.url:
        return "unreadable"
    pins = [one.version for one in parsed.specifier if one.operator in ("==", "===") and not one.version.endswith(".*")]
    if pins:
        return _agreement(pins[0], installed)
    return "unpinned" if parsed.specifier.contains(installed, prereleases=True) else "other"


def _agreement(pinned: str, installed: str) -> Agreement:
    try:
        wanted, found = Version(pinned), Version(installed)
    except InvalidVersion:
        return "unreadable"
    if wanted.epoch != found.epoch or wanted.major != found.major:
        return "other"
    if len(wanted.release) > 1 and wanted.minor != found.minor:
        return "same_major"
    is_same = wanted.public == found.public or Version(wanted.public) == Version(found.public)
    return "same_version" if is_same else "same_minor"
