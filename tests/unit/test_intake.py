"""Intake: what entered the watched stage becomes one release each, whatever is repeated, lost or restarted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from interlock.adapters.fakes import FakeRegistry
from interlock.control.intake import Intake
from interlock.errors import ServiceUnavailable


@dataclass
class Runs:
    """A submitter as Prefect is one: the same key gives the same run."""

    keys: dict[str, str] = field(default_factory=dict)
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    fails_at: int | None = None

    def submit(self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str) -> str:
        if len(self.asked) + 1 == self.fails_at:
            self.fails_at = None
            raise ServiceUnavailable("Prefect does not answer")
        assert deployment == "release/release"
        self.asked.append(parameters)
        return self.keys.setdefault(idempotency_key, f"run-{len(self.keys) + 1}")


@pytest.fixture
def registry() -> FakeRegistry:
    registry = FakeRegistry()
    for version in ("1", "2", "3"):
        registry.add("late", version)
    registry.add("other", "1", "Staging")
    return registry


def intake(registry: FakeRegistry, runs: Runs, digest: str = "sha256:a") -> Intake:
    return Intake(registry, runs, "late", "standard", lambda: digest)


def test_one_entry_is_one_release_however_often_one_looks(registry: FakeRegistry) -> None:
    runs = Runs()
    poller = intake(registry, runs)
    assert poller.poll() == []
    registry.set_stage("late", "2", "Staging")
    assert poller.poll() == ["run-1"]
    assert [poller.poll() for _ in range(3)] == [[], [], []]
    assert runs.asked == [{"model_name": "late", "version": "2", "profile_name": "standard"}]


def test_the_version_that_entered_first_is_released_first(registry: FakeRegistry) -> None:
    runs = Runs()
    for version in ("3", "1", "2"):
        registry.set_stage("late", version, "Staging")
    intake(registry, runs).poll()
    assert [parameters["version"] for parameters in runs.asked] == ["3", "1", "2"]


def test_a_restart_repeats_the_key_so_that_nothing_is_released_twice(registry: FakeRegistry) -> None:
    runs = Runs()
    registry.set_stage("late", "2", "Staging")
    assert intake(registry, runs).poll() == intake(registry, runs).poll() == ["run-1"]
    assert len(runs.keys) == 1


def test_a_version_that_left_and_came_back_is_the_same_release_until_the_profile_changes(registry: FakeRegistry) -> None:
    runs = Runs()
    poller = intake(registry, runs)
    for stage in ("Staging", "Archived", "Staging"):
        registry.set_stage("late", "2", stage)
        poller.poll()
    assert list(runs.keys.values()) == ["run-1"]
    assert intake(registry, runs, digest="sha256:b").poll() == ["run-2"]


def test_what_failed_half_way_is_asked_for_again_and_nothing_is_lost(registry: FakeRegistry) -> None:
    runs = Runs(fails_at=2)
    for version in ("1", "2", "3"):
        registry.set_stage("late", version, "Staging")
    poller = intake(registry, runs)
    with pytest.raises(ServiceUnavailable):
        poller.poll()
    assert poller.poll() == ["run-1", "run-2", "run-3"]
    assert len(runs.keys) == 3


def test_a_registry_that_is_down_forgets_nothing(registry: FakeRegistry) -> None:
    runs = Runs()
    poller = intake(registry, runs)
    registry.set_stage("late", "2", "Staging")
    poller.poll()
    registry.down = True
    with pytest.raises(ServiceUnavailable):
        poller.poll()
    registry.down = False
    assert poller.poll() == []
