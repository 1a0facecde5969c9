"""A file that was changed after the gates is noticed before the first user, and before the promotion (T06)."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.control.analysis import Analysis
from interlock.control.session import ReleaseSession
from interlock.control.unchanged import require_unchanged
from interlock.errors import Tampered
from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.plan.phases import plan_bake, plan_phases
from tests.worlds import World


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "model" / "model.pkl").write_bytes(b"\x80\x04N." * 100)
    return tmp_path / "model"


def opened(world: World, directory: Path) -> ReleaseSession:
    """A release whose candidate's files really lie in `directory`."""
    world.files.root = directory
    session = world.session()
    candidate = ModelVersion("late", "2", artifact_digest(directory))
    return replace(session, release=replace(session.release, candidate=candidate))


def tamper(directory: Path) -> None:
    """Another content of the same length, with the times that the file had."""
    path = directory / "model.pkl"
    before = path.stat()
    path.write_bytes(b"\x80\x04K" + path.read_bytes()[3:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_unchanged_files_go_on_and_the_evidence_says_so(directory: Path) -> None:
    world = World()
    session = opened(world, directory)
    analysis = Analysis(session)
    shadow, first, *_ = plan_phases(session.profile.canary)
    analysis.move_to(shadow)
    assert not world.records("files")
    analysis.move_to(first)
    (record,) = world.records("files")
    assert (record["digest"], record["is_unchanged"]) == (artifact_digest(directory), True)
    assert world.traffic.weight_bps == first.weight_bps


def test_a_file_changed_after_the_gates_gets_no_user(directory: Path) -> None:
    world = World()
    session = opened(world, directory)
    analysis = Analysis(session)
    shadow, first, *_ = plan_phases(session.profile.canary)
    analysis.move_to(shadow)
    tamper(directory)
    with pytest.raises(Tampered, match="changed since") as caught:
        analysis.move_to(first)
    assert artifact_digest(directory) in str(caught.value)
    assert session.release.candidate.digest in str(caught.value)
    assert world.traffic.weight_bps == 0
    assert not any(call.startswith("weight") and call != "weight 0" for call in world.traffic.calls)


def test_a_file_changed_in_the_canary_is_not_promoted(directory: Path) -> None:
    from tasks.traffic import promote

    world = World()
    session = opened(world, directory)
    analysis = Analysis(session)
    for phase in plan_phases(session.profile.canary):
        analysis.move_to(phase)
    tamper(directory)
    with pytest.raises(Tampered, match="before the promotion"):
        promote.fn(session, analysis, plan_bake(session.profile.canary))
    assert world.registry.champions["late"] == "1"
    assert world.traffic.weight_bps < 10_000


@pytest.mark.parametrize("what", ["added", "removed", "gone"])
def test_a_file_more_or_less_is_a_change_and_so_is_a_directory_that_is_gone(what: str, directory: Path) -> None:
    session = opened(World(), directory)
    if what == "added":
        (directory / "sitecustomize.py").write_text("x = 1\n")
    elif what == "removed":
        (directory / "model.pkl").unlink()
    else:
        directory.rename(directory.with_name("elsewhere"))
    with pytest.raises(Tampered):
        require_unchanged(session, before="the promotion")


def test_the_plane_is_held_while_a_large_file_is_read(directory: Path) -> None:
    world = World()
    session = opened(world, directory)

    def slow_read(version: ModelVersion, *, between: object) -> str:
        assert callable(between)
        for _ in range(10):
            world.clock.sleep(1.0)
            between()
        return version.digest

    world.files.read_digest = slow_read  # type: ignore[method-assign]
    before = world.traffic.calls.count("renew")
    require_unchanged(session, before="the promotion")
    assert world.traffic.calls.count("renew") - before == 4
