"""Who may import whom: the contracts hold, and a planted violation breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "import sys; sys.path[:0] = ['src', '.']; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-c", LINT, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=240)


def test_the_import_contracts_hold() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout[-3000:]
    assert "0 broken" in found.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        pytest.param("src/interlock/control/rollback.py", "import prefect", "the core does not know Prefect", id="the core knows Prefect"),
        pytest.param("src/interlock/judge/evaluate.py", "import time", "the judge and the plan are pure", id="the judge has a clock"),
    ],
)
def test_a_planted_violation_breaks_them(tmp_path: Path, file: str, line: str, broken: str) -> None:
    for part in ("src", "flows", "tasks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.html"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / file
    planted.write_text(f"{line}\n{planted.read_text(encoding='utf-8')}", encoding="utf-8")
    found = lint(tmp_path)
    assert found.returncode != 0
    assert f"{broken} BROKEN" in found.stdout
