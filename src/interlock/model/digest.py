"""
The identity of a model artifact: one SHA-256 over the files of its directory.

Intake takes it once; the model server, the canary and the promotion compare it, so that what was judged is what is served.
Standard library only: whoever holds the directory can recompute it.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from interlock.errors import ArtifactError

# MLflow's downloader writes this file beside MLmodel whenever the artifact is fetched through a models:/ URI, and its content depends on
# the URI (models:/fraud/1, models:/fraud@champion and models:/m-... give three different files for the same artifact). With a local
# artifact store and no destination it even writes into the store. It is not part of what research logged. Seen with mlflow 3.17.2.
DOWNLOADER_FILE = "registered_model_meta"
BLOCK_BYTES = 8 * 2**20
REMEDY = "fetch the model version again into an empty directory"


def artifact_digest(directory: Path, *, between: Callable[[], None] = lambda: None) -> str:
    """
    `sha256:` and the SHA-256 over the sorted (relative posix path, SHA-256 of the content) of every regular file.

    Names, contents and positions count; times, owners, modes and empty directories do not, nor does `registered_model_meta` at the top
    level (see `DOWNLOADER_FILE`). A `__pycache__` counts on purpose: Python runs what lies in it. `between` is called before every
    8 MiB that are read.

    Raises:
        ArtifactError: the directory is missing or holds no file, or something in it is a link, a device or unreadable.
    """
    return manifest_digest(artifact_manifest(directory, between=between))


def manifest_digest(manifest: Mapping[str, str]) -> str:
    """The digest of the files that a manifest lists."""
    whole = hashlib.sha256()
    for name, inner in sorted(manifest.items()):
        # NUL cannot occur in a path and the inner digest has one length: no two sets of files write the same bytes.
        whole.update(os.fsencode(name) + b"\0" + inner.encode() + b"\n")
    return f"sha256:{whole.hexdigest()}"


def artifact_manifest(directory: Path, *, between: Callable[[], None] = lambda: None) -> Mapping[str, str]:
    """
    Relative posix path to SHA-256, hexadecimal, of every file that the digest is over.

    Raises:
        ArtifactError: as `artifact_digest`.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is not a directory, a model artifact was wanted; {REMEDY}")
    try:
        files = {path.relative_to(directory).as_posix(): path for path in _regular_files(directory)}
        manifest = {name: _content_digest(path, between) for name, path in sorted(files.items()) if name != DOWNLOADER_FILE}
    except OSError as error:
        raise ArtifactError(f"{error.filename or directory} in the model artifact cannot be read ({error.strerror}); {REMEDY}") from error
    if not manifest:
        raise ArtifactError(f"{directory} holds no file, a model artifact was wanted; {REMEDY}")
    return manifest


def _content_digest(path: Path, between: Callable[[], None]) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as content:
        while True:
            between()
            block = content.read(BLOCK_BYTES)
            if not block:
                return found.hexdigest()
            found.update(block)


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
