"""One suite for every traffic plane: the fake of the unit tests, and the controller behind its control API, served for real."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

import interlock.errors
from interlock.adapters.fakes import FakeClock, FakeTraffic
from interlock.adapters.plane_client import PlaneClient
from interlock.errors import ConcurrencyError, ReleaseError, ServiceRefused, ServiceUnavailable
from interlock.model.plane import CaptureCounts, LiveTraffic
from interlock.model.release import ModelVersion
from interlock.plane.api import build_api
from interlock.plane.live import LivePage
from interlock.ports import Traffic
from tests.plane_fakes import LIMITS, FakePlane

ONE = ModelVersion("late flights", "1", "sha256:" + "1" * 64)
TWO = ModelVersion("late flights", "2", "sha256:" + "2" * 64)
SECRET = "s3cret"


class World(Protocol):
    """A plane, and what a test does to the world around it."""

    traffic: Traffic

    def pass_seconds(self, seconds: float) -> None: ...

    def set_ready(self, version: ModelVersion, *, ready: bool) -> None: ...

    def fail_candidate(self, why: str) -> None: ...

    def make_deaf(self) -> None: ...


class FakeWorld:
    """The plane in memory."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._fake = FakeTraffic(self._clock, None)
        self._fake.counts = CaptureCounts(1, 2, 3)
        self.traffic: Traffic = self._fake

    def pass_seconds(self, seconds: float) -> None:
        self._clock.seconds += seconds

    def set_ready(self, version: ModelVersion, *, ready: bool) -> None:
        if version == ONE:
            self._fake.incumbent_ready = ready
        else:
            self._fake.candidate_ready = ready

    def fail_candidate(self, why: str) -> None:
        self._fake.dead_reason = why

    def make_deaf(self) -> None:
        self._fake.deaf = True


class ServedWorld:
    """Client -> HTTP -> API -> controller, over an Envoy in memory whose live listener answers `/ping`."""

    def __init__(self, root: Path) -> None:
        self.plane = FakePlane(root)
        (root / "evidence").mkdir()
        live = LivePage(self.plane.controller, evidence_directory=root / "evidence", collector_url="http://127.0.0.1:9", links={})
        self.app = Starlette(routes=[Route("/live/ping", self._ping), Mount("/", app=build_api(self.plane.controller, live, token=SECRET))])
        self.url = ""
        self.traffic: Traffic

    def connect(self, url: str) -> None:
        self.url = url
        self.traffic = self.client()

    def client(self, token: str = SECRET) -> PlaneClient:
        return PlaneClient(page_url=self.url, live_url=f"{self.url}/live", token=token)

    def pass_seconds(self, seconds: float) -> None:
        self.plane.clock.seconds += seconds
        self.plane.controller.enforce_lease()

    def set_ready(self, version: ModelVersion, *, ready: bool) -> None:
        (self.plane.servers.not_ready.discard if ready else self.plane.servers.not_ready.add)(version.label)

    def fail_candidate(self, why: str) -> None:
        self.plane.servers.died[TWO.label] = why

    def make_deaf(self) -> None:
        self.plane.admin.deaf = True

    def _ping(self, request: Request) -> Response:
        arm = "candidate" if self.plane.admin.split.candidate_weight_bps > 5000 else "incumbent"
        endpoints = self.plane.admin.endpoints(arm)
        return Response(headers={"x-interlock-served-by": endpoints[0].label}) if endpoints else Response(status_code=503)


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """A real uvicorn on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "uvicorn did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedWorld]:
    world = ServedWorld(tmp_path)
    with serving(world.app) as url:
        world.connect(url)
        yield world


@pytest.fixture(params=["fake", "served"])
def world(request: pytest.FixtureRequest) -> World:
    world: World = FakeWorld() if request.param == "fake" else request.getfixturevalue("served")
    world.traffic.adopt(ONE, server="interlock", thread_count=4)
    return world


@pytest.fixture
def token(world: World) -> int:
    """Of a release whose candidate is loaded, without traffic."""
    token = world.traffic.begin("r1", lease_seconds=10)
    world.traffic.load_candidate(TWO, server="interlock", thread_count=4, limits=LIMITS, token=token)
    return token


def weight(world: World, weight_bps: int, token: int) -> int:
    world.traffic.set_mirroring(enabled=True, token=token)
    world.traffic.set_weight(weight_bps, lease_seconds=10, token=token)
    return world.traffic.observe().candidate_weight_bps


def moves(traffic: Traffic, token: int) -> dict[str, Callable[[], object]]:
    return {
        "load": lambda: traffic.load_candidate(TWO, server="interlock", thread_count=4, limits=LIMITS, token=token),
        "mirroring": lambda: traffic.set_mirroring(enabled=True, token=token),
        "weight": lambda: traffic.set_weight(100, lease_seconds=10, token=token),
        "renew": lambda: traffic.renew(lease_seconds=10, token=token),
        "promote": lambda: traffic.promote(token=token),
    }


def test_a_whole_release_to_the_end(world: World, token: int) -> None:
    traffic = world.traffic
    assert weight(world, 1000, token) == 1000
    state = traffic.observe()
    assert (state.is_mirroring, state.release_id, state.token) == (True, "r1", token)
    assert state.candidate is not None
    assert state.candidate.version == TWO
    assert state.candidate.ready
    assert state.candidate.peak_resident_mib is not None
    assert state.candidate.peak_resident_mib >= state.candidate.resident_mib
    assert traffic.probe(3) == {ONE.label: 3}
    assert weight(world, 10_000, token) == 10_000
    assert traffic.probe(3) == {TWO.label: 3}
    traffic.promote(token=token)
    state = traffic.observe()
    assert state.incumbent is not None
    assert (state.incumbent.version, state.candidate, state.candidate_weight_bps, state.release_id) == (TWO, None, 0, None)
    assert traffic.probe(3) == {TWO.label: 3}


def test_a_lease_counts_down_and_takes_everything_back_when_it_is_over(world: World, token: int) -> None:
    weight(world, 5000, token)
    world.pass_seconds(4)
    assert world.traffic.observe().lease_remaining_seconds == 6
    world.traffic.renew(lease_seconds=10, token=token)
    world.pass_seconds(9)
    assert world.traffic.observe().candidate_weight_bps == 5000
    world.pass_seconds(2)
    state = world.traffic.observe()
    assert (state.candidate_weight_bps, state.is_mirroring, state.release_id, state.candidate) == (0, False, None, None)


def test_t15_a_stale_token_is_refused_with_its_own_class(world: World, token: int) -> None:
    for stale in (token - 1, token + 1):
        for name, move in moves(world.traffic, stale).items():
            with pytest.raises(ConcurrencyError, match=str(stale)):
                move()
            assert world.traffic.observe().candidate_weight_bps == 0, name
    with pytest.raises(ConcurrencyError):
        world.traffic.end(token=token + 1)
    with pytest.raises(ConcurrencyError, match="r1"):
        world.traffic.begin("r2", lease_seconds=10)


def test_the_way_back_needs_no_token_and_takes_the_plane_away(world: World, token: int) -> None:
    weight(world, 5000, token)
    for _ in range(2):
        world.traffic.restore_incumbent(reason="a person")
    state = world.traffic.observe()
    assert (state.candidate_weight_bps, state.is_mirroring, state.release_id) == (0, False, None)
    for move in moves(world.traffic, token).values():
        with pytest.raises(ConcurrencyError):
            move()
    world.traffic.end(token=token)
    world.traffic.end(token=None)
    assert world.traffic.observe().candidate is None
    assert world.traffic.begin("r2", lease_seconds=10) == token + 1


def test_a_release_that_was_overtaken_takes_nothing_back_and_a_person_does(world: World, token: int) -> None:
    weight(world, 5000, token)
    world.traffic.restore_incumbent(reason="its own", token=token)
    assert world.traffic.observe().last_restore_reason == "its own"
    world.traffic.end(token=token)
    newer = world.traffic.begin("r2", lease_seconds=10, above=token + 40)
    assert newer == token + 41
    with pytest.raises(ConcurrencyError, match=rf"token {token} is stale.*token {newer}"):
        world.traffic.restore_incumbent(reason="late", token=token)
    assert (world.traffic.observe().release_id, world.traffic.observe().last_restore_reason) == ("r2", "its own")
    world.traffic.restore_incumbent(reason="a person")
    assert world.traffic.observe().release_id is None


def test_tokens_grow_whatever_is_asked_for(world: World, token: int) -> None:
    world.traffic.end(token=token)
    assert world.traffic.begin("r2", lease_seconds=10, above=0) == token + 1


def test_what_the_plane_refuses(world: World, token: int) -> None:
    traffic = world.traffic
    weight(world, 5000, token)
    refused: dict[str, Callable[[], object]] = {
        "a second incumbent": lambda: traffic.adopt(TWO, server="interlock", thread_count=4),
        "the incumbent as candidate": lambda: traffic.load_candidate(ONE, server="interlock", thread_count=4, limits=LIMITS, token=token),
        "more than all": lambda: traffic.set_weight(10_001, lease_seconds=10, token=token),
        "less than nothing": lambda: traffic.set_weight(-1, lease_seconds=10, token=token),
        "a lease for ever": lambda: traffic.renew(lease_seconds=100_000, token=token),
        "a lease of nothing": lambda: traffic.set_weight(100, lease_seconds=0, token=token),
        "an uncompared candidate": lambda: traffic.set_mirroring(enabled=False, token=token),
        "promotion below all traffic": lambda: traffic.promote(token=token),
        "an end with traffic": lambda: traffic.end(token=token),
    }
    for name, call in refused.items():
        with pytest.raises(ReleaseError) as caught:
            call()
        assert type(caught.value) is ServiceRefused, name
    assert traffic.observe().candidate_weight_bps == 5000


def test_a_candidate_that_is_not_ready_gets_nothing(world: World, token: int) -> None:
    world.set_ready(TWO, ready=False)
    state = world.traffic.observe().candidate
    assert state is not None
    assert not state.ready
    for name in ("mirroring", "weight", "promote"):
        with pytest.raises(ServiceRefused, match="not ready"):
            moves(world.traffic, token)[name]()


def test_t17_an_unhealthy_incumbent_lets_no_release_begin(world: World) -> None:
    world.set_ready(ONE, ready=False)
    with pytest.raises(ServiceRefused, match="INCUMBENT_UNHEALTHY"):
        world.traffic.begin("r1", lease_seconds=10)


def test_an_incumbent_is_adopted_again_without_a_change(world: World) -> None:
    state = world.traffic.adopt(ONE, server="interlock", thread_count=4)
    assert state.incumbent is not None
    assert state.incumbent.version == ONE


def test_why_a_candidate_died_and_what_was_dropped_is_told(world: World, token: int) -> None:
    assert world.traffic.candidate_failure() is None
    world.fail_candidate("it ended with exit code 3: no module lightgbm")
    assert world.traffic.candidate_failure() == "it ended with exit code 3: no module lightgbm"
    assert world.traffic.capture_counts() == CaptureCounts(1, 2, 3, LiveTraffic(0, 0.0))


def test_t20_a_deaf_plane_is_seen_in_what_it_does(world: World, token: int) -> None:
    weight(world, 10_000, token)
    world.make_deaf()
    world.traffic.restore_incumbent(reason="x")
    assert world.traffic.observe().candidate_weight_bps == 10_000
    assert world.traffic.probe(2) == {TWO.label: 2}


# What only a plane behind HTTP can get wrong.


def test_the_live_traffic_of_the_last_hour_goes_on_over_a_restart_of_envoy(served: ServedWorld) -> None:
    admin = served.plane.admin
    served.traffic.capture_counts()
    for seconds, count in ((60.0, 603), (60.0, 7), (60.0, 8)):  # Envoy was restarted after the first minute
        served.pass_seconds(seconds)
        admin.counts = CaptureCounts(0, 0, count)
        seen = served.traffic.capture_counts().last_hour
    assert seen == LiveTraffic(608, 180.0)
    served.pass_seconds(3600.0)
    assert served.traffic.capture_counts().last_hour == LiveTraffic(0, 3600.0)


CLASSES = [kind for kind in vars(interlock.errors).values() if isinstance(kind, type) and issubclass(kind, ReleaseError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_exception_keeps_its_class_and_its_words_over_http(served: ServedWorld, kind: type[ReleaseError]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("5 bps observed, 7 wanted")

    served.plane.controller.restore_incumbent = fail  # type: ignore[method-assign]
    served.plane.controller.capture_counts = fail  # type: ignore[method-assign, assignment]
    for call in (lambda: served.traffic.restore_incumbent(reason="x"), served.traffic.capture_counts):
        with pytest.raises(ReleaseError, match="5 bps observed, 7 wanted") as caught:
            call()
        assert type(caught.value) is kind


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x", "Bearer \xe9"])
def test_without_the_secret_nothing_changes(served: ServedWorld, header: str) -> None:
    served.traffic.adopt(ONE, server="interlock", thread_count=4)
    headers = [(b"authorization", header.encode("latin-1"))] if header else []
    for path in ("adopt", "begin", "load", "mirroring", "weight", "renew", "promote", "restore", "end"):
        answer = httpx.post(f"{served.url}/api/{path}", json={}, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "ServiceRefused")
    with pytest.raises(ServiceRefused, match="secret"):
        served.client("wrong").begin("r1", lease_seconds=10)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("weight", b"", id="no body"),
        pytest.param("weight", b"{", id="JSON that was cut"),
        pytest.param("weight", b"[]", id="a list"),
        pytest.param("weight", b"null", id="null"),
        pytest.param("weight", b"\xff\xfe", id="bytes that are no text"),
        pytest.param("weight", b'{"weight_bps": 1}', id="fields missing"),
        pytest.param("weight", b'{"weight_bps": "many", "lease_seconds": 1, "token": 1}', id="a weight in words"),
        pytest.param("weight", b'{"weight_bps": Infinity, "lease_seconds": 1, "token": 1}', id="an infinite weight"),
        pytest.param("weight", b'{"weight_bps": NaN, "lease_seconds": 1, "token": 1}', id="a weight that is no number"),
        pytest.param("weight", b'{"weight_bps": {}, "lease_seconds": 1, "token": 1}', id="an object as weight"),
        pytest.param("load", b'{"version": "late/2", "server": "interlock", "thread_count": 1, "token": 1}', id="a version as text"),
        pytest.param("adopt", b'{"version": {"name": "x"}, "server": "interlock", "thread_count": 1}', id="half a version"),
        pytest.param("end", b"{}", id="an end without a word about the token"),
        pytest.param("weight", b"[" * 100_000, id="nested without end"),
    ],
)
def test_a_body_that_is_not_usable_is_refused(served: ServedWorld, path: str, body: bytes) -> None:
    answer = httpx.post(f"{served.url}/api/{path}", content=body, headers={"authorization": f"Bearer {SECRET}"})
    assert (answer.status_code, answer.json()["error"]) == (400, "ServiceRefused")
    assert len(answer.json()["message"]) < 500


def test_a_plane_that_does_not_answer_is_unavailable_and_its_probes_are_failures() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = PlaneClient(page_url=url, live_url=url, token=SECRET, timeout_seconds=1)
    for call in (client.observe, client.capture_counts, lambda: client.begin("r", lease_seconds=1)):
        with pytest.raises(ServiceUnavailable):
            call()
    assert client.probe(3) == {"": 3}


def test_an_envoy_that_is_down_is_an_unavailable_plane(served: ServedWorld) -> None:
    served.plane.admin.down = True
    with pytest.raises(ServiceUnavailable, match="Envoy's admin does not answer"):
        served.traffic.observe()


def test_the_page_can_be_read_without_the_secret_and_shows_a_dead_plane_as_nothing(served: ServedWorld) -> None:
    served.plane.admin.down = True
    assert "<html" in httpx.get(f"{served.url}/").text
    live = httpx.get(f"{served.url}/api/live").json()
    assert (live["plane"], live["recent"], live["release"]) == (None, None, None)
    assert httpx.get(f"{served.url}/releases/unknown/e-values.svg").status_code == 404
    assert httpx.get(f"{served.url}/releases/..%2F..%2Fetc%2Fpasswd/e-values.svg").status_code == 404
    assert httpx.get(f"{served.url}/api/restore").status_code == 405


def test_the_page_about_the_drift_is_served_in_a_sandbox_without_origin_or_network(served: ServedWorld, tmp_path: Path) -> None:
    (tmp_path / "evidence" / "late-2.drift.html").write_text("<!doctype html><script>fetch('/api/state')</script>", encoding="utf-8")
    answer = httpx.get(f"{served.url}/releases/late-2/drift.html")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = {part.split()[0]: part.split()[1:] for part in answer.headers["content-security-policy"].split("; ")}
    assert policy["sandbox"] == ["allow-scripts"]
    assert policy["default-src"] == ["'none'"]
    assert "connect-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    for release_id in ("unknown", "..%2Fsecret", ".late-2"):
        assert httpx.get(f"{served.url}/releases/{release_id}/drift.html").status_code == 404, release_id


def test_a_report_is_served_so_that_nothing_in_it_runs_and_no_other_file_is(served: ServedWorld, tmp_path: Path) -> None:
    (tmp_path / "evidence" / "late-2.html").write_text("<!doctype html><p>Promoted</p>", encoding="utf-8")
    (tmp_path / "secret.html").write_text("secret", encoding="utf-8")
    answer = httpx.get(f"{served.url}/releases/late-2/report.html")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Promoted" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    (tmp_path / "evidence" / "late-2.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    picture = httpx.get(f"{served.url}/releases/late-2/e-values.svg")
    assert (picture.headers["content-type"], picture.headers["content-security-policy"]) == ("image/svg+xml", policy)
    assert picture.headers["x-content-type-options"] == "nosniff"
    for release_id in ("unknown", "..%2Fsecret", "%2E%2E%2Fsecret", "late-2%0A", "late-2.html%00", "..", ".late-2"):
        assert httpx.get(f"{served.url}/releases/{release_id}/report.html").status_code == 404, release_id
