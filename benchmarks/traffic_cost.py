"""What a request costs on its way through Envoy: direct to a server against through Envoy, in turns, with 1 and with 32 connections."""

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.traffic_load import Figures, load
from interlock.plane.endpoints import Endpoint, write_arms
from tests.contract.plane_rig import Rig, end, eventually, free_port, running_plane

# Way -> (candidate weight in bps, mirror, quiet); None is direct. "Contained" is the candidate's arm: its answers are held and looked at.
WAYS: dict[str, tuple[int, bool, bool] | None] = {
    "direct": None,
    "Envoy": (0, False, True),
    "Envoy, captured": (0, False, False),
    "Envoy, captured, contained": (10_000, False, False),
    "Envoy, captured, mirrored": (0, True, False),
}
CONNECTIONS = (1, 32)
Table = dict[tuple[str, int], Figures]


def measure_cost(*, rounds: int, seconds: float) -> Table:
    """Medians over the rounds; in each round every way has its turn, so that other work on the machine meets all of them."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_measure(Path(name), rounds, seconds))


async def _measure(root: Path, rounds: int, seconds: float) -> Table:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.traffic_load", "--port", str(port)])
    try:
        await asyncio.to_thread(_wait_for, port)
        async with running_plane(root, candidate_deadline_seconds=2.0) as rig:
            arms = {arm: [Endpoint("127.0.0.1", port, f"bench/{arm}", arm)] for arm in ("incumbent", "candidate")}
            write_arms(rig.settings.endpoints_directory, incumbent=arms["incumbent"], candidate=arms["candidate"])
            await eventually(lambda: all(at.port == port for hosts in rig.admin.observed_endpoints().values() for at in hosts))
            done: dict[tuple[str, int], list[Figures]] = {(way, count): [] for count in CONNECTIONS for way in WAYS}
            await _round(rig, port, 0.3)
            for _ in range(rounds):
                for key, figures in (await _round(rig, port, seconds)).items():
                    done[key].append(figures)
            return {key: _median(figures) for key, figures in done.items()}
    finally:
        end(server)


async def _round(rig: Rig, port: int, seconds: float) -> Table:
    envoy, collector = psutil.Process(rig.envoy.pid), psutil.Process(rig.collector.pid)
    found = {}
    for count in CONNECTIONS:
        for way, split in WAYS.items():
            if split is not None:
                rig.admin.set_split(split[0], mirror=split[1], quiet=split[2])
            await asyncio.sleep(0.3)  # what is still captured of the way before must not be charged to this one
            at = port if split is None else rig.settings.live_port
            found[way, count] = await asyncio.to_thread(load, at, connections=count, seconds=seconds, envoy=envoy, collector=collector)
    return found


def _median(figures: list[Figures]) -> Figures:
    names = ("requests_per_second", "p50_ms", "p99_ms", "envoy_cpu_us", "collector_cpu_us")
    medians = {name: statistics.median(getattr(one, name) for one in figures) for name in names}
    return Figures(**medians, failed=sum(one.failed for one in figures))


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
