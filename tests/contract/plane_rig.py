"""A real Envoy with a real collector between scripted model servers and a client that counts, all on loopback, for contract tests."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from interlock.errors import ServiceError
from interlock.plane.endpoints import Endpoint, write_arms
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.envoy_config import envoy_command, write_configuration
from interlock.plane.envoy_settings import EnvoySettings
from interlock.serving.journal import JournalReader

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _read_message(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        return first, headers, await _read_chunks(reader)
    return first, headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def respond(writer: asyncio.StreamWriter, status: int, body: bytes, extra: str = "") -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\ncontent-type: application/json\r\n{extra}\r\n"
    writer.write(head.encode() + body)


@dataclass
class ModelServer:
    """A scripted model server. `answer` may be replaced while it runs; by default it predicts its own label."""

    label: str
    answer: Answer | None = None
    port: int = 0
    seen_count: int = 0
    active_count: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> "ModelServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                _, _, body = await _read_message(reader)
                self.seen_count += 1
                self.active_count += 1
                try:
                    await (self.answer or self._predict)(body, writer)
                    await writer.drain()
                finally:
                    self.active_count -= 1
        self._writers.discard(writer)
        writer.close()

    async def _predict(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        respond(writer, 200, json.dumps({"predictions": [self.label]}).encode())

    async def stop(self) -> None:
        """Die: refuse connections, reset those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def at(self, arm: str) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, self.label, arm)


@dataclass(frozen=True)
class Reply:
    """What a user saw. `status` 0: the connection broke."""

    status: int
    headers: dict[str, str]
    body: bytes
    elapsed_seconds: float


class Client:
    """One user on one kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes = b"{}", *, method: str = "POST", path: str = "/invocations", extra: str = "") -> Reply:
        started = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            head = f"{method} {path} HTTP/1.1\r\nhost: interlock\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
            writer.write(head.encode() + body)
            first, headers, answer = await _read_message(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return Reply(0, {}, b"", time.perf_counter() - started)
        if headers.get("connection") == "close":
            self.close()
        return Reply(int(first.split()[1]), headers, answer, time.perf_counter() - started)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


@dataclass
class Rig:
    """The plane under test and everything around it."""

    settings: EnvoySettings
    journal_directory: Path
    incumbent: ModelServer
    candidate: ModelServer
    admin: EnvoyAdmin
    envoy: subprocess.Popen[bytes]
    collector: subprocess.Popen[bytes]
    reader: JournalReader

    def place(self, *, incumbent: ModelServer | None = None, candidate: ModelServer | None = None) -> None:
        write_arms(
            self.settings.endpoints_directory,
            incumbent=[(incumbent or self.incumbent).at("incumbent")],
            candidate=[(candidate or self.candidate).at("candidate")],
        )

    async def ask_many(self, count: int, *, users: int = 8, pause_seconds: float = 0.0) -> list[Reply]:
        """Ask `count` times from `users` connections, every time something else."""
        numbers = iter(range(count))

        async def user() -> list[Reply]:
            client, replies = Client(self.settings.live_port), []
            for number in numbers:
                replies.append(await client.ask(b'{"n": %d}' % number))
                await asyncio.sleep(pause_seconds)
            client.close()
            return replies

        return [reply for replies in await asyncio.gather(*(user() for _ in range(users))) for reply in replies]


async def hang(body: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def fail(body: bytes, writer: asyncio.StreamWriter) -> None:
    respond(writer, 500, b'{"error": "scripted"}')


async def talk_garbage(body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01 not http \r\n\r\n")
    await writer.drain()
    writer.close()


async def reset(body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def truncate(body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"predictions":')
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.transport.abort()


def failures(replies: list[Reply]) -> list[int]:
    return [reply.status for reply in replies if reply.status != 200]


async def eventually(question: Callable[[], bool], *, within_seconds: float = 15.0) -> None:
    """Poll until the answer is yes; fail if it never is."""
    deadline = time.monotonic() + within_seconds
    while not await asyncio.to_thread(question):
        assert time.monotonic() < deadline, f"still no after {within_seconds} s"
        await asyncio.sleep(0.05)


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
        return True
    return False


def _is_ready(admin: EnvoyAdmin) -> bool:
    try:
        return admin.ready()
    except ServiceError:
        return False


def start_collector(port: int, directory: Path) -> subprocess.Popen[bytes]:
    arguments = ["--port", str(port), "--directory", str(directory), "--segment-seconds", "0.1", "--input-seconds", "0.1"]
    return subprocess.Popen([sys.executable, "-m", "interlock.serving.collector", *arguments])


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
    process.wait(10)


@contextlib.asynccontextmanager
async def running_plane(root: Path, **changes: object) -> AsyncIterator[Rig]:
    """Everything started and answering; candidate weight 0, no mirror, quiet."""
    endpoints = root / "end points"  # the space is on purpose: state directories of users have them
    settings = EnvoySettings(free_port(), free_port(), free_port(), endpoints, **{"candidate_deadline_seconds": 0.5} | changes)  # type: ignore[arg-type]
    incumbent, candidate = await ModelServer("m/1").start(), await ModelServer("m/2").start()
    admin = EnvoyAdmin(f"http://127.0.0.1:{settings.admin_port}")
    write_arms(endpoints, incumbent=[incumbent.at("incumbent")], candidate=[candidate.at("candidate")])
    collector = start_collector(settings.collector_port, root / "the journal")
    process = subprocess.Popen(envoy_command(settings, write_configuration(settings)))
    rig = Rig(settings, root / "the journal", incumbent, candidate, admin, process, collector, JournalReader(root / "the journal"))
    try:
        await eventually(lambda: _is_ready(admin) and _is_listening(settings.live_port) and _is_listening(settings.collector_port))
        yield rig
    finally:
        end(process)
        end(rig.collector)
        await incumbent.stop()
        await candidate.stop()
        admin.close()


def metrics(rig: Rig) -> str:
    return httpx.get(f"http://127.0.0.1:{rig.settings.collector_port}/metrics", timeout=5).text
