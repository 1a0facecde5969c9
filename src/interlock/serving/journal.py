"""
The prediction journal on disk: columnar segments, written by one collector and read by any number of judges.

A segment is complete when its name appears (rename), and is never changed afterwards. Names carry a sequence number without gaps, so a
reader knows the next name and need not list a directory of a day's segments. Segments are not fsynced: after a power cut the last
ones may be unreadable, which a reader reports and steps over.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from interlock.errors import EvidenceError, StateError
from interlock.model.journal import Arm, Leg, Role

_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("received_at_seconds", pa.float64(), nullable=False),
        pa.field("status_code", pa.int32(), nullable=False),
        pa.field("latency_ms", pa.float64()),
        pa.field("input_digest", pa.string(), nullable=False),
        pa.field("prediction", pa.string()),
        pa.field("served_by", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
    ]
)
_NAMES = [field.name for field in fields(Leg)]
_FEW_VALUES = ["arm", "role", "served_by", "segment"]
# Calls that find nothing before a reader lists the directory to see whether pruning took its next segment away.
_MISSES_BEFORE_LISTING = 20


def segment_path(directory: Path, sequence: int) -> Path:
    """The name of a segment; names sort as their numbers do."""
    return directory / f"legs-{sequence:012d}.parquet"


def _sequences(directory: Path) -> list[int]:
    """Ascending; empty when there is no such directory."""
    if not directory.exists():
        return []
    return sorted(int(path.stem.removeprefix("legs-")) for path in directory.glob("legs-*.parquet"))


class SegmentWriter:
    """
    Writes segments in sequence and deletes old ones. One writer per directory; a new one continues the sequence of the last.

    Nothing is opened before the first write: a collector must start, and say what is wrong, also on a disk it cannot use.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: deque[int] | None = None
        self._next = 1

    def write(self, legs: Sequence[Leg]) -> None:
        """
        Make one segment of the legs, visible to readers at once and whole.

        Raises:
            StateError: full disk, read-only directory; nothing was written and the same call may be tried again.
        """
        try:
            known = self._open()
            path = segment_path(self._directory, self._next)
            temporary = path.with_suffix(".tmp")
            pq.write_table(_table(legs), temporary, compression="zstd", use_dictionary=_FEW_VALUES, write_statistics=False)
            temporary.replace(path)
        except (OSError, pa.ArrowException) as error:
            raise StateError(f"{len(legs)} legs cannot be written to {self._directory} ({error}); free or unlock it") from error
        known.append(self._next)
        self._next += 1

    def prune(self, *, before_at_seconds: float) -> int:
        """Delete segments last written before that Unix time and return how many; the newest stays, it keeps the sequence."""
        known, pruned_count = self._known or deque(), 0
        while len(known) > 1:
            path = segment_path(self._directory, known[0])
            try:
                if path.stat().st_mtime >= before_at_seconds:
                    break
                path.unlink()
            except FileNotFoundError:
                pass
            except OSError:
                break
            known.popleft()
            pruned_count += 1
        return pruned_count

    def _open(self) -> deque[int]:
        if self._known is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            for leftover in self._directory.glob("legs-*.tmp"):
                leftover.unlink()
            self._known = deque(_sequences(self._directory))
            self._next = self._known[-1] + 1 if self._known else 1
        return self._known


def _table(legs: Sequence[Leg]) -> pa.Table:
    return pa.table({name: [getattr(leg, name) for leg in legs] for name in _NAMES}, schema=_SCHEMA)


class JournalReader:
    """
    Hands out every leg once, in the order of the segments. `from_now` leaves out what was written before the reader was made.

    `corrupt_count` counts the segments that could not be read.
    """

    def __init__(self, directory: Path, *, from_now: bool = False) -> None:
        self._directory = directory
        self._misses = 0
        existing = _sequences(directory)
        self._next = existing[-1] + 1 if existing and from_now else existing[0] if existing else 1
        self.corrupt_count = 0

    def read_new(self) -> list[Leg]:
        """
        The legs of all segments since the last call; empty when there is none. Segments that pruning took away are passed over.

        Raises:
            EvidenceError: names a segment that cannot be read. Nothing else is lost: what came before was handed out by earlier
                calls, and the next call goes on behind it.
        """
        legs: list[Leg] = []
        while (sequence := self._find_next()) is not None:
            try:
                legs += _read_segment(segment_path(self._directory, sequence))
            except FileNotFoundError:
                pass
            except (pa.ArrowException, OSError, ValueError, KeyError) as error:
                if legs:
                    break
                self._next = sequence + 1
                self.corrupt_count += 1
                name = segment_path(self._directory, sequence)
                raise EvidenceError(f"segment {name} cannot be read ({error}); its legs are missing from the journal") from error
            self._next = sequence + 1
        return legs

    def _find_next(self) -> int | None:
        if segment_path(self._directory, self._next).exists():
            self._misses = 0
            return self._next
        self._misses += 1
        if self._misses <= _MISSES_BEFORE_LISTING:
            return None
        self._misses = 0
        return next((sequence for sequence in _sequences(self._directory) if sequence >= self._next), None)


def _read_segment(path: Path) -> list[Leg]:
    with pq.ParquetFile(path) as segment:  # not `read_table`, which imports pandas into every judge
        table = segment.read()
    if not table.schema.equals(_SCHEMA):
        raise ValueError("its columns are not those of a segment")
    columns = {name: table.column(name).to_pylist() for name in _NAMES}
    columns["arm"] = [Arm(arm) for arm in columns["arm"]]
    columns["role"] = [Role(role) for role in columns["role"]]
    return [Leg(*row) for row in zip(*columns.values(), strict=True)]
