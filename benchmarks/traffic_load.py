"""
A model server and users that cost next to nothing, so that what lies between them is what is measured.

    python -m benchmarks.traffic_load --port PORT      serves one constant prediction until it is killed
"""

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import cast

import psutil
import uvloop

ANSWER = b'{"predictions": [0.25]}'
_BODY = b'{"dataframe_split": {"columns": ["distance", "delay"], "data": [[1.25, -3.0]]}}'
_ASK = b"POST /invocations HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)


@dataclass(frozen=True)
class Figures:
    """One way to the server at one number of connections. CPU is user and system time of the process, all threads."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    envoy_cpu_us: float
    collector_cpu_us: float
    failed: int


class _Server(asyncio.Protocol):
    """Answers every request that has arrived completely."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        while separator and len(rest) >= (length := _length(head)):
            assert self._transport is not None
            self._transport.write(_REPLY)
            self._received = rest[length:]
            head, separator, rest = self._received.partition(b"\r\n\r\n")


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


@dataclass
class _Users:
    """Closed loop: each connection asks again as soon as it has its answer."""

    seconds_left: float
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    ends_at: float = 0.0


class _User(asyncio.Protocol):
    def __init__(self, users: _Users, done: asyncio.Future[None]) -> None:
        self._users, self._done = users, done
        self._asked_at, self._received = 0.0, b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._asked_at, self._received = time.perf_counter(), b""
        self._transport.write(_ASK)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"]}"):
            return
        now = time.perf_counter()
        self._users.latencies.append(now - self._asked_at)
        self._users.failed += not self._received.startswith(b"HTTP/1.1 200")
        if now < self._users.ends_at:
            self._ask()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._users.failed += 1
            self._done.set_result(None)

    def _end(self) -> None:
        assert self._transport is not None
        self._done.set_result(None)
        self._transport.close()


def load(port: int, *, connections: int, seconds: float, envoy: psutil.Process, collector: psutil.Process) -> Figures:
    """Ask through `port` from so many connections for so long."""
    before = [_cpu_seconds(envoy), _cpu_seconds(collector)]
    users = uvloop.run(_load(port, connections, seconds))
    count = max(1, len(users.latencies))
    envoy_us, collector_us = ((_cpu_seconds(at) - since) / count * 1e6 for at, since in zip((envoy, collector), before, strict=True))
    cuts = statistics.quantiles(users.latencies, n=100)
    return Figures(count / seconds, cuts[49] * 1e3, cuts[98] * 1e3, envoy_us, collector_us, users.failed)


async def _load(port: int, connections: int, seconds: float) -> _Users:
    loop = asyncio.get_running_loop()
    users = _Users(seconds, ends_at=time.perf_counter() + seconds)
    done: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    for future in done:
        await loop.create_connection(lambda future=future: _User(users, future), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.wait_for(asyncio.gather(*done), seconds + 30)
    return users


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.traffic_load")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))
