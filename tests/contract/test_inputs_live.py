"""Inputs of live requests through a real Envoy: kept also while no release is under way, and never at a user's cost."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from interlock.serving.input_rows import read_input_rows
from interlock.serving.inputs import Input, list_files, read_bodies, read_listing
from tests.contract import plane_rig
from tests.contract.plane_rig import Client, Rig, end, eventually, failures, metrics, running_plane, start_collector

EVERYTHING = {"input_share_bps": 10_000, "inputs_per_second": 100_000}
PATIENT = {"candidate_deadline_seconds": 8.0}  # on a busy machine a copy may rightly be given up after the usual half second


def run(root: Path, scenario: Callable[[Rig], Awaitable[None]], **changes: object) -> None:
    async def whole() -> None:
        async with running_plane(root, **changes) as rig:
            await scenario(rig)

    asyncio.run(whole())


def kept(rig: Rig) -> list[Input]:
    listings = [read_listing(path) for path in list_files(rig.journal_directory, since_at_seconds=0)]
    return [one for at in listings for one in read_bodies(at.path, np.arange(len(at.size_bytes)))]


async def all_kept(rig: Rig, count: int) -> list[Input]:
    await eventually(lambda: len(kept(rig)) >= count)
    await asyncio.sleep(0.4)
    found = kept(rig)
    assert len(found) == count
    return found


def numbers(inputs: list[Input]) -> list[int]:
    return [json.loads(one.body or b"")["n"] for one in inputs]


def test_without_a_release_inputs_are_kept_and_the_judges_journal_stays_empty(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        replies = await rig.ask_many(200, users=4)
        assert not failures(replies)
        assert not any(name.startswith("x-interlock-a") and name != "x-interlock-arm" for reply in replies for name in reply.headers)
        assert sorted(numbers(await all_kept(rig, 200))) == list(range(200))
        assert rig.reader.read_new() == []
        assert rig.admin.capture_counts().live_requests_count == 200, "counted as any other prediction"
        assert "interlock_capture_inputs_total 200.0" in metrics(rig)
        assert rig.candidate.seen_count == 0

    run(tmp_path, scenario, **EVERYTHING)


def test_what_users_sent_is_read_back_as_rows(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        client = Client(rig.settings.live_port)
        await client.ask(b'{"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}', extra="content-type: application/json\r\n")
        await client.ask(b'{"instances": [[3]]}')
        await client.ask(b"x\n4\n", extra="content-type: text/csv\r\n")
        at_seconds = (await all_kept(rig, 3))[0].received_at_seconds
        rows = read_input_rows("journal:60", directory=rig.journal_directory, now_at_seconds=at_seconds + 30, kinds={"x": "long"})
        assert rows.frame["x"].tolist() == [1, 2, 3, 4]

    run(tmp_path, scenario, **EVERYTHING)


def test_only_predictions_that_were_answered_well_are_kept(tmp_path: Path) -> None:
    async def answer(body: bytes, writer: asyncio.StreamWriter) -> None:
        plane_rig.respond(writer, 200 if body == b'{"n": 1}' else 500 if body == b'{"n": 2}' else 400, b"{}")

    async def scenario(rig: Rig) -> None:
        rig.incumbent.answer = answer
        client = Client(rig.settings.live_port)
        for number in (1, 2, 3):
            await client.ask(b'{"n": %d}' % number)
        for method, path in (("GET", "/ping"), ("GET", "/invocations"), ("POST", "/version")):
            await client.ask(b'{"n": 1}', method=method, path=path)
        assert numbers(await all_kept(rig, 1)) == [1]

    run(tmp_path, scenario, **EVERYTHING)


def test_with_mirroring_each_request_is_kept_once_and_every_pair_is_whole(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.admin.set_split(5_000, mirror=True, quiet=False)
        await asyncio.sleep(0.05)
        await rig.ask_many(200, users=2, pause_seconds=0.02)
        assert sorted(numbers(await all_kept(rig, 200))) == list(range(200))
        legs = rig.reader.read_new()
        assert set(Counter(leg.request_id for leg in legs).values()) == {2}
        assert len(legs) == 400
        assert {one.digest for one in kept(rig)} == {leg.input_digest for leg in legs}

    run(tmp_path, scenario, **EVERYTHING, **PATIENT)


def test_after_a_release_inputs_are_kept_again_and_legs_no_more(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.admin.set_split(5_000, mirror=True, quiet=False)
        await asyncio.sleep(0.05)
        await rig.ask_many(20, users=1, pause_seconds=0.01)
        await all_kept(rig, 20)
        assert len(rig.reader.read_new()) == 40
        rig.admin.set_split(0, mirror=False, quiet=True)
        await asyncio.sleep(0.2)
        await rig.ask_many(30, users=1, pause_seconds=0.01)
        await eventually(lambda: len(kept(rig)) > 40)
        assert rig.reader.read_new() == []

    run(tmp_path, scenario, **EVERYTHING, **PATIENT)


def test_inputs_on_which_the_candidate_fails_are_kept_like_all_others(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.candidate.answer = plane_rig.fail
        rig.admin.set_split(5_000, mirror=True, quiet=False)
        await asyncio.sleep(0.05)
        await rig.ask_many(60, users=2, pause_seconds=0.02)
        assert sorted(numbers(await all_kept(rig, 60))) == list(range(60))

    run(tmp_path, scenario, **EVERYTHING, **PATIENT)


@pytest.mark.parametrize("is_quiet", [True, False], ids=["no release", "a release"])
def test_the_share_is_respected(tmp_path: Path, *, is_quiet: bool) -> None:
    async def scenario(rig: Rig) -> None:
        rig.admin.set_split(0, mirror=not is_quiet, quiet=is_quiet)
        await asyncio.sleep(0.05)
        await rig.ask_many(800, users=4, pause_seconds=0.005)
        await asyncio.sleep(0.5)
        # 800 x 25 % = 200; four standard deviations of a binomial are 49
        assert 151 <= len(kept(rig)) <= 249

    run(tmp_path, scenario, input_share_bps=2_500, inputs_per_second=100_000)


def test_a_share_of_0_keeps_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.ask_many(100)
        rig.admin.set_split(5_000, mirror=True, quiet=False)
        await rig.ask_many(100, users=2, pause_seconds=0.01)
        rig.admin.set_split(0, mirror=False, quiet=True)
        await rig.ask_many(100)
        await asyncio.sleep(0.5)
        assert kept(rig) == []
        assert "interlock_capture_inputs_total 0.0" in metrics(rig)

    run(tmp_path, scenario, input_share_bps=0, inputs_per_second=100_000)


def test_at_any_traffic_so_many_a_second_are_kept_at_most(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        began = asyncio.get_running_loop().time()
        await rig.ask_many(1_000, users=4)
        seconds = asyncio.get_running_loop().time() - began
        await asyncio.sleep(0.5)
        assert 5 <= len(kept(rig)) <= 5 * (seconds + 1)

    run(tmp_path, scenario, input_share_bps=10_000, inputs_per_second=5)


def test_an_input_over_the_limit_reaches_the_model_whole_and_is_noted_only(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        sizes: list[int] = []

        async def measure(body: bytes, writer: asyncio.StreamWriter) -> None:
            sizes.append(len(body))
            plane_rig.respond(writer, 200, b"{}")

        rig.incumbent.answer = measure
        await Client(rig.settings.live_port).ask(b"z" * 200_000)
        await Client(rig.settings.live_port).ask(b"z" * 2_000_000)
        assert [one.body for one in await all_kept(rig, 2)] == [None, None]
        assert sizes == [200_000, 2_000_000]
        assert "interlock_capture_oversized_inputs_total 2.0" in metrics(rig)

    run(tmp_path, scenario, **EVERYTHING)


def test_a_stopped_or_dead_collector_costs_users_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        os.kill(rig.collector.pid, signal.SIGSTOP)
        stopped = await rig.ask_many(300)
        os.kill(rig.collector.pid, signal.SIGCONT)
        end(rig.collector)
        dead = await rig.ask_many(300)
        assert not failures(stopped + dead)
        assert max(reply.elapsed_seconds for reply in stopped + dead) < 1.0, "nobody waits for the collector's second"
        before = len(kept(rig))
        rig.collector = start_collector(rig.settings.collector_port, rig.journal_directory)
        await eventually(lambda: plane_rig._is_listening(rig.settings.collector_port))
        await rig.ask_many(20)
        await eventually(lambda: len(kept(rig)) > before)

    run(tmp_path, scenario, capture_queue_count=32, **EVERYTHING)


def test_clients_that_leave_before_the_answer_leave_nothing_behind(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.incumbent.answer = plane_rig.hang
        client = Client(rig.settings.live_port)
        impatient = asyncio.create_task(client.ask(b'{"n": 7}'))
        await eventually(lambda: rig.incumbent.seen_count == 1)
        client.close()
        await impatient
        rig.incumbent.answer = None
        for _ in range(8):  # longer than a leg is remembered
            await rig.ask_many(5)
            await asyncio.sleep(0.5)
        assert set(numbers(await all_kept(rig, 40))) == set(range(5))
        assert rig.reader.read_new() == []
        assert "interlock_capture_malformed_legs_total 0.0" in metrics(rig)

    run(tmp_path, scenario, request_timeout_seconds=1.0, **EVERYTHING)
