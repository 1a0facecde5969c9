"""
A candidate in a process of its own, so that what it floods it does not flood the users' side of the measurement with.

    python -m benchmarks.traffic_candidate --port PORT --fault NAME --onset FILE

It answers well until SIGUSR1, then as the fault does. The first request that meets the fault writes its moment (monotonic) to FILE.
"""

import argparse
import asyncio
import signal
import time
from pathlib import Path

from tests.contract import plane_rig
from tests.contract.plane_rig import ModelServer
from tests.contract.test_containment import FAULTS

GOOD = b'{"predictions": [0.25]}'


async def answer_well(body: bytes, writer: asyncio.StreamWriter) -> None:
    """What both arms say as long as nothing is wrong."""
    plane_rig.respond(writer, 200, GOOD)


async def serve(port: int, fault: str, onset: Path) -> None:
    """Until it is killed."""
    server = await ModelServer(fault, answer_well, port=port).start()

    async def fail(body: bytes, writer: asyncio.StreamWriter) -> None:
        if not onset.exists():
            onset.write_text(str(time.monotonic()))
        await FAULTS[fault](body, writer)  # of a fault that is a signal this is never reached

    def begin() -> None:
        server.answer = fail

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, begin)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.traffic_candidate")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fault", required=True)
    parser.add_argument("--onset", type=Path, required=True)
    asked = parser.parse_args()
    asyncio.run(serve(asked.port, asked.fault, asked.onset))
