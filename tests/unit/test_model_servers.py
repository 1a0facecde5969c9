"""The model servers of the plane: started from pinned files only, watched by their own answers."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlock.errors import ServiceRefused
from interlock.model.release import ModelVersion
from interlock.plane import model_servers
from interlock.plane.model_servers import ModelServers

ONE = ModelVersion("late", "1", "sha256:" + "1" * 64)
SERVER = """
import http.server, sys
class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ping).serve_forever()
"""


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServers]:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(model_servers, "server_command", lambda *_, port, **__: [sys.executable, "-c", SERVER, str(port)])
    (tmp_path / ("1" * 64)).mkdir()
    servers = ModelServers(models_directory=tmp_path, log_directory=tmp_path)
    yield servers
    servers.stop_all()


def load(servers: ModelServers, version: ModelVersion = ONE, server: str = "interlock") -> None:
    servers.load(version, server=server, thread_count=1)


def is_ready(servers: ModelServers) -> bool:
    servers.watch(may_restart=lambda _: False)
    state = servers.observe(ONE)
    return state is not None and state.ready


def test_a_server_is_ready_when_it_answers_and_gone_when_it_was_stopped(servers: ModelServers) -> None:
    load(servers)
    state = servers.observe(ONE)
    assert state is not None
    assert not state.ready, "nobody has heard from it yet"
    eventually(lambda: is_ready(servers))
    load(servers)
    assert servers.pids() == [state.pid], "loading what runs starts nothing"
    assert servers.failure(ONE) is None
    servers.unload(ONE)
    servers.unload(ONE)
    assert servers.observe(ONE) is None
    assert servers.pids() == []


def test_an_old_reading_says_nothing_about_now(servers: ModelServers, monkeypatch: pytest.MonkeyPatch) -> None:
    load(servers)
    eventually(lambda: is_ready(servers))
    monkeypatch.setattr(model_servers, "STALE_AFTER_SECONDS", -1.0)
    state = servers.observe(ONE)
    assert state is not None
    assert not state.ready


def test_a_server_that_ended_by_itself_says_why(servers: ModelServers, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = [sys.executable, "-c", "import sys; print('ModuleNotFoundError: lightgbm'); sys.exit(3)"]
    monkeypatch.setattr(model_servers, "server_command", lambda *_, **__: dying)
    load(servers)
    eventually(lambda: servers.failure(ONE))
    assert servers.failure(ONE) == "the model server of late/1 ended with exit code 3: ModuleNotFoundError: lightgbm"
    assert not is_ready(servers)


def test_law_7_a_label_is_served_from_the_files_that_were_judged_or_not_at_all(servers: ModelServers, tmp_path: Path) -> None:
    load(servers)
    (tmp_path / ("2" * 64)).mkdir()
    with pytest.raises(ServiceRefused, match=r"runs with the files sha256:1+, asked for sha256:2+"):
        load(servers, ModelVersion("late", "1", "sha256:" + "2" * 64))


def test_what_was_not_fetched_and_what_is_unknown_is_refused(servers: ModelServers) -> None:
    with pytest.raises(ServiceRefused, match="fetch the version first"):
        load(servers, ModelVersion("late", "2", "sha256:" + "2" * 64))
    with pytest.raises(ServiceRefused, match="'bento', must be interlock or mlflow"):
        load(servers, server="bento")
    assert servers.pids() == []
