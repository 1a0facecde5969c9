"""
Reads one model version in a process of its own: `python -m interlock.adapters.artifact.inspection DIRECTORY`.

Prints one JSON object a line: {"begins": path} before each file, then what was read. Whoever waits for it ends it after a while: the
last path begun without a reading is the one that hung, or killed, this process.
"""

import contextlib
import json
import logging
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interlock.adapters.artifact.code import scan_code
from interlock.adapters.artifact.files import Reader
from interlock.adapters.artifact.mlmodel import misleading_mlmodels
from interlock.adapters.artifact.requirements import read_requirements
from interlock.adapters.artifact.signature import read_signature
from interlock.adapters.artifact.texts import MLMODEL
from interlock.model.artifact import FileReading, SignatureReading

logger = logging.getLogger(__name__)

MOST_MEMORY_BYTES = 8 * 2**30  # of addresses: a pickle that wants more is meant to end this machine
DEEPEST_RECURSION = 5_000  # json and ast give up by themselves there; the default is too shallow for some honest schemas


def main() -> None:
    """Read every file of the directory that the command line names."""
    directory = Path(sys.argv[1]).resolve()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(DEEPEST_RECURSION)
    sys.stdout.reconfigure(encoding="ascii")  # type: ignore[union-attr]
    output = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is none of our lines
        for line in _lines(directory):
            print(json.dumps(line), flush=True, file=output)


def _lines(directory: Path) -> Iterator[dict[str, Any]]:
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    reader, kinds, refused = Reader(), dict[str, str](), set[str]()
    for name in names:
        yield {"begins": name}
        for reading in _read(reader, directory / name, name):
            kinds |= {name: reading.kind} if reading.path == name else {}
            refused |= {name} if reading.refusal else set()
            yield {"file": asdict(reading)}
    yield {"begins": "MLmodel"}
    for reading in misleading_mlmodels(directory, kinds):
        refused.add(reading.path)
        yield {"file": asdict(reading)}
    yield {"begins": "the Python files"}
    for finding in scan_code(directory, [name for name in names if name.endswith(".py")]):
        yield {"code": asdict(finding)}
    yield {"begins": "requirements and signature"}
    yield from _described(directory, is_refused=MLMODEL in refused)
    yield {"ends": len(names)}


def _described(directory: Path, *, is_refused: bool) -> Iterator[dict[str, Any]]:
    """is_refused: MLmodel is, so nothing that it points to is opened."""
    try:
        for requirement in read_requirements(directory):
            yield {"requirement": asdict(requirement)}
    except Exception as error:  # of YAML that holds anything where names were expected
        logger.debug("reading the requirements", exc_info=True)
        yield {"file": asdict(_damaged("the requirements", error))}
    if is_refused:
        yield {"signature": asdict(SignatureReading(0, 0, 0, ("signature and input example were not read, as MLmodel is refused",)))}
    else:
        yield {"signature": asdict(read_signature(directory))}


def _read(reader: Reader, path: Path, name: str) -> Iterator[FileReading]:
    """Whatever reading raises is the file's fault: it is refused, and the others are still read."""
    try:
        yield from reader.read(path, name)
    except Exception as error:  # of libraries given hostile bytes
        logger.debug("reading %s", name, exc_info=True)
        yield _damaged(name, error)


def _damaged(name: str, error: Exception) -> FileReading:
    return FileReading(name, "damaged", f"it cannot be read, {type(error).__name__}: {' '.join(str(error).split())[:120]}")


if __name__ == "__main__":
    main()
