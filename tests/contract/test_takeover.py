"""A spare incumbent: what a dead, a stopped and a returning primary cost users, on a real Envoy at 100 requests a second."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from interlock.plane.endpoints import Endpoint, write_arms
from tests.contract import plane_rig
from tests.contract.plane_rig import Client, ModelServer, Reply, Rig, eventually, failures, free_port, running_plane


def run(root: Path, scenario: Callable[[Rig], Awaitable[None]], **changes: object) -> None:
    async def whole() -> None:
        async with running_plane(root, **changes) as rig:
            await scenario(rig)

    asyncio.run(whole())


@contextlib.contextmanager
def server_process(label: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A model server that can be killed and stopped like a real one."""
    code = (
        "import asyncio; from tests.contract.plane_rig import ModelServer\n"
        f"async def main():\n await ModelServer({label!r}, port={port}).start(); await asyncio.sleep(300)\nasyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        plane_rig.end(process)


@contextlib.asynccontextmanager
async def primary_and_spare(rig: Rig) -> AsyncIterator[tuple[subprocess.Popen[bytes], int, int]]:
    """The primary in a process of its own, the rig's incumbent as its spare; both in service."""
    port, spare_port = free_port(), rig.incumbent.port
    with server_process("primary", port) as process:
        await eventually(lambda: plane_rig._is_listening(port))
        place(rig, port, spare_port)
        await eventually(lambda: health(rig) == {port: True, spare_port: True})
        yield process, port, spare_port


def place(rig: Rig, *ports: int) -> None:
    incumbents = [Endpoint("127.0.0.1", port, f"m/{port}", "incumbent") for port in ports]
    write_arms(rig.settings.endpoints_directory, incumbent=incumbents, candidate=[rig.candidate.at("candidate")])


def health(rig: Rig) -> dict[int, bool]:
    return {at.port: at.is_healthy for at in rig.admin.observed_endpoints()["incumbent"]}


@dataclass
class Load:
    """100 requests a second until told to stop. Each on a connection that waits for no other request."""

    port: int
    replies: list[tuple[float, Reply]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _idle: list[Client] = field(default_factory=list)

    async def _one(self) -> None:
        asked_at = time.monotonic()
        client = self._idle.pop() if self._idle else Client(self.port)
        self.replies.append((asked_at, await client.ask()))
        self._idle.append(client)

    async def _run(self) -> None:
        pending: set[asyncio.Task[None]] = set()
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                pending.add(asyncio.create_task(self._one()))
                await asyncio.sleep(0.01)
        await asyncio.gather(*pending)

    async def __aenter__(self) -> "Load":
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(0.5)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await self._task

    def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()

    def failed_at(self) -> list[float]:
        """When each request that failed was asked."""
        return [asked_at for asked_at, reply in self.replies if reply.status != 200]

    def served_by(self) -> set[str]:
        return {reply.headers["x-interlock-served-by"] for _, reply in self.replies if reply.status == 200}


def test_a_killed_primary_costs_only_what_it_was_answering(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        async with primary_and_spare(rig) as (process, port, spare):
            async with Load(rig.settings.live_port) as load:
                process.kill()
                await asyncio.to_thread(process.wait)
                dead_at = time.monotonic()
                await eventually(lambda: not health(rig)[port])
                await asyncio.sleep(0.5)
            # Asked when it was dead, so at the latest after the 5 requests that may be on their way through a busy machine: to the spare.
            assert [at - dead_at for at in load.failed_at() if at > dead_at] == []
            assert len(load.failed_at()) <= 20
            assert load.served_by() == {f"m/{port}", f"m/{spare}"}

    run(tmp_path, scenario)


def test_a_primary_that_comes_back_takes_over_again_without_a_failure(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        async with primary_and_spare(rig) as (process, port, spare):
            plane_rig.end(process)
            await eventually(lambda: not health(rig)[port])
            async with Load(rig.settings.live_port) as load:
                assert load.served_by() == {f"m/{spare}"}
                with server_process("again", port):
                    await eventually(lambda: health(rig)[port])
                    await asyncio.sleep(0.5)
                    last = await Client(rig.settings.live_port).ask()
                    load.stop()
                    await asyncio.sleep(0.5)
            assert last.headers["x-interlock-served-by"] == f"m/{port}"
            assert load.failed_at() == []

    run(tmp_path, scenario)


def test_a_stopped_primary_is_left_after_two_unanswered_pings(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        async with primary_and_spare(rig) as (process, port, spare):
            async with Load(rig.settings.live_port) as load:
                os.kill(process.pid, signal.SIGSTOP)
                stopped_at = time.monotonic()
                await eventually(lambda: not health(rig)[port])
                left_at = time.monotonic()
                await asyncio.sleep(1)
            failed_at = load.failed_at()
            assert all(stopped_at - 1 < at < left_at + 0.5 for at in failed_at), "from then on the spare serves"
            assert max(failed_at, default=stopped_at) - stopped_at < 2 or left_at - stopped_at > 2, "at most 1.1 s, on a machine with time"
            async with Load(rig.settings.live_port) as back:
                os.kill(process.pid, signal.SIGCONT)
                await eventually(lambda: health(rig)[port])
                await asyncio.sleep(0.5)
            assert back.failed_at() == []
            assert back.served_by() == {f"m/{port}", f"m/{spare}"}

    run(tmp_path, scenario, request_timeout_seconds=3.0)


def test_replacing_primary_and_spare_under_load_loses_nothing(tmp_path: Path) -> None:
    """A server that was just placed is unchecked for a moment, and a promotion replaces both at once."""

    async def scenario(rig: Rig) -> None:
        servers = [await ModelServer(f"s{number}").start() for number in range(4)]
        first, second, third, fourth = (server.port for server in servers)
        async with Load(rig.settings.live_port) as load:
            for ports in ([first], [first, second], [third, fourth], [fourth, third], [second], [first, second], [third], [fourth]):
                place(rig, *ports)
                await eventually(lambda wanted=tuple(ports): tuple(health(rig)) == wanted)  # type: ignore[misc]
                await asyncio.sleep(0.3)
        assert load.failed_at() == []
        assert load.served_by() >= {f"m/{first}", f"m/{third}", f"m/{fourth}"}
        for server in servers:
            await server.stop()

    run(tmp_path, scenario)


def test_where_no_server_answers_pings_requests_still_go_out(tmp_path: Path) -> None:
    async def only_predict(body: bytes, writer: asyncio.StreamWriter) -> None:
        plane_rig.respond(writer, 200 if body else 503, b"{}")  # a ping has no body

    async def scenario(rig: Rig) -> None:
        rig.incumbent.answer = rig.candidate.answer = only_predict
        place(rig, rig.incumbent.port, rig.candidate.port)
        await eventually(lambda: set(health(rig).values()) == {False})
        assert not failures(await rig.ask_many(50))

    run(tmp_path, scenario)


def test_a_lone_incumbent_is_never_given_up_for_its_pings(tmp_path: Path) -> None:
    async def silent_to_pings(body: bytes, writer: asyncio.StreamWriter) -> None:
        if not body:
            await asyncio.sleep(30)
        await asyncio.sleep(2)
        plane_rig.respond(writer, 200, b"{}")

    async def scenario(rig: Rig) -> None:
        rig.incumbent.answer = silent_to_pings
        assert not failures(await rig.ask_many(8))
        assert rig.incumbent.seen_count == 8, "no pings"
        assert health(rig) == {rig.incumbent.port: True}

    run(tmp_path, scenario)


def test_a_dead_primary_and_a_failing_candidate_leave_the_spare(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        async with primary_and_spare(rig) as (process, port, spare):
            plane_rig.end(process)
            await eventually(lambda: not health(rig)[port])
            place(rig, spare, port)  # what a supervisor does that saw it die
            await eventually(lambda: tuple(health(rig)) == (spare, port))
            rig.admin.set_split(10_000, mirror=False, quiet=False)
            await asyncio.sleep(0.05)
            rig.candidate.answer = plane_rig.fail
            replies = await rig.ask_many(50)
            assert not failures(replies)
            assert {reply.headers["x-interlock-served-by"] for reply in replies} == {f"m/{spare}"}

    run(tmp_path, scenario)
