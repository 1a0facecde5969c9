"""Python that came with a model version, scanned by bandit. Nothing of it is imported."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from interlock.model.artifact import CodeFinding, Severity

# Bandit's tests for code that runs, starts or unpickles something, and for the imports that are for nothing else: high, whatever bandit
# says of them. It calls a shell with a literal command low, since nobody can inject into it; here the author is the suspect.
RUNNING = {
    *("B102", "B301", "B302", "B307", "B403", "B404", "B506", "B612", "B614", "B615"),
    *("B601", "B602", "B603", "B604", "B605", "B606", "B607", "B609"),
}
_SEVERITIES: dict[str, Severity] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}


def scan_code(directory: Path, names: Sequence[str]) -> Iterator[CodeFinding]:
    """
    What bandit finds in these files, whatever their own comments ask it to leave out.

    A file that it cannot scan is a finding of high severity, and so is whatever runs something.
    """
    if not names:
        return
    from bandit.core.config import BanditConfig
    from bandit.core.manager import BanditManager

    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    manager = BanditManager(BanditConfig(), "file", ignore_nosec=True)
    manager.discover_files([str(directory / name) for name in names])
    manager.run_tests()
    for issue in manager.get_issue_list():
        name = Path(issue.fname).relative_to(directory).as_posix()
        severity = "high" if issue.test_id in RUNNING else _SEVERITIES.get(issue.severity, "high")
        yield CodeFinding(name, int(issue.lineno), severity, f"{issue.test_id} {issue.text}"[:200])
    scanned = {Path(found).relative_to(directory).as_posix() for found in manager.files_list}
    skipped = {Path(found).relative_to(directory).as_posix(): str(why) for found, why in manager.get_skipped()}
    for name in names:
        if name not in scanned:
            yield CodeFinding(name, 0, "high", skipped.get(name, "bandit left it out"))
