"""Evidence in a directory: one append-only JSON-lines file per release, every record on disk before the call returns."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interlock.errors import EvidenceError, ServiceUnavailable
from interlock.model.release import RELEASE_ID
from interlock.ports import Clock

TAIL_BYTES = 16_384  # read at a time from the end of a file: an ending and what stands around it


class EvidenceFiles:
    """Records of releases; a record is {seq, at, kind, ...payload}, `seq` counting from 0 without a gap."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._known: dict[str, tuple[int, int]] = {}  # release -> size in bytes and number of records after our last write

    def append(self, release_id: str, kind: str, payload: Mapping[str, Any]) -> None:
        """
        Write one record durably. Several processes may write to one release: each takes its turn, and the numbering goes on.

        Raises:
            ServiceUnavailable: the disk is full or cannot be written.
            EvidenceError: the payload holds NaN, an infinity or something JSON cannot say.
        """
        _line(payload, f"record {kind} of {release_id}")  # refused before a file is made for it
        try:
            descriptor = os.open(self._path(release_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                sequence = self._next_sequence(release_id, descriptor)
                record = {"seq": sequence, "at": self._clock.utc_now().isoformat(), "kind": kind, **payload}
                _write_whole(descriptor, _line(record, f"record {kind} of {release_id}"))
                self._known[release_id] = (os.fstat(descriptor).st_size, sequence + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ServiceUnavailable(
                f"evidence of {release_id} cannot be written ({error.strerror}): free space on {self._directory}"
            ) from error

    def read(self, release_id: str) -> Sequence[Mapping[str, Any]]:
        """
        All records of one release, oldest first; empty when there are none.

        What stands behind the last line feed was never durable: somebody is writing it now, or died over it. It is no record.

        Raises:
            ServiceUnavailable: the file cannot be read.
            EvidenceError: a record is not JSON or the numbering has a gap.
        """
        path = self._path(release_id)
        return [_numbered(path, line, number) for number, line in enumerate(_read_bytes(path).split(b"\n")[:-1])]

    def read_ends(self, release_id: str, *, last_count: int) -> Sequence[Mapping[str, Any]]:
        """
        The first record, and of the others at most the last `last_count`, oldest first, without reading what lies between.

        Raises:
            ServiceUnavailable: the file cannot be read.
            EvidenceError: one of these is not JSON, or they are not numbered one after the other, the first with 0.
        """
        path = self._path(release_id)
        first_line, last_lines = _read_end_lines(path, last_count)
        if not first_line:
            return []
        last = [_record(path, line, "near the end") for line in last_lines]
        begin = last[0].get("seq") if last else 0
        if last and not (isinstance(begin, int) and begin >= 1):
            raise EvidenceError(f"{path} has a record numbered {begin} near its end: the evidence was cut or changed")
        return [_numbered(path, first_line, 0), *(_numbered(path, line, int(begin or 0) + n) for n, line in enumerate(last_lines))]

    def list_releases(self) -> Sequence[str]:
        """Release ids, oldest first."""
        changed_at: dict[str, float] = {}
        for path in self._directory.glob("*.jsonl"):
            with contextlib.suppress(OSError):  # it went away meanwhile
                changed_at[path.stem] = path.stat().st_mtime
        return sorted(changed_at, key=lambda release_id: changed_at[release_id])

    def _next_sequence(self, release_id: str, descriptor: int) -> int:
        """The number of the next record. For whoever has the lock: a record that its writer has died over is taken away."""
        size_bytes, (known_bytes, known_count) = os.fstat(descriptor).st_size, self._known.get(release_id, (0, 0))
        if known_bytes == size_bytes:
            return known_count
        count = len(self.read(release_id))  # refuses what was cut or changed, before anything is taken away
        os.ftruncate(descriptor, _read_bytes(self._path(release_id)).rfind(b"\n") + 1)
        return count

    def _path(self, release_id: str) -> Path:
        if not RELEASE_ID.fullmatch(release_id):
            raise EvidenceError(f"{release_id!r} is no release id: use letters, digits, dot, dash and underscore")
        return self._directory / f"{release_id}.jsonl"


def _record(path: Path, line: bytes, place: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise EvidenceError(f"{path}, record {place} is not readable: the evidence was cut or changed") from error
    if not isinstance(record, dict):
        raise EvidenceError(f"{path}, record {place} is no record: the evidence was cut or changed")
    return record


def _numbered(path: Path, line: bytes, number: int) -> Mapping[str, Any]:
    record = _record(path, line, str(number))
    if record.get("seq") != number:
        raise EvidenceError(f"{path}, record {number} is numbered {record.get('seq')}: the evidence was cut or changed")
    return record


def _read_end_lines(path: Path, last_count: int) -> tuple[bytes, list[bytes]]:
    """The first line, empty when there is none, and of the others the last ones. A record that was never finished is none."""
    try:
        with path.open("rb") as file:
            first = file.readline()
            begin = file.tell()
            size, taken_bytes, lines = file.seek(0, os.SEEK_END), TAIL_BYTES, list[bytes]()
            while True:
                start = max(begin, size - taken_bytes)
                file.seek(start)
                lines = file.read(size - start).split(b"\n")[:-1]
                if start == begin or len(lines) > last_count:  # unless all were read, the first of them may be half a line
                    return (first if first.endswith(b"\n") else b""), lines[-last_count:]
                taken_bytes *= 4
    except FileNotFoundError:
        return b"", []
    except OSError as error:
        raise ServiceUnavailable(f"{path} cannot be read ({error.strerror})") from error


def _line(record: Mapping[str, Any], what: str) -> bytes:
    try:
        return (json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n").encode()
    except (ValueError, TypeError) as error:
        raise EvidenceError(f"{what} cannot be written as JSON: {error}") from error


def _write_whole(descriptor: int, line: bytes) -> None:
    """Write the line to the end of the file, durably, or leave the file as it was: a disk that fills up takes a part and says nothing."""
    before_bytes = os.fstat(descriptor).st_size
    try:
        if (written := os.write(descriptor, line)) != len(line):
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were taken")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before_bytes)
        raise


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ServiceUnavailable(f"{path} cannot be read ({error.strerror})") from error
