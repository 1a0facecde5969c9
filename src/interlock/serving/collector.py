"""
The collector: takes legs and inputs from Envoy and writes them to the prediction journal. `python -m interlock.serving.collector`.

Users never wait for it, so it may fail; it must not fail silently. Whatever it cannot keep is counted in `/metrics`.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path

from interlock.errors import StateError
from interlock.model.journal import Leg
from interlock.serving.capture_message import Malformed, parse_leg
from interlock.serving.collector_metrics import CollectorMetrics
from interlock.serving.collector_protocol import Answer, CollectorProtocol, Request
from interlock.serving.input_buffer import InputBuffer, InputSettings
from interlock.serving.journal import SegmentWriter
from interlock.serving.recent import Recent

_log = logging.getLogger("interlock.collector")

_LOG_EVERY_SECONDS = 60.0
_PRUNE_EVERY_SECONDS = 60.0
_LEG_OVERHEAD_BYTES = 500  # a leg without its prediction, as Python objects


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """Where the journal is and how much may wait for it. `retention_seconds` 0 keeps segments for ever."""

    directory: Path
    segment_seconds: float = 0.5
    buffer_bytes: int = 64 * 1024 * 1024
    retention_seconds: float = 24 * 3600.0


class Buffer:
    """Legs that wait for the disk, at most so many bytes. Order is kept, also when a failed write hands legs back."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._legs: list[Leg] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def oldest_at_seconds(self) -> float | None:
        """Unix time of the leg that has waited longest."""
        return self._legs[0].received_at_seconds if self._legs else None

    def add(self, leg: Leg) -> bool:
        """False when there is no room, and the leg is gone."""
        size = _LEG_OVERHEAD_BYTES + len(leg.prediction or "")
        if self._bytes + size > self._limit_bytes:
            return False
        self._bytes += size
        self._legs.append(leg)
        return True

    def peek(self) -> list[Leg]:
        """All legs, which stay in the buffer until `forget`."""
        return self._legs[:]

    def forget(self, legs: list[Leg]) -> None:
        """Remove the legs that `peek` gave, now that they are on disk."""
        del self._legs[: len(legs)]
        self._bytes -= sum(_LEG_OVERHEAD_BYTES + len(leg.prediction or "") for leg in legs)


class Collector:
    """The buffer, the loop that empties it onto the disk, and the numbers about both."""

    def __init__(self, settings: CollectorSettings, inputs: InputSettings | None = None) -> None:
        self._settings = settings
        self._buffer = Buffer(settings.buffer_bytes)
        self._writer = SegmentWriter(settings.directory)
        self._last_log = -_LOG_EVERY_SECONDS
        self._last_prune = time.monotonic()
        self.metrics = CollectorMetrics()
        self._inputs = InputBuffer(inputs or InputSettings(settings.directory), self.metrics.inputs)
        self.recent = Recent()

    def take(self, line: bytes, bodies: bytes, *, segment: bytes = b"", key: bytes = b"") -> int:
        """Keep one leg; the HTTP status to answer: 204 kept, 400 not understood, 503 no room (Envoy counts everything but 2xx)."""
        try:
            leg = parse_leg(line, bodies, received_at_seconds=time.time(), segment=segment, key=key)
        except Malformed:
            self.metrics.malformed()
            return 400
        self.recent.add(leg)
        self.metrics.received(leg)
        if not self._buffer.add(leg):
            self.metrics.dropped()
            return 503
        return 204

    async def run(self, stop: asyncio.Event) -> None:
        """
        Write a segment as often as the settings say, until told to stop; then write what is left.

        Never cancelled: the thread that writes a segment would go on, and the same legs would be written again.
        """
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._settings.segment_seconds)
            await self.flush()
            await self.flush_inputs()
        await self.flush()
        await self.flush_inputs(at_once=True)

    def take_input(self, line: bytes, body: bytes) -> int:
        """Keep one input; 204 whether it could be kept or not: to Envoy, anything else would be a leg that was lost."""
        try:
            self._inputs.take(line, body)
        except Malformed:
            self.metrics.malformed()
        return 204

    async def flush_inputs(self, *, at_once: bool = False) -> None:
        """Write the inputs when it is time. A disk that fails is tried again at the next call."""
        try:
            if await self._inputs.flush(at_once=at_once):
                self.metrics.disk_works()
        except StateError as error:
            self.metrics.write_failed()
            self._complain(error)

    async def flush(self) -> None:
        """Write what waits, in a thread, so that new legs are taken meanwhile. A disk that fails is tried again at the next call."""
        legs = self._buffer.peek()
        try:
            if legs:
                await asyncio.to_thread(self._writer.write, legs)
        except StateError as error:
            self.metrics.write_failed()
            self._complain(error)
            return
        self._buffer.forget(legs)
        if legs:
            self.metrics.segment_written()
        await self._prune()

    def metrics_text(self) -> bytes:
        """The page for Prometheus, as of now."""
        oldest = self._buffer.oldest_at_seconds
        return self.metrics.text(waiting_count=len(self._buffer), lag_seconds=time.time() - oldest if oldest is not None else 0.0)

    async def _prune(self) -> None:
        if not self._settings.retention_seconds or time.monotonic() - self._last_prune < _PRUNE_EVERY_SECONDS:
            return
        self._last_prune = time.monotonic()
        await asyncio.to_thread(self._writer.prune, before_at_seconds=time.time() - self._settings.retention_seconds)

    def _complain(self, error: StateError) -> None:
        if time.monotonic() - self._last_log >= _LOG_EVERY_SECONDS:
            self._last_log = time.monotonic()
            _log.error("%s; %d legs wait in memory, what does not fit is dropped and counted", error, len(self._buffer))

    def answer(self, request: Request) -> Answer:
        """Take a leg, or show the numbers."""
        if (request.method, request.path) == (b"POST", b"/legs"):
            return Answer(self.take(request.leg, request.body, segment=request.segment, key=request.key))
        if (request.method, request.path) == (b"POST", b"/inputs"):
            return Answer(self.take_input(request.leg, request.body))
        if request.path == b"/metrics":
            return Answer(200, self.metrics_text(), b"text/plain; version=0.0.4")
        if request.path == b"/recent":
            return Answer(200, json.dumps(self.recent.rollup(now_seconds=time.time())).encode(), b"application/json")
        return Answer(404)


async def serve(settings: CollectorSettings, port: int, inputs: InputSettings | None = None) -> None:
    """
    Take legs on loopback until SIGTERM or SIGINT, then write what is left.

    Ends also when the writing loop does: a collector that takes legs and writes none would be worse than none.
    """
    collector = Collector(settings, inputs)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: CollectorProtocol(collector.answer), "127.0.0.1", port)
    stop = asyncio.Event()

    def end() -> None:
        server.close()
        stop.set()

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, end)
    await collector.run(stop)


class _WithoutPandas(MetaPathFinder):
    """Building its first array, pyarrow imports pandas if it can, to recognise data frames: 60 MiB and .8 s of CPU for nothing."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Say that there is no pandas; let the other finders look for everything else."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def main() -> None:
    """Serve on loopback until SIGTERM, then write what is left."""
    parser = argparse.ArgumentParser(description="Writes captured legs to the prediction journal.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    defaults = CollectorSettings(Path())
    parser.add_argument("--segment-seconds", type=float, default=defaults.segment_seconds)
    parser.add_argument("--buffer-bytes", type=int, default=defaults.buffer_bytes)
    parser.add_argument("--retention-seconds", type=float, default=defaults.retention_seconds)
    parser.add_argument("--input-seconds", type=float, default=InputSettings(Path()).write_seconds)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    sys.meta_path.insert(0, _WithoutPandas())
    settings = CollectorSettings(asked.directory, asked.segment_seconds, asked.buffer_bytes, asked.retention_seconds)
    inputs = InputSettings(asked.directory, asked.input_seconds, asked.retention_seconds)
    asyncio.run(serve(settings, asked.port, inputs))


if __name__ == "__main__":
    main()
