"""Model files from a real MLflow server: pinned by digest, and refused in one sentence when they cannot be used."""

import shutil
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.pyfunc
import pandas as pd
import pytest
from mlflow.models import infer_signature

from interlock.adapters.mlflow_files import MlflowFiles
from interlock.errors import ArtifactError, ReleaseError, ServiceUnavailable
from interlock.model.digest import artifact_digest
from tests.contract.mlflow_rig import quiet_mlflow, running_mlflow

HERE = Path(__file__).parent
NAME = "odd"
FRAME = pd.DataFrame({"amount": [1.5, 2.0]})
SIGNATURE = infer_signature(FRAME, pd.DataFrame({"scaled": [3.0]}))


@dataclass
class Logged:
    """A server of this module's own with artifacts that tests may spoil."""

    url: str
    root: Path
    versions: dict[str, str]

    def artifact(self, name: str, version: str) -> Path:
        """A file of one version in the server's artifact store; each was logged with its own marker."""
        (found,) = (p for p in (self.root / "artifacts").rglob(name) if f"marker-{version}" in _marker(p.parent))
        return found


def _marker(directory: Path) -> str:
    return (directory / "artifacts" / "marker.txt").read_text() if (directory / "artifacts" / "marker.txt").exists() else ""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    root = tmp_path_factory.mktemp("mlflow-files")
    with running_mlflow(root) as url, quiet_mlflow(url):
        versions = {}
        for what in ("good", "unsigned", "missing", "unreadable"):
            (root / "marker.txt").write_text(f"marker-{what}")
            versions[what] = _log(root, signed=what != "unsigned")
        yield Logged(url, root, versions)


def _log(root: Path, *, signed: bool) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = mlflow.pyfunc.log_model(
            name=NAME,
            registered_model_name=NAME,
            python_model=str(HERE / "odd_model.py"),
            artifacts={"marker": str(root / "marker.txt")},
            signature=SIGNATURE if signed else None,
            pip_requirements=["mlflow"],
        )
    return str(info.registered_model_version)


@pytest.fixture
def files(logged: Logged, tmp_path: Path) -> MlflowFiles:
    return MlflowFiles(logged.url, tmp_path)


def refused(files: MlflowFiles, version: str, *words: str, kind: type[ReleaseError] = ArtifactError, name: str = NAME) -> None:
    with pytest.raises(ReleaseError) as caught:
        files.fetch(name, version)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    assert "Traceback" not in message
    assert all(word in message for word in (f"{name}/{version}", *words)), message


def test_a_version_is_pinned_by_the_digest_of_its_files_and_fetched_once(logged: Logged, files: MlflowFiles, tmp_path: Path) -> None:
    version, directory = files.fetch(NAME, logged.versions["good"])
    assert version.label == f"{NAME}/{logged.versions['good']}"
    assert artifact_digest(directory) == version.digest
    assert directory == files.directory(version) == tmp_path / version.digest.removeprefix("sha256:")
    assert files.fetch(NAME, logged.versions["good"]) == (version, directory)
    assert [path.name for path in tmp_path.iterdir()] == [directory.name], "nothing half fetched is left"


def test_two_machines_give_the_same_version_the_same_digest(logged: Logged, tmp_path: Path) -> None:
    one, two = (tmp_path / name for name in ("one", "two"))
    for directory in (one, two):
        directory.mkdir()
    good = logged.versions["good"]
    assert MlflowFiles(logged.url, one).fetch(NAME, good)[0] == MlflowFiles(logged.url, two).fetch(NAME, good)[0]


def test_law_7_a_local_copy_that_was_changed_is_not_used(logged: Logged, files: MlflowFiles) -> None:
    _, directory = files.fetch(NAME, logged.versions["good"])
    (directory / "extra.py").write_text("import os")
    refused(files, logged.versions["good"], "was changed since it was fetched", str(directory))


def test_a_version_without_a_signature_is_refused_with_the_remedy(logged: Logged, files: MlflowFiles, tmp_path: Path) -> None:
    refused(files, logged.versions["unsigned"], "no signature", "infer_signature")
    assert list(tmp_path.iterdir()) == []


def test_a_version_whose_files_are_gone_is_refused(logged: Logged, files: MlflowFiles) -> None:
    directory = logged.artifact("MLmodel", "missing").parent
    (directory / "MLmodel").unlink()
    refused(files, logged.versions["missing"], "MLmodel")
    shutil.rmtree(directory)
    refused(files, logged.versions["missing"])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x80", b"{", b"- a", b"", b"signature: yes", b"signature: {inputs: '', outputs: ''}"])
def test_a_description_that_is_garbage_is_refused(logged: Logged, files: MlflowFiles, content: bytes) -> None:
    logged.artifact("MLmodel", "unreadable").write_bytes(content)
    refused(files, logged.versions["unreadable"])


def test_what_was_never_registered_is_refused(files: MlflowFiles) -> None:
    refused(files, "999")
    refused(files, "1", name="nobody")


def test_a_server_that_is_down_is_not_the_models_fault(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    refused(MlflowFiles(url, tmp_path), "1", "is it up?", kind=ServiceUnavailable)


def test_a_disk_without_room_is_not_the_models_fault(logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(MlflowFiles(logged.url, tmp_path / "gone"), logged.versions["good"], "cannot be kept", kind=ServiceUnavailable)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    refused(MlflowFiles(logged.url, tmp_path), logged.versions["good"], "No space left", kind=ServiceUnavailable)
