"""A running Envoy takes a new configuration over without losing a request, and refuses one it cannot use."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.plane.endpoints import replace_file
from interlock.plane.envoy_admin import EnvoySplit
from interlock.plane.envoy_config import envoy_command, write_configuration
from interlock.plane.envoy_settings import READY_PATH, EnvoySettings
from tests.contract import plane_rig
from tests.contract.plane_rig import Client, Reply, Rig, eventually, failures, running_plane

LIMIT = "per_connection_buffer_limit_bytes"


def run(root: Path, scenario: Callable[[Rig], Awaitable[None]], **changes: object) -> None:
    async def whole() -> None:
        async with running_plane(root, **changes) as rig:
            await scenario(rig)

    asyncio.run(whole())


def stats(rig: Rig) -> dict[str, object]:
    found = rig.admin._json(
        "/stats", {"format": "json", "filter": "^(listener_manager.lds|cluster_manager.cds)|total_filter_chains_draining"}
    )
    return {stat["name"]: stat["value"] for stat in found["stats"] if "value" in stat}


def wanted(settings: EnvoySettings) -> tuple[str, str]:
    clusters, listeners = (
        json.loads((settings.endpoints_directory / name).read_text())["version_info"] for name in ("cds.json", "lds.json")
    )
    return clusters, listeners


def in_force(rig: Rig) -> tuple[object, object]:
    now = stats(rig)
    return now["cluster_manager.cds.version_text"], now["listener_manager.lds.version_text"]


def rejected(rig: Rig) -> int:
    now = stats(rig)
    return sum(
        int(str(now[f"{source}.{what}"]))
        for source in ("cluster_manager.cds", "listener_manager.lds")
        for what in ("update_rejected", "update_failure")
    )


async def hand_over(rig: Rig, settings: EnvoySettings) -> None:
    rig.settings = settings
    write_configuration(settings)
    await eventually(lambda: in_force(rig) == wanted(settings))


def test_listeners_routes_lua_and_clusters_are_replaced_under_load_without_a_failure(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.admin.set_split(5_000, mirror=True, quiet=False)
        is_over = asyncio.Event()

        async def user(pause_seconds: float) -> list[Reply]:
            client, replies = Client(rig.settings.live_port), []
            while not is_over.is_set():
                replies.append(await client.ask())
                await asyncio.sleep(pause_seconds)
            return replies

        # Busy connections, and some that are idle most of the time, as pools of clients are.
        users = [asyncio.create_task(user(pause)) for pause in (0, 0, 0.01, 0.01, 0.7, 1.1)]
        changes: list[dict[str, float]] = [
            {"request_timeout_seconds": 9.0},
            {"candidate_deadline_seconds": 0.4},
            {"capture_limit_bytes": 32_000},
            {"answer_limit_bytes": 500_000, "mirror_limit_count": 32},
            {"request_limit_bytes": 900_000, "request_timeout_seconds": 8.0},
        ]
        for change in changes:
            await hand_over(rig, replace(rig.settings, **change))  # type: ignore[arg-type]
            await asyncio.sleep(0.5)
        is_over.set()
        replies = [reply for replies in await asyncio.gather(*users) for reply in replies]
        assert len(replies) > 100
        assert not failures(replies)
        assert {reply.headers["x-interlock-arm"] for reply in replies} == {"incumbent", "candidate"}
        assert rejected(rig) == 0
        assert rig.admin.observe_split() == EnvoySplit(5_000, is_mirroring=True, is_quiet=False), "what was asked for stays"

    run(tmp_path, scenario)


def test_a_new_deadline_is_what_users_get(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.incumbent.answer = plane_rig.hang
        await hand_over(rig, replace(rig.settings, request_timeout_seconds=1.0))
        reply = await Client(rig.settings.live_port).ask()
        assert reply.status == 504
        assert reply.elapsed_seconds < 15

    run(tmp_path, scenario, request_timeout_seconds=25.0)


@pytest.mark.parametrize("name", ["lds.json", "cds.json"])
def test_a_broken_file_is_refused_and_the_configuration_before_it_stays(tmp_path: Path, name: str) -> None:
    async def scenario(rig: Rig) -> None:
        path = rig.settings.endpoints_directory / name
        before, good = in_force(rig), json.loads(path.read_text())
        unknown = {**good, "version_info": "x", "resources": [good["resources"][0] | {"no_such_field": 1}]}
        invalid = {**good, "version_info": "y", "resources": [{**at, LIMIT: -1} for at in good["resources"]]}
        broken = ["half of a fi", json.dumps(unknown), json.dumps(invalid)]
        if name == "lds.json":
            broken.append(json.dumps(good | {"version_info": "z"}).replace('"cluster": "incumbent"', '"cluster": "nowhere"'))
        for count, text in enumerate(broken):
            replace_file(path, text)
            await eventually(lambda: rejected(rig) > count)  # noqa: B023
            assert not failures(await rig.ask_many(20))
            assert in_force(rig) == before
        await hand_over(rig, replace(rig.settings, request_timeout_seconds=9.0, answer_limit_bytes=1000))
        assert not failures(await rig.ask_many(20))

    run(tmp_path, scenario)


def test_an_envoy_that_is_killed_returns_with_the_newest_files_and_the_safe_split(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await hand_over(rig, replace(rig.settings, request_timeout_seconds=9.0))
        rig.admin.set_split(10_000, mirror=True, quiet=False)
        plane_rig.end(rig.envoy)
        second = subprocess.Popen(envoy_command(rig.settings, rig.settings.endpoints_directory / "bootstrap.json"))
        try:
            await eventually(lambda: plane_rig._is_ready(rig.admin))
            replies = await rig.ask_many(20)  # ready means that it serves
            assert not failures(replies)
            assert {reply.headers["x-interlock-served-by"] for reply in replies} == {"m/1"}
            assert in_force(rig) == wanted(rig.settings)
            assert rig.admin.observe_split() == EnvoySplit(0, is_mirroring=False, is_quiet=True)
        finally:
            plane_rig.end(second)

    run(tmp_path, scenario)


@pytest.mark.parametrize(("name", "text"), [("lds.json", "{"), ("cds.json", "{"), ("lds.json", None)])
def test_an_envoy_that_starts_from_broken_files_is_not_ready(tmp_path: Path, name: str, text: str | None) -> None:
    """Its admin says that it is, when a file was there and could not be used: the users' port is what must answer."""

    async def scenario(rig: Rig) -> None:
        client = Client(rig.settings.live_port)
        assert (await client.ask(b"", method="GET", path=READY_PATH)).status == 200
        assert rig.incumbent.seen_count == rig.candidate.seen_count == 0
        plane_rig.end(rig.envoy)
        path = rig.settings.endpoints_directory / name
        path.unlink()
        if text:
            path.write_text(text)
        broken = subprocess.Popen(
            envoy_command(rig.settings, rig.settings.endpoints_directory / "bootstrap.json"), stderr=subprocess.DEVNULL
        )
        try:
            await eventually(lambda: broken.poll() is not None or plane_rig._is_ready(rig.admin))
            assert (await Client(rig.settings.live_port).ask(b"", method="GET", path=READY_PATH)).status == 0
            if broken.poll() is None:  # a new start of Interlock writes the files again, and this Envoy takes them
                write_configuration(rig.settings)
                # It waits up to 15 s for a first answer of each kind before it goes on.
                await eventually(lambda: plane_rig._is_listening(rig.settings.live_port), within_seconds=60.0)
                assert not failures(await rig.ask_many(20))
        finally:
            plane_rig.end(broken)

    run(tmp_path, scenario)
