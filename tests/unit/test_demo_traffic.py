"""Live traffic counts what a user would call a failure, keeps its rate and order, and loses no request on the way."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from interlock.demo import traffic
from interlock.demo.traffic import LiveTraffic, judge_answer
from interlock.errors import TrafficNotConverged

ROWS = pd.DataFrame({"hour": [1.0, 2.0, 3.0], "distance_km": [10.0, 20.0, 30.0]})
GOOD = b'{"predictions": [0.25]}'
Answer = tuple[int, bytes, str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answer: Callable[[float], Answer | None]
    seen: list[tuple[str, float]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert body["dataframe_split"]["columns"] == list(ROWS.columns)
        ((hour, _),) = body["dataframe_split"]["data"]
        self.seen.append((self.path, hour))
        answer = type(self).answer(hour)
        if answer is None:
            self.close_connection = True
            return
        status_code, text, served_by = answer
        self.send_response(status_code)
        self.send_header("content-length", str(len(text)))
        self.send_header("x-interlock-served-by", served_by)
        self.send_header("x-interlock-arm", "incumbent")
        self.send_header("location", "/elsewhere")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def server(answer: Callable[[float], Answer | None]) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    seen: list[tuple[str, float]] = []
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer), "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", seen
        finally:
            http.shutdown()
            thread.join()


def _send(base_url: str, *, seconds: float = 0.4, requests_per_second: float = 100.0) -> LiveTraffic:
    with LiveTraffic(base_url, ROWS, requests_per_second) as live:
        time.sleep(seconds)
    return live


def test_rows_are_replayed_in_order_again_and_again_at_the_rate() -> None:
    with server(lambda hour: (200, GOOD, "m/1")) as (base_url, seen):
        snapshot = _send(f"{base_url}/", seconds=0.5).snapshot()
    assert {path for path, _ in seen} == {"/invocations"}
    assert 10 <= snapshot.total_count <= 60
    assert snapshot.total_count == len(seen)
    assert (snapshot.failed_count, snapshot.in_flight_count) == (0, 0)
    expected = [1.0, 2.0, 3.0] * 20
    assert sorted(hour for _, hour in seen) == sorted(expected[: len(seen)])
    assert sum(sum(second.served_by.values()) for second in snapshot.seconds) == snapshot.total_count
    last = snapshot.recent[-1]
    assert (last.served_by, last.arm, last.failure) == ("m/1", "incumbent", "")
    assert last.latency_ms > 0


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        pytest.param((500, GOOD, "m/1"), "status 500", id="an error with a good body"),
        pytest.param((302, GOOD, "m/1"), "status 302", id="a redirection"),
        pytest.param((200, b'{"predictions": [NaN]}', "m/1"), "no finite prediction", id="NaN"),
        pytest.param((200, b"", "m/1"), "no predictions", id="nothing"),
        pytest.param(None, "ServerDisconnectedError", id="the connection is closed"),
    ],
)
def test_one_kind_of_row_fails_and_the_others_do_not(answer: Answer | None, failure: str) -> None:
    with server(lambda hour: answer if hour == 2.0 else (200, GOOD, "m/1")) as (base_url, seen):
        snapshot = _send(base_url).snapshot()
    assert set(snapshot.failures) == {failure}
    assert snapshot.failed_count == [hour for _, hour in seen].count(2.0) > 0
    assert snapshot.total_count == len(seen)
    assert sum(second.failed_count for second in snapshot.seconds) == snapshot.failed_count


def test_a_refused_connection_is_a_failure() -> None:
    with server(lambda hour: (200, GOOD, "m/1")) as (base_url, _):
        pass
    snapshot = _send(base_url, seconds=0.2).snapshot()
    assert snapshot.failed_count == snapshot.total_count > 0


def test_the_users_deadline_makes_a_failure_and_holds_nobody_else_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "USER_DEADLINE_SECONDS", 0.5)

    def answer(hour: float) -> Answer:
        time.sleep(1.0 if hour == 2.0 else 0.0)
        return 200, GOOD, "m/1"

    with server(answer) as (base_url, _):
        live = LiveTraffic(base_url, ROWS, 60.0)
        live.start()
        time.sleep(0.3)
        while_hanging = live.snapshot()
        live.stop()
    assert while_hanging.in_flight_count > 0
    assert while_hanging.failed_count == 0
    assert len(while_hanging.recent) > 5, "the other rows are answered meanwhile"
    snapshot = live.snapshot()
    assert snapshot.in_flight_count == 0
    assert set(snapshot.failures) == {"TimeoutError"}
    assert not live.is_running


def test_the_moment_of_recovery_is_found_in_running_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "interlock.demo.history.first_moment_all_from.__kwdefaults__", {"min_response_count": 20, "min_observed_seconds": 0.2}
    )
    serving = ["m/2"]
    with server(lambda hour: (200, GOOD, serving[0])) as (base_url, _), LiveTraffic(base_url, ROWS, 100.0) as live:
        since = time.monotonic()
        with pytest.raises(TrafficNotConverged, match="m/2: "):
            live.wait_until_all_from("m/1", since, timeout_seconds=0.3)
        switched_at = time.monotonic()
        serving[0] = "m/1"
        moment = live.wait_until_all_from("m/1", since, timeout_seconds=5.0)
    assert 0 <= moment - switched_at < 0.25


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"predictions": 0.5}',
        b'{"predictions": []}',
        b'{"predictions": [0.1, 0.2]}',
        b'{"predictions": [Infinity]}',
        b'{"predictions": ["0.5"]}',
        b'{"predictions": [true]}',
        b'{"predictions": [null]}',
        b'{"predictions": [[0.5]]}',
    ],
)
def test_anything_but_one_finite_number_is_no_answer(body: bytes) -> None:
    assert judge_answer(200, body)


@pytest.mark.parametrize("body", [GOOD, b'{"predictions": [1]}', b'{"predictions":[-0.0],"more":1}'])
def test_one_finite_number_is_an_answer(body: bytes) -> None:
    assert judge_answer(200, body) == ""
