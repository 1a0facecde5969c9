"""
Inputs of users on disk: a sample of request bodies, in files of their own beside the journal's segments.

A file is complete when its name appears (rename), and its name says when it was written, so that a window is found without opening files
outside of it. Bodies may hold personal data: files are readable by their owner only and go by age, the newest one as well.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interlock.errors import EvidenceError, StateError

_SCHEMA = pa.schema(
    [
        pa.field("received_at_seconds", pa.float64(), nullable=False),
        pa.field("input_digest", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int32(), nullable=False),
        pa.field("content_type", pa.string(), nullable=False),
        pa.field("body", pa.binary()),
    ]
)
_OURS = re.compile(r"inputs-([0-9]{15})\.(parquet|tmp)")


@dataclass(frozen=True, slots=True)
class Input:
    """
    What one user asked, answered well by the incumbent.

    received_at_seconds: Unix time at which it reached the collector. body: None when it was over the capture limit.
    """

    received_at_seconds: float
    content_type: str
    body: bytes | None

    @property
    def digest(self) -> str:
        """As `Leg.input_digest`: the first 16 hex digits of the body's SHA-256; empty without a body."""
        return "" if self.body is None else hashlib.sha256(self.body).hexdigest()[:16]

    @property
    def size_bytes(self) -> int:
        """Of the body; 0 without one."""
        return len(self.body or b"")


def write_inputs(directory: Path, inputs: Sequence[Input], *, at_seconds: float) -> Path:
    """
    Make one file of the inputs, whole or not at all.

    Raises:
        StateError: full disk, read-only directory; nothing was written and the same call may be tried again.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        number = int(at_seconds * 1000)
        while (path := directory / f"inputs-{number:015d}.parquet").exists():
            number += 1
        temporary = path.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        pq.write_table(_table(inputs), temporary, compression="zstd", use_dictionary=["content_type"], write_statistics=False)
        temporary.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise StateError(f"{len(inputs)} inputs cannot be written to {directory} ({error}); free or unlock it") from error
    return path


def prune_inputs(directory: Path, *, before_at_seconds: float, most_bytes: int) -> int:
    """
    Delete files written before that Unix time, then the oldest until the rest takes at most so many bytes; returns what the rest takes.

    Half a file of a killed collector goes with the old ones.

    Raises:
        StateError: a file cannot be deleted.
    """
    try:
        sizes = {path: path.stat().st_size for path in _ours(directory)}
        total_bytes = sum(sizes.values())
        for path, size in sizes.items():
            if _written_at_seconds(path) >= before_at_seconds and total_bytes <= most_bytes:
                break
            path.unlink(missing_ok=True)
            total_bytes -= size
    except OSError as error:
        raise StateError(f"old inputs cannot be deleted from {directory} ({error.strerror}); unlock it") from error
    return total_bytes


def list_files(directory: Path, *, since_at_seconds: float) -> list[Path]:
    """Files that can hold inputs received since that Unix time, oldest first. Empty when there is no such directory."""
    return [path for path in _ours(directory) if path.suffix == ".parquet" and _written_at_seconds(path) >= since_at_seconds - 1]


@dataclass(frozen=True, slots=True)
class Listing:
    """All inputs of one file without their bodies: shape (n,) each, in the file's order."""

    path: Path
    received_at_seconds: NDArray[np.float64]
    size_bytes: NDArray[np.int32]


def read_listing(path: Path) -> Listing:
    """
    What one file holds.

    Raises:
        EvidenceError: it cannot be read, or pruning took it away.
    """
    table = _read(path, ["received_at_seconds", "size_bytes"])
    return Listing(path, *(table.column(name).to_numpy() for name in table.column_names))


def read_bodies(path: Path, rows: NDArray[np.intp]) -> list[Input]:
    """
    These inputs of one file, by position.

    Raises:
        EvidenceError: it cannot be read, or pruning took it away.
    """
    table = _read(path, ["received_at_seconds", "content_type", "body"]).take(pa.array(rows))
    return [Input(*row) for row in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)]


def _read(path: Path, names: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(_SCHEMA):
                raise ValueError("its columns are not those of a file of inputs")
            return file.read(names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError(f"{path} cannot be read ({error}): its inputs are missing") from error


def _ours(directory: Path) -> list[Path]:
    """Oldest first; whatever else somebody puts beside them is left alone."""
    return [path for path in sorted(directory.glob("inputs-*")) if _OURS.fullmatch(path.name)]


def _written_at_seconds(path: Path) -> float:
    return int(path.name[len("inputs-") :].partition(".")[0]) / 1000


def _table(inputs: Sequence[Input]) -> pa.Table:
    columns = {
        "received_at_seconds": [each.received_at_seconds for each in inputs],
        "input_digest": [each.digest for each in inputs],
        "size_bytes": [each.size_bytes for each in inputs],
        "content_type": [each.content_type for each in inputs],
        "body": [each.body for each in inputs],
    }
    return pa.table(columns, schema=_SCHEMA)
