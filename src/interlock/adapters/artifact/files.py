"""
What each file of a model version is by its content, never by its name; archives and packed files are opened, within bounds.

What cannot be read as what it is, or as what its name claims, is refused: a reader that shrugs is how hostile files pass.
"""

import bz2
import codecs
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from interlock.adapters.artifact.mlmodel import names_in_mlmodel
from interlock.adapters.artifact.pickles import JOBLIB_WRAPPER, Walk, walk
from interlock.adapters.artifact.texts import MLMODEL, names_in_text, read_plain_yaml, what_is_wrong_with
from interlock.errors import ArtifactError
from interlock.model.artifact import FileReading, Name

MOST_UNPACKED_BYTES = 4 * 2**30  # of one version: an archive that grows beyond it is meant to fill a disk
DEEPEST = 4  # archives within archives
BLOCK_BYTES = 2**20
IN_MEMORY_BYTES = 64 * 2**20
ARRAY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
# What a name claims: the kinds that a file so named may be.
CLAIMS = {
    ".pkl": {"pickle", "packed"},
    ".pickle": {"pickle", "packed"},
    ".joblib": {"pickle", "packed"},
    ".npy": {"array"},
    ".npz": {"archive"},
    ".zip": {"archive"},
    ".skops": {"archive"},
    ".gz": {"packed"},
    ".bz2": {"packed"},
    ".xz": {"packed"},
    ".py": {"text", "empty"},
    ".json": {"text"},
    ".yaml": {"text"},
    ".yml": {"text"},
}


class _Inflate:
    """A zlib stream as a file to read from."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._inflater = packed, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end. Raises zlib.error when it is cut off or goes on behind its end."""
        while not self._inflater.eof:
            waiting = self._inflater.unconsumed_tail or self._packed.read(BLOCK_BYTES)
            if not waiting:
                raise zlib.error("it is cut off")
            if found := self._inflater.decompress(waiting, count):
                return found
        if self._inflater.unused_data or self._packed.read(1):
            raise zlib.error("it goes on behind its end")
        return b""


UNPACKERS: tuple[tuple[tuple[bytes, ...], Callable[[IO[bytes]], Any]], ...] = (
    ((b"\x1f\x8b",), lambda packed: gzip.GzipFile(fileobj=packed, mode="rb")),
    ((b"BZh",), bz2.BZ2File),
    ((b"\xfd7zXZ\x00", b"\x5d\x00\x00"), lzma.LZMAFile),
    ((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), _Inflate),
)
DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ArtifactError)


class Reader:
    """Reads the files of one version; what is unpacked of them counts together."""

    def __init__(self, *, most_unpacked_bytes: int = MOST_UNPACKED_BYTES) -> None:
        self._left_bytes = most_unpacked_bytes

    def read(self, path: Path, name: str) -> Iterator[FileReading]:
        """The file, and whatever it holds."""
        with path.open("rb") as stream:
            yield from self._look(stream, name, depth=0)

    def _look(self, stream: IO[bytes], name: str, *, depth: int) -> Iterator[FileReading]:
        try:
            for reading in self._by_content(stream, name, depth=depth):
                yield _held_to_claim(reading) if reading.path == name else reading
        except DAMAGED as error:
            yield FileReading(name, "damaged", f"it cannot be read, {type(error).__name__}: {' '.join(str(error).split())[:120]}")

    def _by_content(self, stream: IO[bytes], name: str, *, depth: int) -> Iterator[FileReading]:
        head = stream.read(16)
        walked = walk(stream, as_joblib=True)
        stream.seek(0)
        if _is_pickle(head, walked):
            yield _pickle(stream, name, walked)
        elif not head:
            yield FileReading(name, "empty")
        elif head.startswith(ARRAY_MAGIC):
            yield self._array(stream, name)
        elif head.startswith(ZIP_MAGIC):
            yield from self._archive(stream, name, depth=depth)
        elif unpack := next((unpack for magic, unpack in UNPACKERS if head.startswith(magic)), None):
            yield FileReading(name, "packed")
            yield from self._inner(unpack(stream), f"{name}!", depth=depth)
        elif _is_text(stream):
            yield _text(stream, name, is_inside=depth > 0)
        else:
            yield FileReading(name, "unknown", "it is neither text, pickle, array nor archive: log the model in a format that can be read")

    def _inner(self, source: Any, name: str, *, depth: int) -> Iterator[FileReading]:
        if depth >= DEEPEST:
            raise ArtifactError(f"archives within archives, more than {DEEPEST} deep")
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as unpacked:
            while block := source.read(BLOCK_BYTES):
                self._left_bytes -= len(block)
                if self._left_bytes < 0:
                    raise ArtifactError("unpacked it is larger than this gate opens: log the model without packing it")
                unpacked.write(block)
            unpacked.seek(0)
            yield from self._look(unpacked, name, depth=depth + 1)

    def _archive(self, stream: IO[bytes], name: str, *, depth: int) -> Iterator[FileReading]:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) != len(members):
                raise ArtifactError("two members of one name: which of them is loaded is anybody's guess")
            if members and min(member.header_offset for member in members) != 0:
                raise ArtifactError("bytes in front of its first member")
            yield FileReading(name, "archive")
            for member in members:
                if not member.is_dir():
                    with archive.open(member) as content:
                        yield from self._inner(content, f"{name}!{member.filename}", depth=depth)

    def _array(self, stream: IO[bytes], name: str) -> FileReading:
        from numpy.lib import format as arrays

        version = arrays.read_magic(stream)
        readers = {(1, 0): arrays.read_array_header_1_0, (2, 0): arrays.read_array_header_2_0}
        if version not in readers:
            raise ArtifactError(f"an array of format {version}, which this gate does not know")
        shape, _, dtype = readers[version](stream)
        begin, size = stream.tell(), 1
        for side in shape:
            size *= side
        if dtype.hasobject:
            rest = io.BytesIO(stream.read())
            return replace(_pickle(rest, name, walk(rest, as_joblib=False)), kind="array")
        if (found := stream.seek(0, io.SEEK_END) - begin) != size * dtype.itemsize:
            raise ArtifactError(f"an array of {size * dtype.itemsize} bytes followed by {found} bytes")
        return FileReading(name, "array")


def _is_pickle(head: bytes, walked: Walk) -> bool:
    """Whether loading it as a pickle would do anything, or it says of itself that it is one."""
    claims = len(head) > 1 and head[0] == 0x80 and head[1] <= 5
    return claims or walked.does_something or bool(walked.names and walked.pickle_count)


def _pickle(stream: IO[bytes], name: str, walked: Walk) -> FileReading:
    names = set(walked.names)
    if Name(*JOBLIB_WRAPPER, "called") in names:  # plain `pickle.load` would take the raw arrays for opcodes: both readings count
        names |= walk(stream, as_joblib=False).names
    refusal = f"it is no whole pickle, {walked.error}: log the model again" if walked.error else ""
    findings = set[Name]()
    for part in walked.parts or (None,):
        scanned = scan_pickle_bytes(_at_begin(stream) if part is None else io.BytesIO(part), name)
        findings |= {Name(g.module, g.name) for g in scanned.globals if g.safety is SafetyLevel.Dangerous}
        if scanned.scan_err and not refusal:
            refusal = "the scanner cannot read this pickle: log the model again"
    return FileReading(name, "pickle", refusal, tuple(sorted(names)), tuple(sorted(findings)))


def _at_begin(stream: IO[bytes]) -> IO[bytes]:
    stream.seek(0)
    return stream


def _is_text(stream: IO[bytes]) -> bool:
    stream.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := stream.read(BLOCK_BYTES):
            if b"\0" in block:
                return False
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _text(stream: IO[bytes], name: str, *, is_inside: bool) -> FileReading:
    if is_inside and name.endswith(".py"):
        return FileReading(name, "text", "Python within an archive is not scanned: log it with code_paths")
    text = _at_begin(stream).read().decode("utf-8")
    if refusal := what_is_wrong_with(name, text):
        return FileReading(name, "text", refusal)
    if Path(name).name == MLMODEL:
        return FileReading(name, "text", "", tuple(sorted(names_in_mlmodel(read_plain_yaml(text)))))
    return FileReading(name, "text", "", names_in_text(name, text))


def _held_to_claim(reading: FileReading) -> FileReading:
    suffix = Path(reading.path).suffix.lower()  # of what was unpacked (`model.pkl.gz!`) it is none that claims anything
    if reading.refusal or reading.kind in CLAIMS.get(suffix, {reading.kind}):
        return reading
    return replace(reading, refusal=f"its name says {suffix} and its content is {reading.kind}: log the model again")
