"""A server on trial: started as the plane starts its own, known to nobody, and gone when the block ends."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.adapters.clock import SystemClock
from interlock.adapters.scoring_client import ScoringClient
from interlock.errors import ArtifactError, ServiceRefused, ServiceUnavailable
from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.plane.process import supervised
from interlock.plane.trial import trial_server
from interlock.ports import Trial
from tests.contract.model_server_rig import save_odd_model

pytestmark = pytest.mark.timeout(240)
ROW = b'{"dataframe_split": {"columns": ["amount", "count", "country", "vip"], "data": [[1.5, 1, "de", true]]}}'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelVersion]:
    """A directory of models, by digest, and the version in it."""
    root = tmp_path_factory.mktemp("models")
    saved = save_odd_model(root / "odd")
    digest = artifact_digest(saved)
    saved.rename(root / digest.removeprefix("sha256:"))
    return root, ModelVersion("odd", "7", digest)


def test_it_answers_rows_and_is_gone_afterwards(models: tuple[Path, ModelVersion], tmp_path: Path) -> None:
    directory, version = models
    trial = Trial(version, "interlock", 1, start_deadline_seconds=120.0, memory_limit_mib=2048.0)
    with trial_server(trial, models_directory=directory, log_directory=tmp_path, clock=SystemClock()) as server:
        assert server.start_seconds > 0
        with ScoringClient(server.port, timeout_seconds=10.0) as client:
            assert '"country": "de"' in client.ask(ROW)
        assert supervised(tmp_path) == [], "what this process has started is not a stray of its own"
    with ScoringClient(server.port, timeout_seconds=2.0) as client, pytest.raises(ServiceUnavailable):
        client.ask(ROW)


@pytest.mark.parametrize(
    ("change", "deadline_seconds", "error"),
    [
        pytest.param(
            lambda directory: (directory / "MLmodel").write_text("no model"), 120.0, ServiceRefused, id="other files than were judged"
        ),
        pytest.param(lambda _: None, 0.0, ServiceUnavailable, id="not ready in time"),
    ],
)
def test_what_does_not_start_says_why(
    models: tuple[Path, ModelVersion],
    tmp_path: Path,
    change: Callable[[Path], object],
    deadline_seconds: float,
    error: type[Exception],
) -> None:
    directory, version = models
    copy = tmp_path / version.digest.removeprefix("sha256:")
    shutil.copytree(directory / copy.name, copy)
    change(copy)
    trial = Trial(version, "interlock", 1, deadline_seconds, memory_limit_mib=2048.0)
    with pytest.raises(error), trial_server(trial, models_directory=tmp_path, log_directory=tmp_path, clock=SystemClock()):
        pass


def test_one_that_ends_by_itself_says_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "MLmodel").write_text("flavors: {}\n")
    version = ModelVersion("odd", "7", artifact_digest(tmp_path / "odd"))
    (tmp_path / "odd").rename(tmp_path / version.digest.removeprefix("sha256:"))
    trial = Trial(version, "interlock", 1, 120.0, memory_limit_mib=2048.0)
    with (
        pytest.raises(ArtifactError, match="odd/7 ended with exit code"),
        trial_server(trial, models_directory=tmp_path, log_directory=tmp_path, clock=SystemClock()),
    ):
        pass
