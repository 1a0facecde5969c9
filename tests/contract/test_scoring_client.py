"""The scoring client against a real HTTP server: only a 200 with predictions, in time, is an answer."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from interlock.adapters.scoring_client import ScoringClient
from interlock.errors import ServiceRefused, ServiceUnavailable

ANSWERS: dict[bytes, tuple[int, bytes]] = {
    b"good": (200, b'{"predictions": [0.5]}'),
    b"empty": (200, b'{"predictions": []}'),
    b"page": (200, b"<html>ok</html>"),
    b"list": (200, b"[1]"),
    b"bad": (400, b"{}"),
    b"moved": (307, b""),
    b"broken": (500, b"password=hunter2"),
    b"busy": (503, b""),
    b"null": (200, b'{"predictions": null}'),
    b"latin": (200, b'{"predictions": ["\xe9"]}'),
    b"late": (200, b'{"predictions": [0.5]}'),
}


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: set[tuple[str, int]] = set()  # noqa: RUF012

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers["content-length"]))
        Server.connections.add(self.client_address)
        if payload == b"late":
            time.sleep(1.0)
        status, body = ANSWERS[payload] if self.path == "/invocations" else (404, b"")
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Server.connections.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_answers_are_taken_over_one_kept_connection(port: int) -> None:
    with ScoringClient(port, timeout_seconds=5.0) as client:
        for _ in range(20):
            client.send(b"good")
    assert len(Server.connections) == 1


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        pytest.param(b"empty", ServiceRefused, id="no predictions"),
        pytest.param(b"page", ServiceRefused, id="a page instead of predictions"),
        pytest.param(b"null", ServiceRefused, id="null instead of predictions"),
        pytest.param(b"latin", ServiceRefused, id="bytes that are not UTF-8, of which no two are alike"),
        pytest.param(b"list", ServiceRefused, id="another JSON"),
        pytest.param(b"bad", ServiceRefused, id="a bad request"),
        pytest.param(b"moved", ServiceRefused, id="a redirect is not followed"),
        pytest.param(b"broken", ServiceUnavailable, id="a server error"),
        pytest.param(b"busy", ServiceUnavailable, id="a busy server"),
        pytest.param(b"late", ServiceUnavailable, id="an answer that is late"),
    ],
)
def test_what_is_not_an_answer_raises(port: int, payload: bytes, error: type[Exception]) -> None:
    with ScoringClient(port, timeout_seconds=0.3) as client, pytest.raises(error) as caught:
        client.send(payload)
    assert "hunter2" not in str(caught.value)


def test_an_asked_payload_gives_the_body_as_it_came(port: int) -> None:
    with ScoringClient(port, timeout_seconds=5.0) as client:
        assert client.ask(b"good") == '{"predictions": [0.5]}'
        with pytest.raises(ServiceRefused, match="without predictions"):
            client.ask(b"page")


@pytest.mark.parametrize("value", ["0", "0.0", "false", '""', "{}", "[0]"])
def test_whatever_a_model_may_answer_is_an_answer(port: int, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f'{{"predictions": {value}}}'
    monkeypatch.setitem(ANSWERS, b"good", (200, body.encode()))
    with ScoringClient(port, timeout_seconds=5.0) as client:
        assert client.ask(b"good") == body


def test_a_dead_server_raises(port: int) -> None:
    with ScoringClient(1, timeout_seconds=0.3) as client, pytest.raises(ServiceUnavailable, match="ConnectError"):
        client.send(b"good")


def test_a_proxy_of_the_environment_is_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ScoringClient(port, timeout_seconds=5.0) as client:
        client.send(b"good")
