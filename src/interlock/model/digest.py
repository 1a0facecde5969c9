"""
The identity of a model artifact: one SHA-256 over the files of its directory.

Intake takes it once; the model server, the canary and the promotion compare it, so that what was judged is what is served.
Standard library only: whoever holds the directory can recompute it.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from interlock.errors import ArtifactError

# MLflow's downloader writes this file beside MLmodel whenever the artifact is fetched through a models:/ URI, and its content depends on
# the URI (models:/fraud/1, models:/fraud@champion and models:/m-... give three different files for the same artifact). With a local
# artifact store and no destination it even writes into the store. It is not part of what research logged. Seen with mlflow 3.17.2.
DOWNLOADER_FILE = "registered_model_meta"
REMEDY = "fetch the model version again into an empty directory"


def artifact_digest(directory: Path) -> str:
    """
    `sha256:` and the SHA-256 over the sorted (relative posix path, SHA-256 of the content) of every regular file.

    Names, contents and positions count; times, owners, modes and empty directories do not, nor does `registered_model_meta` at the top
    level (see `DOWNLOADER_FILE`). A `__pycache__` counts on purpose: Python runs what lies in it.

    Raises:
        ArtifactError: the directory is missing or holds no file, or something in it is a link, a device or unreadable.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is not a directory, a model artifact was wanted; {REMEDY}")
    try:
        files = sorted((path.relative_to(directory).as_posix(), path) for path in _regular_files(directory))
        return _digest_of(files, directory)
    except OSError as error:
        raise ArtifactError(f"{error.filename or directory} in the model artifact cannot be read ({error.strerror}); {REMEDY}") from error


def _digest_of(files: list[tuple[str, Path]], directory: Path) -> str:
    whole = hashlib.sha256()
    counted = 0
    for name, path in files:
        if name == DOWNLOADER_FILE:
            continue
        with path.open("rb") as content:
            inner = hashlib.file_digest(content, "sha256").hexdigest()
        # NUL cannot occur in a path and the inner digest has one length: no two sets of files write the same bytes.
        whole.update(os.fsencode(name) + b"\0" + inner.encode() + b"\n")
        counted += 1
    if counted == 0:
        raise ArtifactError(f"{directory} holds no file, a model artifact was wanted; {REMEDY}")
    return f"sha256:{whole.hexdigest()}"


def _regular_files(directory: Path) -> Iterator[Path]:
    for entry in os.scandir(directory):
        if entry.is_symlink():
            raise ArtifactError(f"{entry.path} is a symbolic link and can point elsewhere tomorrow; log the model version with real files")
        if entry.is_dir():
            yield from _regular_files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
        else:
            raise ArtifactError(f"{entry.path} is neither a file nor a directory; log the model version with real files")
