"""The fuse as a process of its own, on a real Envoy: whatever else is dead, a share that no lease holds is given back."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from interlock.plane.envoy_admin import EnvoySplit
from interlock.plane.stamp import Stamp, seconds_since_boot, write_stamp
from tests.contract.plane_rig import Rig, end, eventually, failures, running_plane

SAFE = EnvoySplit(0, is_mirroring=False, is_quiet=True)


@contextlib.asynccontextmanager
async def running_fuse(rig: Rig, stamp: Path, supervisor_pid: int) -> AsyncIterator[psutil.Process]:
    command = [sys.executable, "-m", "interlock.plane.fuse", "--admin-port", str(rig.settings.admin_port)]
    process = subprocess.Popen([*command, "--stamp", str(stamp), "--supervisor-pid", str(supervisor_pid)])
    try:
        yield psutil.Process(process.pid)
    finally:
        end(process)


def run(root: Path, scenario: Callable[[Rig, Path, subprocess.Popen[bytes]], Awaitable[None]]) -> None:
    async def whole() -> None:
        supervisor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        try:
            async with running_plane(root) as rig:
                await scenario(rig, root / "lease.json", supervisor)
        finally:
            end(supervisor)

    asyncio.run(whole())


def hold(stamp: Path, seconds: float) -> None:
    write_stamp(stamp, Stamp("late-2", 7, seconds_since_boot() + seconds))


def give_half(rig: Rig) -> None:
    rig.admin.set_split(5000, mirror=True, quiet=False)


async def assert_held_for(rig: Rig, seconds: float) -> None:
    for _ in range(int(seconds / 0.1)):
        assert rig.admin.observe_split().candidate_weight_bps == 5000
        await asyncio.sleep(0.1)


def test_a_share_is_held_while_the_lease_is_renewed_and_given_back_when_it_is_not(tmp_path: Path) -> None:
    async def scenario(rig: Rig, stamp: Path, supervisor: subprocess.Popen[bytes]) -> None:
        hold(stamp, 60)
        give_half(rig)
        async with running_fuse(rig, stamp, supervisor.pid):
            await assert_held_for(rig, 3.0)
            users = asyncio.create_task(rig.ask_many(400, pause_seconds=0.01))
            hold(stamp, 0.5)
            await eventually(lambda: rig.admin.observe_split() == SAFE)
            assert not failures(await users), "no user may notice"

    run(tmp_path, scenario)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_supervisor_is_a_lease_that_is_over(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario(rig: Rig, stamp: Path, supervisor: subprocess.Popen[bytes]) -> None:
        hold(stamp, 3600)
        give_half(rig)
        async with running_fuse(rig, stamp, supervisor.pid):
            await assert_held_for(rig, 1.5)
            supervisor.send_signal(number)
            await eventually(lambda: rig.admin.observe_split() == SAFE)

    run(tmp_path, scenario)


def test_a_share_that_is_set_too_late_by_a_controller_that_woke_up_is_given_back_again(tmp_path: Path) -> None:
    async def scenario(rig: Rig, stamp: Path, supervisor: subprocess.Popen[bytes]) -> None:
        async with running_fuse(rig, stamp, supervisor.pid):
            for _ in range(3):
                give_half(rig)
                await eventually(lambda: rig.admin.observe_split() == SAFE)

    run(tmp_path, scenario)


@pytest.mark.parametrize("text", ["", "garbage", '{"release_id": "late-2"}'])
def test_a_stamp_that_cannot_be_read_holds_nothing(tmp_path: Path, text: str) -> None:
    async def scenario(rig: Rig, stamp: Path, supervisor: subprocess.Popen[bytes]) -> None:
        stamp.write_text(text)
        give_half(rig)
        async with running_fuse(rig, stamp, supervisor.pid):
            await eventually(lambda: rig.admin.observe_split() == SAFE)

    run(tmp_path, scenario)


def test_an_envoy_that_does_not_answer_is_asked_until_it_does(tmp_path: Path) -> None:
    async def scenario(rig: Rig, stamp: Path, supervisor: subprocess.Popen[bytes]) -> None:
        give_half(rig)
        os.kill(rig.envoy.pid, signal.SIGSTOP)
        async with running_fuse(rig, stamp, supervisor.pid) as fuse:
            await asyncio.sleep(3.0)
            assert fuse.is_running()
            os.kill(rig.envoy.pid, signal.SIGCONT)
            await eventually(lambda: rig.admin.observe_split() == SAFE)

    run(tmp_path, scenario)


def test_it_is_small_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    async def scenario(rig: Rig, stamp: Path, supervisor: subprocess.Popen[bytes]) -> None:
        hold(stamp, 3600)
        async with running_fuse(rig, stamp, supervisor.pid) as fuse:
            await asyncio.sleep(1.0)
            before = sum(fuse.cpu_times()[:2])
            await asyncio.sleep(5.0)
            used = sum(fuse.cpu_times()[:2]) - before
            assert fuse.memory_info().rss / 2**20 <= 30
            assert used / 5.0 <= 0.05, "1 % of a core is the goal; clock ticks are 10 ms"
            fuse.terminate()
            assert await asyncio.to_thread(fuse.wait, 10) == 0

    run(tmp_path, scenario)
