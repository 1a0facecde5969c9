"""The model servers of the plane: started from pinned files only, watched by their own answers."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlock.errors import ServiceRefused
from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.plane import model_servers
from interlock.plane.model_servers import ModelServers

SERVER = """
import http.server, sys
class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ping).serve_forever()
"""


def pinned(models: Path, content: str) -> ModelVersion:
    """A version whose files lie where a fetch puts them."""
    (models / "new").mkdir()
    (models / "new" / "MLmodel").write_text(content)
    digest = artifact_digest(models / "new")
    (models / "new").rename(models / digest.removeprefix("sha256:"))
    return ModelVersion("late", "1", digest)


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServers]:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(model_servers, "server_command", lambda *_, port, **__: [sys.executable, "-c", SERVER, str(port)])
    servers = ModelServers(models_directory=tmp_path, log_directory=tmp_path)
    yield servers
    servers.stop_all()


@pytest.fixture
def one(tmp_path: Path) -> ModelVersion:
    return pinned(tmp_path, "one")


def load(servers: ModelServers, version: ModelVersion, server: str = "interlock") -> None:
    servers.load(version, server=server, thread_count=1)


def is_ready(servers: ModelServers, version: ModelVersion) -> bool:
    servers.watch(may_restart=lambda _: False)
    state = servers.observe(version)
    return state is not None and state.ready


def test_a_server_is_ready_when_it_answers_and_gone_when_it_was_stopped(servers: ModelServers, one: ModelVersion) -> None:
    load(servers, one)
    state = servers.observe(one)
    assert state is not None
    assert not state.ready, "nobody has heard from it yet"
    eventually(lambda: is_ready(servers, one))
    load(servers, one)
    assert servers.pids() == [state.pid], "loading what runs starts nothing"
    assert servers.failure(one) is None
    servers.unload(one)
    servers.unload(one)
    assert servers.observe(one) is None
    assert servers.pids() == []


def test_an_old_reading_says_nothing_about_now(servers: ModelServers, one: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    load(servers, one)
    eventually(lambda: is_ready(servers, one))
    monkeypatch.setattr(model_servers, "STALE_AFTER_SECONDS", -1.0)
    state = servers.observe(one)
    assert state is not None
    assert not state.ready


def test_a_server_that_ended_by_itself_says_why(servers: ModelServers, one: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = [sys.executable, "-c", "import sys; print('ModuleNotFoundError: lightgbm'); sys.exit(3)"]
    monkeypatch.setattr(model_servers, "server_command", lambda *_, **__: dying)
    load(servers, one)
    eventually(lambda: servers.failure(one))
    assert servers.failure(one) == "the model server of late/1 ended with exit code 3: ModuleNotFoundError: lightgbm"
    assert not is_ready(servers, one)


def test_law_7_a_label_is_served_from_the_files_that_were_judged_or_not_at_all(
    servers: ModelServers, one: ModelVersion, tmp_path: Path
) -> None:
    load(servers, one)
    with pytest.raises(ServiceRefused, match="runs with the files"):
        load(servers, pinned(tmp_path, "other files under the same label"))
    servers.unload(one)
    (tmp_path / one.digest.removeprefix("sha256:") / "extra.py").write_text("import os")
    with pytest.raises(ServiceRefused, match="fetch them again"):
        load(servers, one)


def test_what_was_not_fetched_and_what_is_unknown_is_refused(servers: ModelServers, one: ModelVersion) -> None:
    with pytest.raises(ServiceRefused, match="fetch the version first"):
        load(servers, ModelVersion("late", "2", "sha256:" + "2" * 64))
    with pytest.raises(ServiceRefused, match="'bento', must be interlock or mlflow"):
        load(servers, one, server="bento")
    assert servers.pids() == []
