"""A model version's files, read without loading any of them; what can hang or crash is done by a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from interlock.model.artifact import ArtifactReading, CodeFinding, FileReading, Name, Requirement, SignatureReading
from interlock.model.digest import artifact_manifest, manifest_digest

DEADLINE_SECONDS = 600.0  # small objects take about .8 s a MiB and arrays next to nothing; a file made to hang takes for ever
HOLD_SECONDS = 5.0
NOT_READ = SignatureReading(0, 0, 0, ("signature and input example were not read: mend what is refused first",))


def read_artifact(directory: Path, *, hold: Callable[[], None], deadline_seconds: float = DEADLINE_SECONDS) -> ArtifactReading:
    """
    Everything the artifact gate judges. `hold` is called every few seconds meanwhile.

    A file that the reading process did not survive, or not within the deadline, is a refused one, and so are those after it.

    Raises:
        ArtifactError: the files cannot be read at all, or something among them is no regular file.
    """
    artifact_manifest(directory)  # links and devices are refused before anything is opened
    with tempfile.TemporaryFile() as output:
        how = _inspect(directory, output, hold=hold, deadline_seconds=deadline_seconds)
        output.seek(0)
        told = _told(output, how)
    manifest = artifact_manifest(directory, between=hold)
    return ArtifactReading(
        digest=manifest_digest(manifest),
        manifest=manifest,
        files=tuple(told.files),
        code=tuple(told.code),
        requirements=tuple(told.requirements),
        signature=told.signature,
    )


def _inspect(directory: Path, output: IO[bytes], *, hold: Callable[[], None], deadline_seconds: float) -> str:
    """Run the reading process; returns how it ended."""
    command = [sys.executable, "-P", "-m", "interlock.adapters.artifact.inspection", str(directory.resolve())]
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "TMPDIR", "LANG", "HOME")}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, env=environment) as process:
        ends_at = time.monotonic() + deadline_seconds
        try:
            while time.monotonic() < ends_at:
                hold()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return f"its reader ended with exit code {process.wait(min(HOLD_SECONDS, deadline_seconds))}"
            return f"reading it took longer than {deadline_seconds:g} s"
        finally:
            process.kill()


@dataclass(slots=True)
class _Told:
    """What the reading process said before it ended, or was ended."""

    files: list[FileReading] = field(default_factory=list)
    code: list[CodeFinding] = field(default_factory=list)
    requirements: list[Requirement] = field(default_factory=list)
    signature: SignatureReading = NOT_READ

    def take(self, told: dict[str, Any]) -> None:
        """One line of it."""
        if "file" in told:
            self.files.append(_file(told["file"]))
        elif "code" in told:
            self.code.append(CodeFinding(**told["code"]))
        elif "requirement" in told:
            self.requirements.append(Requirement(**told["requirement"]))
        elif "signature" in told:
            self.signature = SignatureReading(**{**told["signature"], "problems": tuple(told["signature"]["problems"])})


def _told(output: IO[bytes], how: str) -> _Told:
    """All of it; the file at which the process ended too early is refused."""
    all_told, begun, is_whole = _Told(), "the files", False
    for line in output:
        try:
            told = json.loads(line)
        except ValueError:
            break  # cut off in the middle
        all_told.take(told)
        begun, is_whole = told.get("begins", begun), "ends" in told
    if not is_whole:
        all_told.files.append(FileReading(begun, "unread", f"{how}: neither this nor what comes after it was read to the end"))
    return all_told


def _file(told: dict[str, Any]) -> FileReading:
    names, findings = (tuple(Name(**name) for name in told[part]) for part in ("names", "findings"))
    return FileReading(told["path"], told["kind"], told["refusal"], names, findings)
