"""What is installed from the wheel is whole: a checkout's files may not be what makes it work."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = (
    "interlock/plane/capture.lua",
    "interlock/plane/contain.lua",
    "interlock/plane/page.html",
    "interlock/report/report.html",
    "interlock/_profiles/standard.yaml",
    "interlock/_prefect.yaml",
)
USE = """
import pathlib, sys
import flows.release, flows.rollback, interlock, tasks.traffic
from interlock.plane.stack import declared_deployments, prefect_file
from interlock.profile.reader import list_profiles, read_profile
inside = pathlib.Path(sys.argv[1])
for module in (flows.release, flows.rollback, interlock, tasks.traffic):
    assert inside in pathlib.Path(module.__file__).parents, module.__file__
assert inside in prefect_file().parents, prefect_file()
assert declared_deployments() == {"release/release", "rollback/rollback"}
assert [read_profile(name).profile.name for name in list_profiles()] == list_profiles() != []
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.mark.parametrize("name", NEEDED)
def test_a_file_that_is_no_module_is_in_the_wheel(wheel: Path, name: str) -> None:
    assert name in zipfile.ZipFile(wheel).namelist()


def test_nothing_but_the_three_roots_is_in_the_wheel(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"interlock", "flows", "tasks"}


def test_flows_and_profiles_work_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed here"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("INTERLOCK_PROFILES_DIR", None)
    command = [sys.executable, "-P", "-c", USE, str(installed)]
    answer = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
