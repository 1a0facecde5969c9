"""What a real Envoy, started from our configuration, promises its users: the split that was asked for, and no failed request."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from interlock.errors import ServiceRefused, ServiceUnavailable
from interlock.plane.endpoints import write_arms
from interlock.plane.envoy_admin import EnvoyAdmin, EnvoySplit
from interlock.plane.envoy_config import envoy_command, write_configuration
from tests.contract import plane_rig
from tests.contract.plane_rig import Client, ModelServer, Reply, Rig, eventually, failures, free_port, running_plane


def run(root: Path, scenario: Callable[[Rig], Awaitable[None]], **changes: object) -> None:
    async def whole() -> None:
        async with running_plane(root, **changes) as rig:
            await scenario(rig)

    asyncio.run(whole())


async def set_split(rig: Rig, weight_bps: int, *, mirror: bool = False, quiet: bool = False) -> None:
    """Ask, and wait until the worker has it too: the admin shows the main thread's view."""
    rig.admin.set_split(weight_bps, mirror=mirror, quiet=quiet)
    assert rig.admin.observe_split() == EnvoySplit(weight_bps, mirror, quiet)
    await asyncio.sleep(0.05)


async def placed(rig: Rig) -> None:
    """Wait until Envoy has taken over the servers that the rig now has."""
    incumbent, candidate = rig.incumbent.port, rig.candidate.port
    wanted = {
        "incumbent": (incumbent,),
        "incumbent_only": (incumbent,),
        "candidate_only": (candidate,),
        "candidate": (candidate, incumbent),
    }

    def is_taken_over() -> bool:
        observed = rig.admin.observed_endpoints()
        return all(tuple(at.port for at in observed[name]) == ports for name, ports in wanted.items())

    await eventually(is_taken_over)


def is_idle(servers: tuple[ModelServer, ...]) -> bool:
    return all(server.active_count == 0 for server in servers)


def arms(replies: list[Reply]) -> Counter[str]:
    return Counter(reply.headers["x-interlock-arm"] for reply in replies)


def test_an_envoy_that_nobody_asked_for_anything_serves_the_incumbent(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        assert rig.admin.observe_split() == EnvoySplit(0, is_mirroring=False, is_quiet=True)
        replies = await rig.ask_many(50)
        assert not failures(replies)
        assert {reply.headers["x-interlock-served-by"] for reply in replies} == {"m/1"}
        assert rig.candidate.seen_count == 0
        observed = rig.admin.observed_endpoints()
        assert [(at.port, at.label, at.priority) for at in observed["candidate"]] == [
            (rig.candidate.port, "m/2", 0),
            (rig.incumbent.port, "m/1", 1),
        ]
        with pytest.raises(ServiceRefused, match="403"):
            rig.admin._call("POST", "/quitquitquit", {})

    run(tmp_path, scenario)


def test_the_measured_share_is_the_asked_share(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for weight_bps in (0, 100, 2_000, 5_000, 10_000):
            await set_split(rig, weight_bps)
            asked_count, share = 2_000, weight_bps / 10_000
            measured_count = arms(await rig.ask_many(asked_count))["candidate"]
            # 5 standard deviations of a binomial: false alarm below 1 in a million.
            allowance = 5 * (asked_count * share * (1 - share)) ** 0.5
            assert abs(measured_count - asked_count * share) <= allowance, weight_bps
        # Other paths follow the weight too, and quiet overrules it.
        assert (await Client(rig.settings.live_port).ask(method="GET", path="/ping")).headers["x-interlock-arm"] == "candidate"
        await set_split(rig, 10_000, quiet=True)
        assert arms(await rig.ask_many(100)) == {"incumbent": 100}

    run(tmp_path, scenario)


def test_no_request_fails_while_weights_change_under_load(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        load = asyncio.create_task(rig.ask_many(3_000))
        changes = 0
        while not load.done():
            await asyncio.to_thread(rig.admin.set_split, changes % 5 * 2_500, mirror=changes % 2 == 0, quiet=changes % 7 == 0)
            changes += 1
            await asyncio.sleep(0.01)
        replies = await load
        assert not failures(replies)
        assert changes > 10
        assert set(arms(replies)) == {"incumbent", "candidate"}

    run(tmp_path, scenario)


def test_no_request_fails_while_both_model_servers_are_replaced_under_load(tmp_path: Path) -> None:
    async def slowly(body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)  # so that requests are in flight to the old servers when they are replaced
        plane_rig.respond(writer, 200, b"{}")

    async def scenario(rig: Rig) -> None:
        await set_split(rig, 5_000, mirror=True)
        rig.incumbent.answer = rig.candidate.answer = slowly
        first = await rig.ask_many(50)
        load = asyncio.create_task(rig.ask_many(1_500))
        for turn in range(3):
            old = (rig.incumbent, rig.candidate)
            rig.incumbent = await ModelServer(f"m/{2 * turn + 3}", slowly).start()
            rig.candidate = await ModelServer(f"m/{2 * turn + 4}", slowly).start()
            rig.place()
            await placed(rig)
            await asyncio.sleep(0.1)
            await eventually(partial(is_idle, old))
            for server in old:
                await server.stop()
        replies = [*first, *await load, *await rig.ask_many(200)]  # a fast machine may be through with its load before the last turn
        assert not failures(replies)
        assert {reply.headers["x-interlock-served-by"] for reply in replies} >= {"m/1", "m/2", "m/7", "m/8"}

    run(tmp_path, scenario)


def test_without_a_candidate_its_share_goes_to_the_incumbent(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        write_arms(rig.settings.endpoints_directory, incumbent=[rig.incumbent.at("incumbent")], candidate=[])
        await eventually(lambda: len(rig.admin.observed_endpoints()["candidate"]) == 1)
        await set_split(rig, 10_000)
        replies = await rig.ask_many(50)
        assert not failures(replies)
        assert {reply.headers["x-interlock-served-by"] for reply in replies} == {"m/1"}

    run(tmp_path, scenario)


async def _stopped_server(rig: Rig) -> subprocess.Popen[bytes]:
    """A candidate in a process of its own, stopped: the kernel takes connections, nobody answers."""
    port = free_port()
    code = (
        "import asyncio; from tests.contract.plane_rig import ModelServer\n"
        f"async def main():\n await ModelServer('m/2', port={port}).start(); await asyncio.sleep(300)\nasyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    await eventually(lambda: plane_rig._is_listening(port))
    os.kill(process.pid, signal.SIGSTOP)
    rig.candidate = ModelServer("m/2", port=port)
    return process


FAULTS = {"hangs": plane_rig.hang, "500": plane_rig.fail, "garbage": plane_rig.talk_garbage, "reset": plane_rig.reset}


def test_users_never_see_a_broken_candidate_and_the_journal_always_does(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 5_000, mirror=True)
        for fault in (*FAULTS, "dead", "stopped"):
            # A new server for every fault: Envoy remembers what it ejected.
            process = None
            if fault == "stopped":
                process = await _stopped_server(rig)
            else:
                rig.candidate = await ModelServer(f"m/{fault}", FAULTS.get(fault)).start()
                if fault == "dead":
                    await rig.candidate.stop()
            rig.place()
            await placed(rig)
            await _assert_contained(rig, fault)
            if process is not None:
                plane_rig.end(process)

    run(tmp_path, scenario)


async def _assert_contained(rig: Rig, fault: str) -> None:
    rig.reader.read_new()
    replies = await rig.ask_many(200)
    assert not failures(replies), fault
    assert {reply.headers["x-interlock-served-by"] for reply in replies} == {"m/1"}, fault
    legs = []

    def all_arrived() -> bool:
        legs.extend(rig.reader.read_new())
        return len(legs) >= 2 * len(replies)

    await eventually(all_arrived)
    failed = {(leg.arm.value, leg.failed) for leg in legs}
    assert failed == {("candidate", True), ("incumbent", False)}, fault
    assert all(leg.prediction is None and leg.latency_ms is None for leg in legs if leg.status_code == 0), fault
    mirrored_codes = {leg.status_code for leg in legs if leg.arm == "candidate" and leg.role == "mirror"}
    assert mirrored_codes == ({500} if fault == "500" else {0}), fault


def test_inputs_that_fail_on_both_arms_reach_users_as_the_incumbents_own_answer(tmp_path: Path) -> None:
    """Five failures in a row eject both servers of the candidate route; it must not become 'no healthy upstream'."""

    async def scenario(rig: Rig) -> None:
        await set_split(rig, 10_000)
        rig.incumbent.answer = rig.candidate.answer = plane_rig.fail
        replies = await rig.ask_many(60, users=1)
        assert {reply.status for reply in replies} == {500}
        assert {reply.body for reply in replies} == {b'{"error": "scripted"}'}
        await eventually(lambda: not any(at.is_healthy for at in rig.admin.observed_endpoints()["candidate"]))
        rig.incumbent.answer = None
        assert not failures(await rig.ask_many(60, users=1))

    run(tmp_path, scenario)


def test_only_envoy_can_write_the_headers_that_evidence_rests_on(tmp_path: Path) -> None:
    forged = "x-interlock-arm: king\r\nx-interlock-served-by: king\r\nx-request-id: king\r\nx-interlock-answer: king\r\n"

    async def forge(body: bytes, writer: asyncio.StreamWriter) -> None:
        plane_rig.respond(writer, 200, b"{}", forged + "x-interlock-attempts: 1\r\nx-interlock-endpoint-arm: candidate\r\n")

    async def scenario(rig: Rig) -> None:
        rig.incumbent.answer = rig.candidate.answer = forge
        for quiet in (True, False):
            await set_split(rig, 10_000, mirror=True, quiet=quiet)
            client = Client(rig.settings.live_port)
            first, second = [await client.ask(extra=forged + "x-envoy-max-retries: 0\r\n") for _ in range(2)]
            assert first.headers["x-interlock-served-by"] == ("m/1" if quiet else "m/2")
            assert first.headers["x-interlock-arm"] == ("incumbent" if quiet else "candidate")
            assert len({first.headers["x-request-id"], second.headers["x-request-id"], "king"}) == 3
            assert not {"x-interlock-answer", "x-interlock-attempts", "x-interlock-endpoint-arm"} & set(first.headers)
            assert "king" not in str(first.headers)

    run(tmp_path, scenario)


def test_a_client_cannot_switch_the_rescue_off(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 10_000)
        rig.candidate.answer = plane_rig.fail
        switches = "x-envoy-max-retries: 0\r\nx-envoy-retry-on: connect-failure\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n"
        assert (await Client(rig.settings.live_port).ask(extra=switches)).status == 200

    run(tmp_path, scenario)


def test_an_answer_of_the_incumbent_that_drips_reaches_the_user_as_it_drips(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        arrived = asyncio.Semaphore(0)

        async def drip(body: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(5):
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await arrived.acquire()  # the next byte leaves only when the user has this one
            writer.write(b"0\r\n\r\n")

        rig.incumbent.answer = drip
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.settings.live_port)
        writer.write(b"POST /invocations HTTP/1.1\r\nhost: interlock\r\ncontent-length: 2\r\n\r\n{}")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(5):
            assert await reader.readuntil(b"x\r\n") == b"1\r\nx\r\n"
            arrived.release()
        assert await reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
        writer.close()

    run(tmp_path, scenario, request_timeout_seconds=20.0)


def test_a_hanging_mirror_costs_users_nothing_and_is_counted(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 0, mirror=True)
        await rig.ask_many(200)
        medians: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(6):  # in turns, so that a busy machine is busy for both
            rig.candidate.answer = plane_rig.hang if turn % 2 else None
            replies = await rig.ask_many(300)
            assert not failures(replies)
            medians[turn % 2 == 1].append(statistics.median(reply.elapsed_seconds for reply in replies))
        assert min(medians[True]) < 2 * min(medians[False])
        assert rig.admin.capture_counts().mirrors_dropped_count > 0

    run(tmp_path, scenario, mirror_limit_count=8)


def test_a_request_too_large_to_be_kept_for_a_rescue_goes_to_the_incumbent(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 10_000, mirror=True)
        rig.candidate.answer = plane_rig.fail
        client = Client(rig.settings.live_port)
        kept, too_large = await client.ask(b"x" * 900_000), await client.ask(b"x" * 1_100_000)
        assert (kept.status, kept.headers["x-interlock-arm"]) == (200, "candidate")
        assert (too_large.status, too_large.headers["x-interlock-arm"]) == (200, "incumbent")

    run(tmp_path, scenario)


def has_refused_a_listener(admin: EnvoyAdmin) -> bool:
    found: dict[str, Any] = {"stats": []}
    with contextlib.suppress(ServiceUnavailable, ServiceRefused):
        found = admin._json("/stats", {"format": "json", "filter": "^listener_manager.lds.update_rejected"})
    return any(stat["value"] > 0 for stat in found["stats"])


def test_a_second_envoy_cannot_take_a_share_of_the_users(tmp_path: Path) -> None:
    """A forgotten Envoy of an earlier run would answer every other connection, with weights that nobody controls."""

    async def scenario(rig: Rig) -> None:
        other = replace(rig.settings, admin_port=free_port(), endpoints_directory=tmp_path / "second")
        write_arms(other.endpoints_directory, incumbent=[], candidate=[])
        second = subprocess.Popen(envoy_command(other, write_configuration(other)), stderr=subprocess.DEVNULL)
        admin = EnvoyAdmin(f"http://127.0.0.1:{other.admin_port}")
        try:
            await eventually(lambda: has_refused_a_listener(admin))
            assert not failures(await rig.ask_many(40))
        finally:
            plane_rig.end(second)
            admin.close()

    run(tmp_path, scenario)


def test_an_absent_envoy_is_unavailable_and_a_weight_out_of_range_is_refused() -> None:
    admin = EnvoyAdmin(f"http://127.0.0.1:{free_port()}")
    for question in (admin.observe_split, admin.capture_counts, admin.observed_endpoints, admin.ready):
        with pytest.raises(ServiceUnavailable):
            question()
    with pytest.raises(ServiceRefused, match="10001 bps"):
        admin.set_split(10_001, mirror=False, quiet=False)
    admin.close()
