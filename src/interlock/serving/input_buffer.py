"""Inputs that wait for the disk: taken one by one from Envoy, written together now and then, deleted when they are old."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from interlock.serving.capture_message import Malformed
from interlock.serving.collector_metrics import InputMetrics
from interlock.serving.inputs import Input, prune_inputs, write_inputs

_OVERHEAD_BYTES = 300  # an input without its body, as Python objects
_WRITE_AT_BYTES = 4 * 1024 * 1024  # earlier than the time has come: a file of large bodies is read in one go
_PRUNE_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class InputSettings:
    """
    Where inputs are kept, how often they are written, how long they stay (0 = until the disk limit), and how much may wait or lie there.

    A file every 15 s: a day of them is read in seconds, and a collector that is killed loses no more.
    """

    directory: Path
    write_seconds: float = 15.0
    retention_seconds: float = 24 * 3600.0
    disk_bytes: int = 256 * 1024 * 1024
    buffer_bytes: int = 16 * 1024 * 1024


def parse_input(line: bytes, body: bytes, *, received_at_seconds: float) -> Input:
    """
    The input that a header line describes: length of the body (-1 = over the capture limit), a space, the content type (- = none).

    The content type is what a user has sent, of whatever bytes.

    Raises:
        Malformed: it does not.
    """
    size, _, content_type = line.partition(b" ")
    try:
        is_kept = int(size) >= 0
        if max(int(size), 0) != len(body):
            raise Malformed(f"{len(body)} bytes of an input, announced {size!r}")
        return Input(received_at_seconds, content_type.decode("latin-1"), body if is_kept else None)
    except ValueError as error:
        raise Malformed(str(error)) from error


class InputBuffer:
    """Inputs on their way to disk. `take` is for the event loop; `flush` writes in a thread, one call at a time."""

    def __init__(self, settings: InputSettings, metrics: InputMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._waiting: list[Input] = []
        self._bytes = 0
        self._written_at = self._pruned_at = time.monotonic()

    def take(self, line: bytes, body: bytes) -> None:
        """
        Keep one input, or count why not: Envoy cannot do anything about it.

        Raises:
            Malformed: not a message of our capture filter.
        """
        found = parse_input(line, body, received_at_seconds=time.time())
        if found.body is None:
            self._metrics.too_large()
        if self._bytes + _size(found) > self._settings.buffer_bytes:
            self._metrics.dropped()
            return
        self._metrics.taken()
        self._bytes += _size(found)
        self._waiting.append(found)

    async def flush(self, *, at_once: bool = False) -> bool:
        """
        Write what waits, when it is time, and delete what is too old or too much; whether something was written.

        Raises:
            StateError: the disk refuses; what waits stays, and is tried again at the next call.
        """
        now = time.monotonic()
        is_due = at_once or now - self._written_at >= self._settings.write_seconds or self._bytes >= _WRITE_AT_BYTES
        inputs = self._waiting[:] if is_due else []
        if inputs:
            await asyncio.to_thread(write_inputs, self._settings.directory, inputs, at_seconds=time.time())
            del self._waiting[: len(inputs)]
            self._bytes -= sum(map(_size, inputs))
        if is_due:
            self._written_at = now
        if now - self._pruned_at >= _PRUNE_EVERY_SECONDS:
            self._pruned_at = now
            self._metrics.on_disk(await asyncio.to_thread(self._prune))
        return bool(inputs)

    def _prune(self) -> int:
        kept_seconds = self._settings.retention_seconds
        before = time.time() - kept_seconds if kept_seconds else 0.0
        return prune_inputs(self._settings.directory, before_at_seconds=before, most_bytes=self._settings.disk_bytes)


def _size(found: Input) -> int:
    return _OVERHEAD_BYTES + found.size_bytes
