"""The artifact gate: may the files of this version be loaded at all? It needs no server, and nothing is loaded to answer it."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from interlock.control.gates.artifact_names import is_code_by_value, why_refused
from interlock.control.gates.edge import judge_required, judged
from interlock.model.artifact import Agreement, ArtifactReading, CodeFinding, Name, Requirement
from interlock.model.verdict import Better, Measurement, Verdict
from interlock.profile.gates import Artifact

GATE = "artifact"
REQUIRED = (
    "unchanged_since_intake",
    "refused_file_count",
    "refused_name_count",
    "scanner_finding_count",
    "code_finding_count",
    "requirement_mismatch_count",
    "signature_problem_count",
    "example_row_count",
)
LOADER = "_load_pyfunc"  # of every module that MLmodel may name as a loader
MOST_TOLD = 5  # of each kind; the evidence has all counts, and whoever mends the version sees the rest next time
SEVERITIES = ("none", "low", "medium", "high")
NEARNESS: tuple[Agreement, ...] = ("same_version", "same_minor", "same_major")
OWN_PACKAGE = "mlflow"  # its patch versions read each other's models, and every one of them is pinned by default


def judge_artifact(policy: Artifact, reading: ArtifactReading, *, digest: str) -> Verdict:
    """
    May these files be loaded?

    FAIL, each with file and finding in the reason: files that are not those of `digest`; a file that cannot be read as what it is; a
    name in a pickle that is not allowed; what the pickle scanner calls dangerous; Python beyond `max_code_severity`; a requirement that
    is absent here or too far from what is installed; no input example, or one that does not fit the signature. A version that names no
    requirement at all is INCONCLUSIVE.
    """
    return judged(GATE, lambda: _judge(policy, reading, digest))


def _judge(policy: Artifact, reading: ArtifactReading, digest: str) -> Verdict:
    refused_files = [f"{file.path}: {file.refusal}" for file in reading.files if file.refusal]
    refused_names = list(_refused_names(policy, reading).values())
    findings = list(dict.fromkeys(_findings(policy, reading)))
    code = [_told_code(one) for one in reading.code if _rank(one) > SEVERITIES.index(policy.max_code_severity)]
    far = [_told_requirement(one) for one in reading.requirements if not _is_near(policy, one)]
    counts = {
        "refused_file_count": len(refused_files),
        "refused_name_count": len(refused_names),
        "scanner_finding_count": len(findings),
        "code_finding_count": len(code),
        "signature_problem_count": len(reading.signature.problems),
    }
    file_count, requirement_count = len(reading.manifest), len(reading.requirements)
    measurements = (
        _measured("unchanged_since_intake", int(reading.digest == digest), 1, "higher", file_count),
        *(_measured(name, count, 0, "lower", len(reading.files)) for name, count in counts.items()),
        _measured("requirement_mismatch_count", len(far), 0, "lower", requirement_count),
        _measured("example_row_count", reading.signature.example_row_count, 1, "higher", file_count),
        *_shown(reading),
    )
    remarks = [f"the files have {reading.digest}, taken at intake was {digest}: fetch them again"] if reading.digest != digest else []
    for told in (refused_files, refused_names, findings, code, far, list(reading.signature.problems)):
        remarks += _few(told)
    return judge_required(GATE, measurements, required=REQUIRED, remarks=[*remarks, *_hints(policy, reading)])


def _measured(name: str, value: float, limit: float, better: Better, sample_count: int) -> Measurement:
    return Measurement(name, float(value), float(limit), better, "", sample_count, 1)


def _shown(reading: ArtifactReading) -> Iterator[Measurement]:
    shown = {
        "file_count": len(reading.manifest),
        "pickle_count": sum(bool(file.names) or file.kind == "pickle" for file in reading.files),
        "name_count": len({name for file in reading.files for name in file.names}),
        "input_count": reading.signature.input_count,
        "output_count": reading.signature.output_count,
    }
    for name, value in shown.items():
        yield Measurement(name, float(value), float("nan"), "higher", "", len(reading.files), 1)


def _refused_names(policy: Artifact, reading: ArtifactReading) -> dict[tuple[str, str], str]:
    """By file and name, each once, however many things loading would do with it."""
    refused = dict[tuple[str, str], str]()
    for file in reading.files:
        for name in file.names:
            if file.path == "MLmodel" and name.name == LOADER and _is_own_module(reading, name.module):
                continue  # a loader of the version's own, whose code is scanned
            if why := why_refused(name, policy.allowed_modules):
                refused[file.path, name.label] = f"{file.path}: {why}"
    return refused


def _is_own_module(reading: ArtifactReading, module: str) -> bool:
    """Whether MLflow would import it from the version's own code directory: the file is there, and nothing of that name is in its way."""
    if module.split(".")[0] in (OWN_PACKAGE, *sys.stdlib_module_names):
        return False
    path = f"code/{module.replace('.', '/')}"
    return f"{path}.py" in reading.manifest or f"{path}/__init__.py" in reading.manifest


def _findings(policy: Artifact, reading: ArtifactReading) -> Iterator[str]:
    """What the scanner calls dangerous, unless the profile allows it: of cloudpickle's own parts it cannot know that."""
    for file in reading.files:
        for name in file.findings:
            if not ("cloudpickle" in policy.allowed_modules and is_code_by_value(name)):
                yield f"{file.path}: the scanner calls {name.label} dangerous"


def _rank(finding: CodeFinding) -> int:
    return SEVERITIES.index(finding.severity)


def _told_code(finding: CodeFinding) -> str:
    return f"{finding.path} line {finding.line}: {finding.text} ({finding.severity})"


def _is_near(policy: Artifact, requirement: Requirement) -> bool:
    if requirement.agreement == "unpinned":
        return True
    if requirement.agreement not in NEARNESS:
        return False
    wanted = NEARNESS.index(policy.requirements)
    if requirement.text.partition("==")[0].strip() in (OWN_PACKAGE, "python"):
        wanted = max(wanted, NEARNESS.index("same_minor"))
    return NEARNESS.index(requirement.agreement) <= wanted


def _told_requirement(requirement: Requirement) -> str:
    where = f"{requirement.source} wants {requirement.text}"
    if requirement.agreement == "unreadable":
        return f"{where}, which names no package and version: pin the package by its version"
    if requirement.installed is None:
        return f"{where}, which is not installed in the serving environment: install it there, or log the model without it"
    return f"{where}, installed is {requirement.installed}: log the model in the serving environment"


def _hints(policy: Artifact, reading: ArtifactReading) -> Iterator[str]:
    """What does not decide, and should be known."""
    if loose := [one.text for one in reading.requirements if one.agreement == "unpinned"]:
        yield f"not pinned to a version: {', '.join(_few(loose))}"
    if not reading.requirements:
        yield "the version says nowhere what it needs: log the model with pip_requirements"
    by_value = [file.path for file in reading.files if any(_carries_code(name) for name in file.names)]
    if by_value and "cloudpickle" in policy.allowed_modules:
        yield (
            f"code by value in {', '.join(_few(by_value))}: the profile allows cloudpickle, so this code runs unjudged wherever the "
            f"version is loaded; log it with code_paths to have it scanned"
        )
    if code := sorted(path for path in reading.manifest if path.endswith(".py")):
        yield (
            f"code of the version's own in {', '.join(_few(code))} runs wherever the version is loaded: known patterns were looked for, "
            f"what it means to do cannot be judged"
        )


def _carries_code(name: Name) -> bool:
    return name.module.startswith("cloudpickle") and is_code_by_value(name)


def _few(told: Sequence[str]) -> Iterable[str]:
    yield from islice(told, MOST_TOLD)
    if len(told) > MOST_TOLD:
        yield f"and {len(told) - MOST_TOLD} more"
