"""One suite for every registry: the fake of the unit tests is held to what a real MLflow server does."""

import itertools
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from interlock.adapters.fakes import FakeRegistry
from interlock.adapters.mlflow_registry import MlflowRegistry
from interlock.errors import ConcurrencyError, ReleaseError, ServiceRefused, ServiceUnavailable
from interlock.ports import RegisteredVersion, Registry

_numbers = itertools.count()


class MlflowWorld:
    """Registers versions in a real server."""

    def __init__(self, url: str) -> None:
        self.registry: Registry = MlflowRegistry(url)
        self.name = f"late flights' {next(_numbers)}"  # a blank and a quote: names are people's
        self._client = httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=60, trust_env=False)
        self._post("registered-models/create", {"name": self.name})

    def add_version(self) -> str:
        created = self._post("model-versions/create", {"name": self.name, "source": "s3://nowhere/model"})
        return str(created["model_version"]["version"])

    def set_stage_behind_the_back(self, version: str, stage: str) -> None:
        self._post("model-versions/transition-stage", {"name": self.name, "version": version, "stage": stage})

    def _post(self, path: str, body: dict[str, str]) -> dict[str, dict[str, str]]:
        answer: dict[str, dict[str, str]] = self._client.post(path, json=body).raise_for_status().json()
        return answer


class FakeWorld:
    """The same in memory."""

    def __init__(self) -> None:
        self._fake = FakeRegistry()
        self.registry: Registry = self._fake
        self.name = "late"

    def add_version(self) -> str:
        version = str(1 + len(self._fake.versions))
        self._fake.add(self.name, version)
        return version

    def set_stage_behind_the_back(self, version: str, stage: str) -> None:
        self._fake.move(self.name, version, stage)


World = MlflowWorld | FakeWorld


@pytest.fixture(params=["fake", "mlflow"])
def world(request: pytest.FixtureRequest) -> World:
    return FakeWorld() if request.param == "fake" else MlflowWorld(request.getfixturevalue("mlflow_url"))


@pytest.fixture
def versions(world: World) -> tuple[str, str, str]:
    first, second, third = (world.add_version() for _ in range(3))
    return first, second, third


def read(world: World, version: str) -> RegisteredVersion:
    return world.registry.read_version(world.name, version)


def test_a_new_version_has_no_stage_no_alias_and_no_tag(world: World, versions: tuple[str, str, str]) -> None:
    found = read(world, versions[0])
    assert (found.name, found.version, found.stage, found.aliases, dict(found.tags)) == (world.name, versions[0], "None", (), {})
    assert found.updated_at_ms > 0


def test_the_champion_is_alias_and_stage_and_the_former_one_is_archived(world: World, versions: tuple[str, str, str]) -> None:
    first, second, _ = versions
    assert world.registry.read_champion(world.name) is None
    world.registry.set_champion(world.name, first, token=0)
    assert (read(world, first).stage, read(world, first).aliases) == ("Production", ("champion",))
    world.registry.set_champion(world.name, second, token=0)
    assert world.registry.read_champion(world.name) == second
    assert (read(world, second).stage, read(world, second).aliases) == ("Production", ("champion",))
    assert (read(world, first).stage, read(world, first).aliases) == ("Archived", ())
    world.registry.set_champion(world.name, first, token=0)
    assert [read(world, version).stage for version in (first, second)] == ["Production", "Archived"], "and back again"


def test_setting_what_is_set_changes_nothing(world: World, versions: tuple[str, str, str]) -> None:
    first = versions[0]
    for _ in range(2):
        world.registry.set_champion(world.name, first, token=0)
        world.registry.set_tags(world.name, first, {"interlock.decision": "Promoted"}, token=0)
    before = read(world, first)
    world.registry.set_champion(world.name, first, token=0)
    world.registry.set_stage(world.name, first, "Production", token=0)
    assert read(world, first) == before


def test_a_stage_is_one_versions_own(world: World, versions: tuple[str, str, str]) -> None:
    first, second, _ = versions
    world.registry.set_stage(world.name, first, "Staging", token=0)
    world.registry.set_stage(world.name, second, "Staging", token=0)
    assert [read(world, version).stage for version in (first, second)] == ["Staging", "Staging"]
    world.registry.set_stage(world.name, first, "Archived", token=0)
    assert [read(world, version).stage for version in (first, second)] == ["Archived", "Staging"]


def test_a_champion_whose_stage_was_moved_behind_our_back_is_brought_in_line(world: World, versions: tuple[str, str, str]) -> None:
    first, second, _ = versions
    world.registry.set_champion(world.name, first, token=0)
    world.set_stage_behind_the_back(first, "Archived")
    world.set_stage_behind_the_back(second, "Production")
    world.registry.set_champion(world.name, first, token=0)
    assert [read(world, version).stage for version in (first, second)] == ["Production", "Archived"]


def test_tags_are_added_and_overwritten(world: World, versions: tuple[str, str, str]) -> None:
    first = versions[0]
    world.registry.set_tags(world.name, first, {"interlock.decision": "Held", "interlock.reason": "n=0 of 40; späte Flüge"}, token=0)
    world.registry.set_tags(world.name, first, {"interlock.decision": "Promoted"}, token=0)
    assert read(world, first).tags == {"interlock.decision": "Promoted", "interlock.reason": "n=0 of 40; späte Flüge"}


def test_versions_come_most_recently_changed_first(world: World, versions: tuple[str, str, str]) -> None:
    first, second, third = versions
    assert {found.version for found in world.registry.read_versions(world.name)} == set(versions)
    world.registry.set_stage(world.name, second, "Staging", token=0)
    found = world.registry.read_versions(world.name)
    assert found[0] == read(world, second)
    assert {each.version for each in found[1:]} == {first, third}


def test_what_does_not_exist_is_refused_and_named(world: World, versions: tuple[str, str, str]) -> None:
    for name, version in ((world.name, "999"), ("no such model", "1")):
        for call in (
            lambda n=name, v=version: world.registry.read_version(n, v),
            lambda n=name, v=version: world.registry.set_champion(n, v, token=0),
            lambda n=name, v=version: world.registry.set_stage(n, v, "Archived", token=0),
            lambda n=name, v=version: world.registry.set_tags(n, v, {"a": "b"}, token=0),
        ):
            with pytest.raises(ServiceRefused) as caught:
                call()
            assert version in str(caught.value) or name in str(caught.value)
    assert world.registry.read_versions("no such model") == []
    assert world.registry.read_champion("no such model") is None


def test_a_token_grows_is_read_back_and_is_each_models_own(world: World, versions: tuple[str, str, str]) -> None:
    assert versions
    assert world.registry.read_token(world.name) == 0
    for token in (3, 3, 12):  # 12 is smaller than 3 as text
        world.registry.claim(world.name, token=token)
        assert world.registry.read_token(world.name) == token
    assert world.registry.read_token("no such model") == 0
    with pytest.raises(ServiceRefused):
        world.registry.claim("no such model", token=1)


def test_an_older_token_is_refused_by_name_and_changes_nothing(world: World, versions: tuple[str, str, str]) -> None:
    first, second, _ = versions
    registry, name = world.registry, world.name
    registry.claim(name, token=4)
    registry.set_champion(name, first, token=4)
    registry.claim(name, token=5)
    before = [read(world, version) for version in versions]
    calls: tuple[Callable[[], None], ...] = (
        lambda: registry.claim(name, token=4),
        lambda: registry.set_champion(name, second, token=4),
        lambda: registry.set_stage(name, second, "Archived", token=4),
        lambda: registry.set_tags(name, second, {"a": "b"}, token=4),
    )
    for call in calls:
        with pytest.raises(ConcurrencyError, match=r"token 5\D*token 4"):
            call()
    assert ([read(world, version) for version in versions], registry.read_token(name)) == (before, 5)
    registry.set_champion(name, second, token=5)
    assert registry.read_champion(name) == second


def test_a_name_that_mlflow_cannot_search_for_is_refused_instead_of_found_empty() -> None:
    with pytest.raises(ServiceRefused, match="rename"):
        MlflowRegistry("http://127.0.0.1:1").read_versions("'late\"")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def down_registries() -> Iterator[Registry]:
    yield FakeRegistry(down=True)
    yield MlflowRegistry(f"http://127.0.0.1:{closed_port()}")


@pytest.mark.parametrize("registry", [*down_registries()], ids=["fake", "mlflow"])
def test_a_registry_that_is_down_is_unavailable_whatever_is_asked(registry: Registry) -> None:
    calls = (
        lambda: registry.read_version("late", "1"),
        lambda: registry.read_versions("late"),
        lambda: registry.read_champion("late"),
        lambda: registry.set_champion("late", "1", token=0),
        lambda: registry.set_stage("late", "1", "Archived", token=0),
        lambda: registry.set_tags("late", "1", {"a": "b"}, token=0),
        lambda: registry.read_token("late"),
        lambda: registry.claim("late", token=1),
    )
    for call in calls:
        with pytest.raises(ReleaseError) as caught:
            call()
        assert type(caught.value) is ServiceUnavailable
