"""What was read in the files of a model version, without loading any of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Use = Literal["named", "called", "result_called", "changed"]
Severity = Literal["low", "medium", "high"]
# How far the version that a requirement pins lies from the installed one. "other": further than the major version, or outside its range.
Agreement = Literal["same_version", "same_minor", "same_major", "other", "absent", "unpinned", "unreadable"]


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """
    What a pickle names of a module, and what loading it would do with that.

    "called": calls it; "result_called": calls what it returned; "changed": sets its attributes.
    """

    module: str
    name: str
    use: Use = "named"

    @property
    def label(self) -> str:
        """As one would import it."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class FileReading:
    """
    One file, or one member of an archive (`model.zip!data.pkl`).

    kind: what it is by its content. refusal: why it cannot be judged; "" when it was read to its end. findings: what the scanner
    calls dangerous.
    """

    path: str
    kind: str
    refusal: str = ""
    names: tuple[Name, ...] = ()
    findings: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class CodeFinding:
    """One line of Python that came with the version, and what is wrong with it."""

    path: str
    line: int
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One package that the version says it needs, beside what is installed here (None: nothing)."""

    text: str
    source: str
    installed: str | None
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class SignatureReading:
    """Signature and input example: how many columns (or tensors), how many example rows, and what does not fit."""

    input_count: int
    output_count: int
    example_row_count: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactReading:
    """A whole version. manifest: path to SHA-256 of every file, taken after all of them were read; digest: that of the manifest."""

    digest: str
    manifest: Mapping[str, str]
    files: tuple[FileReading, ...]
    code: tuple[CodeFinding, ...]
    requirements: tuple[Requirement, ...]
    signature: SignatureReading
