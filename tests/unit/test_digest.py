"""The identity of an artifact: what counts, what does not, what is refused."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.errors import ArtifactError
from interlock.model.digest import artifact_digest


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "code").mkdir(parents=True)
    (directory / "MLmodel").write_text("flavors: {}\n")
    (directory / "model.pkl").write_bytes(b"\x80\x04")
    (directory / "code" / "features.py").write_text("pass\n")
    return directory


def test_the_digest_is_written_down_byte_by_byte(artifact: Path) -> None:
    lines = b""
    for name in ("MLmodel", "code/features.py", "model.pkl"):
        lines += name.encode() + b"\0" + hashlib.sha256((artifact / name).read_bytes()).hexdigest().encode() + b"\n"
    assert artifact_digest(artifact) == "sha256:" + hashlib.sha256(lines).hexdigest()


def test_what_mlflows_downloader_adds_does_not_count(artifact: Path) -> None:
    before = artifact_digest(artifact)
    (artifact / "registered_model_meta").write_text("model_name: fraud\nmodel_version: champion\n")
    assert artifact_digest(artifact) == before


def test_times_and_modes_do_not_count(artifact: Path) -> None:
    before = artifact_digest(artifact)
    os.utime(artifact / "MLmodel", (1, 1))
    (artifact / "model.pkl").chmod(0o600)
    (artifact / "empty").mkdir()
    assert artifact_digest(artifact) == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: (d / "model.pkl").write_bytes(b"\x80\x05"), id="content"),
        pytest.param(lambda d: (d / "model.pkl").rename(d / "model2.pkl"), id="name"),
        pytest.param(lambda d: (d / "model.pkl").rename(d / "code" / "model.pkl"), id="place"),
        pytest.param(lambda d: (d / "added").write_bytes(b""), id="an empty file more"),
        pytest.param(lambda d: (d / "code" / "features.py").unlink(), id="a file less"),
        pytest.param(lambda d: (d / "code" / "registered_model_meta").write_text("x"), id="the downloader's name elsewhere"),
        pytest.param(
            lambda d: ((d / "code" / "__pycache__").mkdir(), (d / "code" / "__pycache__" / "f.pyc").write_bytes(b"")), id="byte code"
        ),
    ],
)
def test_everything_else_counts(artifact: Path, change: Callable[[Path], object]) -> None:
    before = artifact_digest(artifact)
    change(artifact)
    assert artifact_digest(artifact) != before


@pytest.mark.parametrize("target", ["model.pkl", "code", "nowhere"])
def test_links_are_refused(artifact: Path, target: str) -> None:
    (artifact / "link").symlink_to(artifact / target)
    with pytest.raises(ArtifactError, match="symbolic link"):
        artifact_digest(artifact)


def test_devices_are_refused(artifact: Path) -> None:
    os.mkfifo(artifact / "pipe")
    with pytest.raises(ArtifactError, match="neither a file nor a directory"):
        artifact_digest(artifact)


def test_a_missing_or_empty_directory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    for directory in (tmp_path / "absent", tmp_path):
        with pytest.raises(ArtifactError, match="fetch the model version again"):
            artifact_digest(directory)
    (tmp_path / "registered_model_meta").write_text("x")
    with pytest.raises(ArtifactError, match="holds no file"):
        artifact_digest(tmp_path)
