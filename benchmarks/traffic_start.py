"""How long Envoy takes from its start to its first answer, as after a kill: from the product's files, with the incumbent running."""

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

from interlock.plane.endpoints import write_arms
from interlock.plane.envoy_config import envoy_command, write_configuration
from interlock.plane.envoy_settings import EnvoySettings
from tests.contract.plane_rig import Client, ModelServer, end, free_port

GIVE_UP_SECONDS = 20.0


def measure_starts(count: int) -> list[float]:
    """Seconds from exec to the first 200 of the incumbent, each time."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_measure(Path(name), count))


async def _measure(root: Path, count: int) -> list[float]:
    server = await ModelServer("m/1").start()
    write_arms(root, incumbent=[server.at("incumbent")], candidate=[])
    seconds = [await _start(EnvoySettings(free_port(), free_port(), free_port(), root)) for _ in range(count)]
    await server.stop()
    return seconds


async def _start(settings: EnvoySettings) -> float:
    command = envoy_command(settings, write_configuration(settings))
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    client = Client(settings.live_port)
    try:
        while (await client.ask()).status != 200:
            if time.perf_counter() - began > GIVE_UP_SECONDS:
                raise TimeoutError(f"Envoy has served nobody {GIVE_UP_SECONDS:g} s after its start")
            await asyncio.sleep(0.002)
        return time.perf_counter() - began
    finally:
        client.close()
        end(process)
