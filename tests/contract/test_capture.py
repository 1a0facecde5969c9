"""What the prediction journal holds after real requests through a real Envoy, and that users never pay for it."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from interlock.model.journal import Arm, Leg, Role
from tests.contract import plane_rig
from tests.contract.plane_rig import Client, Rig, end, eventually, failures, metrics, running_plane, start_collector

LONG_ANSWER = b"[" + b" " * 5_000 + b"]"


def run(root: Path, scenario: Callable[[Rig], Awaitable[None]], **changes: object) -> None:
    async def whole() -> None:
        async with running_plane(root, **changes) as rig:
            await scenario(rig)

    asyncio.run(whole())


async def set_split(rig: Rig, weight_bps: int, *, mirror: bool, quiet: bool = False) -> None:
    rig.admin.set_split(weight_bps, mirror=mirror, quiet=quiet)
    await asyncio.sleep(0.05)


async def read_legs(rig: Rig, count: int) -> list[Leg]:
    legs: list[Leg] = []

    def enough() -> bool:
        legs.extend(rig.reader.read_new())
        return len(legs) >= count

    await eventually(enough)
    return legs


def test_every_request_leaves_a_pair_in_both_directions(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 5_000, mirror=True)
        # With pauses: on two cores shared with the whole test, copies of full load may rightly be dropped.
        replies = await rig.ask_many(600, users=4, pause_seconds=0.01)
        legs = await read_legs(rig, 1_200)
        by_id: dict[str, list[Leg]] = {}
        for leg in legs:
            by_id.setdefault(leg.request_id, []).append(leg)
        assert set(by_id) == {reply.headers["x-request-id"] for reply in replies}
        for reply in replies:
            live, mirrored = sorted(by_id[reply.headers["x-request-id"]], key=lambda leg: leg.role)
            assert (live.role, mirrored.role) == (Role.LIVE, Role.MIRROR)
            assert {live.arm, mirrored.arm} == {Arm.CANDIDATE, Arm.INCUMBENT}
            assert live.arm == reply.headers["x-interlock-arm"]
            assert live.prediction == reply.body.decode()
            assert live.input_digest == mirrored.input_digest != ""
            assert all(leg.prediction == json.dumps({"predictions": [leg.served_by]}) for leg in (live, mirrored))
        assert {leg.arm for leg in legs if leg.role == Role.LIVE} == {Arm.CANDIDATE, Arm.INCUMBENT}
        assert len({leg.input_digest for leg in legs}) == 600
        counts = rig.admin.capture_counts()
        assert (counts.mirrors_dropped_count, counts.captures_dropped_count, counts.live_requests_count) == (0, 0, 600)
        recent = httpx.get(f"http://127.0.0.1:{rig.settings.collector_port}/recent", timeout=5).json()
        assert sum(entry["count"] for entry in recent) == 1_200
        assert 'interlock_capture_legs_total{arm="candidate",failed="false",role="mirror"}' in metrics(rig)

    run(tmp_path, scenario)


def test_both_legs_say_which_segment_and_whom_the_client_named(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 5_000, mirror=True)
        client = Client(rig.settings.live_port)
        await client.ask(b"1", extra="interlock-segment: New York / JFK\r\ninterlock-key: customer 7\r\n")
        await client.ask(b"2", extra="interlock-segment: New York / JFK\r\ninterlock-key: customer 7\r\n")
        await client.ask(b"3", extra=f"interlock-segment: {'x' * 65}\r\ninterlock-key: customer 8\r\n")
        await client.ask(b"4")
        legs = await read_legs(rig, 8)
        assert sorted(leg.segment for leg in legs) == [""] * 4 + ["New York / JFK"] * 4
        keys = [leg.key for leg in legs]
        assert sorted(keys.count(key) for key in set(keys)) == [2, 2, 4]
        assert not any("customer" in key for key in keys), "a key may name a person"

    run(tmp_path, scenario)


def test_nothing_is_captured_while_quiet_nor_on_other_paths(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        client = Client(rig.settings.live_port)
        await rig.ask_many(50)
        await Client(rig.settings.live_port).ask(b"", method="GET", path="/ping")
        assert rig.admin.capture_counts().live_requests_count == 50, "predictions are counted all the same"
        await set_split(rig, 10_000, mirror=True)
        for method, path in (("GET", "/ping"), ("GET", "/invocations"), ("POST", "/version"), ("GET", "/metrics")):
            await client.ask(b"", method=method, path=path)
        await client.ask(b'"the only one"', path="/invocations?a=b")
        assert {leg.role for leg in await read_legs(rig, 2)} == {Role.LIVE, Role.MIRROR}
        await asyncio.sleep(0.3)
        assert rig.reader.read_new() == []

    run(tmp_path, scenario)


def test_a_model_name_with_spaces_is_kept_whole(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.candidate.label = "Verspätung im Mai/13"
        rig.place()
        await set_split(rig, 10_000, mirror=False)
        await eventually(lambda: rig.candidate.label in {at.label for at in rig.admin.observed_endpoints()["candidate"]})
        reply = await Client(rig.settings.live_port).ask()
        assert reply.headers["x-interlock-served-by"].encode("latin-1").decode() == rig.candidate.label
        assert [leg.served_by for leg in await read_legs(rig, 1)] == [rig.candidate.label]

    run(tmp_path, scenario)


def test_bodies_over_the_limit_reach_users_whole_and_the_journal_not_at_all(tmp_path: Path) -> None:
    async def answer_long(body: bytes, writer: asyncio.StreamWriter) -> None:
        packing = "content-encoding: gzip, br\r\n" if body == b"packed" else ""
        plane_rig.respond(writer, 200, LONG_ANSWER if body == b"short" else b"{}", packing)

    async def scenario(rig: Rig) -> None:
        rig.candidate.answer = rig.incumbent.answer = answer_long
        await set_split(rig, 10_000, mirror=False)
        client = Client(rig.settings.live_port)
        long_answer, long_question = await client.ask(b"short"), await client.ask(b"z" * 5_000)
        assert (long_answer.body, long_question.body) == (LONG_ANSWER, b"{}")
        await set_split(rig, 0, mirror=False)  # a candidate's packed answer does not pass at all
        await client.ask(b"packed")
        first, second, third = await read_legs(rig, 3)
        assert (first.status_code, first.prediction, first.input_digest != "") == (200, None, True)
        assert (second.status_code, second.prediction, second.input_digest) == (200, None, "")
        assert (third.status_code, third.prediction) == (200, None)

    run(tmp_path, scenario, capture_limit_bytes=4_096)


def test_a_truncated_answer_is_no_answer_of_either_leg(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.candidate.answer = plane_rig.truncate
        await set_split(rig, 10_000, mirror=False)
        rescued = await Client(rig.settings.live_port).ask()
        assert (rescued.status, rescued.headers["x-interlock-served-by"]) == (200, "m/1")
        await set_split(rig, 0, mirror=True)
        assert (await Client(rig.settings.live_port).ask()).status == 200
        rig.candidate.answer = None
        truncated: list[Leg] = []
        for _ in range(50):  # a stream that died is noticed by later requests
            await rig.ask_many(20, users=2)
            await asyncio.sleep(0.1)
            truncated += [leg for leg in rig.reader.read_new() if leg.status_code == 0]
            if len(truncated) == 2:
                break
        assert {(leg.arm, leg.role, leg.prediction, leg.latency_ms) for leg in truncated} == {
            (Arm.CANDIDATE, Role.LIVE, None, None),
            (Arm.CANDIDATE, Role.MIRROR, None, None),
        }

    run(tmp_path, scenario)


def test_a_client_that_leaves_before_the_answer_is_not_held_against_the_arm(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.candidate.answer = plane_rig.hang
        await set_split(rig, 10_000, mirror=False)
        client = Client(rig.settings.live_port)
        impatient = asyncio.create_task(client.ask())
        await eventually(lambda: rig.candidate.seen_count == 1)
        client.close()
        await impatient
        rig.candidate.answer = None
        left: list[Leg] = []
        for _ in range(100):
            await rig.ask_many(5)
            await asyncio.sleep(0.2)
            left += [leg for leg in rig.reader.read_new() if leg.status_code != 200]
            if left:
                break
        assert [(leg.status_code, leg.failed, leg.prediction, leg.arm) for leg in left] == [(499, False, None, Arm.CANDIDATE)]

    run(tmp_path, scenario, request_timeout_seconds=1.0)


def test_a_stopped_or_dead_collector_costs_users_nothing_and_is_counted(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 5_000, mirror=True)
        os.kill(rig.collector.pid, signal.SIGSTOP)
        assert not failures(await rig.ask_many(300))
        await eventually(lambda: rig.admin.capture_counts().captures_dropped_count > 0)
        os.kill(rig.collector.pid, signal.SIGCONT)
        end(rig.collector)
        before = rig.admin.capture_counts().captures_dropped_count
        assert not failures(await rig.ask_many(100))
        await eventually(lambda: rig.admin.capture_counts().captures_dropped_count - before >= 200)
        rig.reader.read_new()
        rig.collector = start_collector(rig.settings.collector_port, rig.journal_directory)
        await eventually(lambda: plane_rig._is_listening(rig.settings.collector_port))
        assert not failures(await rig.ask_many(20))
        assert len(await read_legs(rig, 1)) >= 1

    run(tmp_path, scenario, capture_queue_count=32)


def test_a_collector_that_is_told_to_end_writes_what_it_has(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await set_split(rig, 0, mirror=False)
        await rig.ask_many(20, users=1)
        await eventually(lambda: 'role="live"} 20.0' in metrics(rig))
        rig.collector.terminate()
        assert await asyncio.to_thread(rig.collector.wait, 20) in (0, -signal.SIGTERM)
        assert len(await read_legs(rig, 20)) == 20

    run(tmp_path, scenario)
