"""How long Envoy takes from a weight that is asked for to requests that follow it, under load, and what that costs users."""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.contract.plane_rig import Client, Rig, running_plane

USERS = 16
PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Change:
    """One change from all to none or back. First: asked -> first answer of the new arm. Last: asked -> last request for the old one."""

    first_ms: float
    last_ms: float


@dataclass(frozen=True)
class Changes:
    """All changes of one run, and what users saw meanwhile."""

    changes: list[Change]
    requests: int
    failed: int

    def summary(self) -> dict[str, float]:
        """Milliseconds and counts."""
        first, last = [one.first_ms for one in self.changes], [one.last_ms for one in self.changes]
        return {
            "changes": len(self.changes),
            "first_median_ms": statistics.median(first),
            "first_max_ms": max(first),
            "last_median_ms": statistics.median(last),
            "last_max_ms": max(last),
            "requests": self.requests,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class _Asked:
    asked_at: float
    answered_at: float
    arm: str


def measure_changes(count: int) -> Changes:
    """So many changes, one after the other is complete."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_measure(Path(name), count))


async def _measure(root: Path, count: int) -> Changes:
    async with running_plane(root, candidate_deadline_seconds=2.0) as rig:
        rig.admin.set_split(0, mirror=False, quiet=False)
        log: list[_Asked] = []
        failed = [0]
        users = [asyncio.create_task(_user(rig, log, failed)) for _ in range(USERS)]
        await asyncio.sleep(0.5)
        changes = [await _change(rig, log, turn) for turn in range(count)]
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        return Changes(changes, len(log), failed[0])


async def _change(rig: Rig, log: list[_Asked], turn: int) -> Change:
    arm, weight_bps = ("candidate", 10_000) if turn % 2 == 0 else ("incumbent", 0)
    began, began_at = len(log), time.monotonic()
    await asyncio.to_thread(rig.admin.set_split, weight_bps, mirror=False, quiet=False)
    while not any(one.arm == arm for one in log[began:]):
        await asyncio.sleep(0.001)
        if time.monotonic() - began_at > 10:
            raise TimeoutError(f"10 s after {weight_bps} bps were asked no request has gone to the {arm}")
    await asyncio.sleep(0.1)
    since = log[began:]
    first = min(one.answered_at for one in since if one.arm == arm)
    last = max((one.asked_at for one in since if one.arm != arm), default=began_at)
    return Change((first - began_at) * 1e3, max(0.0, last - began_at) * 1e3)


async def _user(rig: Rig, log: list[_Asked], failed: list[int]) -> None:
    client = Client(rig.settings.live_port)
    try:
        while True:
            asked_at = time.monotonic()
            reply = await client.ask()
            failed[0] += reply.status != 200
            log.append(_Asked(asked_at, time.monotonic(), reply.headers.get("x-interlock-arm", "")))
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        client.close()
