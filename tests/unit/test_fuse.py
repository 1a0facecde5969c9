"""The stamp on disk and the fuse that reads it; what it does to a real Envoy is in the contract tests."""

import ast
import inspect
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.model import plane as model_plane
from interlock.model import release as model_release
from interlock.model.plane import CandidateLimits
from interlock.plane import fuse, fuse_envoy, fuse_limits, fuse_signs, sessions, stamp
from interlock.plane.envoy_settings import MIRROR_KEY, QUIET_KEY, WEIGHT_KEY
from interlock.plane.fuse import Fuse, FuseSettings
from interlock.plane.fuse_envoy import SAFE_RUNTIME, is_safe
from interlock.plane.sessions import ProcessId, started_at
from interlock.plane.stamp import Stamp, clear_stamp, read_stamp, seconds_since_boot, write_stamp

LIMITS = CandidateLimits(error_percent=50.0, p99_ms=1900.0, min_sample_count=50, resident_mib=2048.0)
HELD = Stamp("late-2", 7, 1234.5, LIMITS, ProcessId(4711, "8"))
SAVED = {"release_id": "late-2", "token": 7, "ends_at_seconds": 1e9, "limits": None, "candidate": None}


def test_a_stamp_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    assert read_stamp(path) is None
    write_stamp(path, HELD)
    assert read_stamp(path) == HELD
    write_stamp(path, replace(HELD, ends_at_seconds=2000.0))
    assert read_stamp(path) == replace(HELD, ends_at_seconds=2000.0)
    clear_stamp(path)
    clear_stamp(path)
    assert read_stamp(path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"release_id": "a", "token": 1}', '{"ends_at_seconds": 9e9}', "\x00" * 100])
def test_whatever_else_stands_there_holds_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text)
    assert read_stamp(path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"limits": {}},
        {"limits": {"error_percent": 50.0, "p99_ms": 1900.0, "min_sample_count": 50}},
        {"limits": {"error_percent": math.nan, "p99_ms": 1900.0, "min_sample_count": 50, "resident_mib": 2048.0}},
        {"limits": {"error_percent": 50.0, "p99_ms": math.inf, "min_sample_count": 50, "resident_mib": 2048.0}},
        {"limits": {"error_percent": 50.0, "p99_ms": 1900.0, "min_sample_count": None, "resident_mib": 2048.0}},
        {"limits": [50.0, 1900.0, 50, 2048.0]},
        {"candidate": 4711},
        {"candidate": {"pid": 4711}},
        {"ends_at_seconds": math.nan},
        {"ends_at_seconds": math.inf},
    ],
)
def test_a_stamp_whose_limits_cannot_be_understood_holds_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "lease.json"
    whole = SAVED | {"boot_id": stamp.boot_id()}
    path.write_text(json.dumps(whole))
    assert read_stamp(path) == Stamp("late-2", 7, 1e9)
    path.write_text(json.dumps(whole | change))
    assert read_stamp(path) is None
    for name in SAVED:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        assert read_stamp(path) is None, f"as written before there was {name}"


def test_a_stamp_of_another_boot_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    write_stamp(path, HELD)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot_id": "another"}))
    assert read_stamp(path) is None


def test_every_process_counts_the_seconds_since_boot_alike() -> None:
    code = "from interlock.plane.stamp import seconds_since_boot as s; print(s())"
    before = seconds_since_boot()
    theirs = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert before <= theirs <= seconds_since_boot()


def test_the_fuse_and_the_plane_agree_on_what_is_safe() -> None:
    assert SAFE_RUNTIME == {WEIGHT_KEY: 0, MIRROR_KEY: 0, QUIET_KEY: 10_000}
    assert is_safe(dict.fromkeys(SAFE_RUNTIME))
    assert is_safe(dict(SAFE_RUNTIME))
    for key in SAFE_RUNTIME:
        assert not is_safe(SAFE_RUNTIME | {key: 5000})
        assert not is_safe(SAFE_RUNTIME | {key: -1}), "a value that nobody here has written"


def test_a_process_is_itself_only_while_it_lives() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    alive = started_at(child.pid)
    assert alive.isdigit()
    assert alive != started_at(os.getpid())
    child.kill()
    while started_at(child.pid):  # a zombie at the latest
        pass
    child.wait()
    assert started_at(child.pid) == ""


FUSE_MODULES = (fuse, fuse_envoy, fuse_limits, fuse_signs, sessions, stamp, model_plane, model_release)


def test_the_fuse_needs_the_standard_library_only() -> None:
    ours = {module.__name__ for module in FUSE_MODULES}
    for module in FUSE_MODULES:
        tree = ast.parse(inspect.getsource(module))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} <= ours


def test_what_the_fuse_imports_is_the_standard_library_at_runtime_too() -> None:
    code = "import sys, interlock.plane.fuse; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.split()
    bare = subprocess.run([sys.executable, "-I", "-c", "import sys; print(*sys.modules)"], check=True, capture_output=True, text=True)
    known = {*sys.stdlib_module_names, *bare.stdout.split(), "interlock"}
    assert {name for name in loaded if name not in known} == set()


def test_a_supervisor_that_died_before_the_fuse_looked_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both start times are empty then: nobody is not the same as the one who should be there."""
    path, asked = tmp_path / "lease.json", list[int]()
    write_stamp(path, Stamp("late-2", 7, seconds_since_boot() + 3600))
    monkeypatch.setattr(fuse, "read_split", lambda port: dict.fromkeys(SAFE_RUNTIME, 5000))
    monkeypatch.setattr(fuse, "make_safe", asked.append)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    Fuse(FuseSettings(1, path, child.pid, started_at(child.pid))).tick()
    Fuse(FuseSettings(1, path, os.getpid(), started_at(os.getpid()))).tick()
    assert asked == [1]


@pytest.mark.parametrize("answer", [b"[]", b"null", b'{"entries": []}', b'{"entries": {"interlock.mirror": 7}}', b"\xff"])
def test_nothing_that_envoy_answers_and_no_full_disk_ends_the_fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    asked = list[str]()

    def call(port: int, method: str, path: str) -> bytes:
        asked.append(method)
        return answer

    monkeypatch.setattr(fuse_envoy, "call", call)
    monkeypatch.setattr("builtins.print", full)
    watching = Fuse(FuseSettings(1, tmp_path / "lease.json", os.getpid(), started_at(os.getpid())))
    watching.tick()
    watching.tick()
    assert len(asked) >= 2, "it goes on asking"
