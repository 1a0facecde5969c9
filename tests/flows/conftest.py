"""One Prefect server for all flow tests: its start costs more than all of them together."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from interlock.plane.state_directory import StackAddresses, StateDirectory
from tests.worlds import PROFILES, World


@pytest.fixture(scope="session")
def prefect_url() -> Iterator[str]:
    """The API of a Prefect server of the test session's own."""
    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def world(prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of fakes in which the flows run; nothing in it is real but Prefect, the judge and the gates."""
    assert prefect_url
    world = World()
    for module in ("tasks.traffic", "tasks.conclusion"):
        monkeypatch.setattr(f"{module}.open_services", world.services)
    monkeypatch.setenv("INTERLOCK_STATE_DIR", str(tmp_path))
    (tmp_path / "evidence").mkdir()
    addresses = StackAddresses(1, "a", "b", "c", "d", "e", "f", "late", ["short"], str(PROFILES), str(tmp_path))
    StateDirectory(tmp_path).write_addresses(addresses)
    return world
