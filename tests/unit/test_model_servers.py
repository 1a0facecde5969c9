"""The model servers of the plane: started from pinned files only, watched by their own answers."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlock.errors import ServiceRefused, ServiceUnavailable
from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.plane import model_servers
from interlock.plane.leftovers import Leftovers, ProcessNotes
from interlock.plane.model_servers import ModelServers

SERVER = """
import http.server, sys
class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ping).serve_forever()
"""

SERVE = [sys.executable, "-c", SERVER]


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
    servers.load(servers.check(version, server=server), thread_count=1)


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
    assert [note.pid for note in servers.notes()] == [state.pid], "loading what runs starts nothing"
    assert servers.failure(one) is None
    servers.unload(one)
    servers.unload(one)
    assert servers.observe(one) is None
    assert servers.notes() == []


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
    assert servers.notes() == []


def watch(servers: ModelServers) -> None:
    servers.watch(may_restart=lambda _: True)


def pid_of(servers: ModelServers, version: ModelVersion) -> int:
    state = servers.observe(version)
    assert state is not None
    return state.pid


def kill(servers: ModelServers, version: ModelVersion) -> None:
    os.kill(pid_of(servers, version), signal.SIGKILL)
    eventually(lambda: servers.failure(version))


def comes_back(servers: ModelServers, version: ModelVersion) -> bool:
    watch(servers)
    state = servers.observe(version)
    return state is not None and state.ready


def test_a_dead_incumbent_is_started_again_and_a_dead_candidate_is_not(servers: ModelServers, one: ModelVersion) -> None:
    load(servers, one)
    eventually(lambda: is_ready(servers, one))
    before = pid_of(servers, one)
    kill(servers, one)
    assert not is_ready(servers, one)
    assert pid_of(servers, one) == before
    eventually(lambda: comes_back(servers, one))
    assert pid_of(servers, one) != before


@pytest.mark.parametrize("kind", ["interlock", "mlflow"])
def test_law_7_a_dead_incumbent_is_not_started_again_from_other_files(
    servers: ModelServers, one: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    load(servers, one, server=kind)
    eventually(lambda: is_ready(servers, one))
    code = tmp_path / one.digest.removeprefix("sha256:") / "loader.py"
    code.write_text("import os")
    before = pid_of(servers, one)
    kill(servers, one)
    reads: list[Path] = []

    def read(directory: Path) -> str:
        reads.append(directory)
        return artifact_digest(directory)

    monkeypatch.setattr(model_servers, "artifact_digest", read)
    for _ in range(5):
        watch(servers)
    assert len(reads) == 1, "reading all files again and again would cost more than the restart"
    state = servers.observe(one)
    assert state is not None
    assert (state.pid, state.ready, state.restart_count) == (before, False, 0)
    assert "not started again: the files of late/1" in str(servers.failure(one))
    assert one.digest in str(servers.failure(one))
    code.unlink()
    eventually(lambda: comes_back(servers, one))
    assert servers.failure(one) is None


def test_a_hung_incumbent_is_killed_and_started_again(servers: ModelServers, one: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_servers, "HUNG_AFTER_SECONDS", 0.3)
    load(servers, one)
    eventually(lambda: is_ready(servers, one))
    before = pid_of(servers, one)
    os.kill(before, signal.SIGSTOP)
    for _ in range(2):
        assert not is_ready(servers, one), "a candidate is never started again"
    assert pid_of(servers, one) == before
    eventually(lambda: comes_back(servers, one))
    assert pid_of(servers, one) != before


def test_who_has_a_spare_that_answers_is_given_up_sooner(servers: ModelServers, one: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_servers, "HUNG_BESIDE_SPARE_SECONDS", 0.3)
    monkeypatch.setattr(model_servers, "HUNG_AFTER_SECONDS", 3600.0)
    load(servers, one)
    servers.load(servers.check(one, server="interlock"), thread_count=1, is_spare=True)
    eventually(lambda: is_ready(servers, one))
    before = pid_of(servers, one)
    os.kill(before, signal.SIGSTOP)

    def is_given_up() -> bool:
        watch(servers)
        return pid_of(servers, one) != before

    eventually(is_given_up)


def test_an_incumbent_that_is_still_starting_is_not_hung(servers: ModelServers, one: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_servers, "HUNG_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(model_servers, "server_command", lambda *_, **__: [sys.executable, "-c", "import time; time.sleep(600)"])
    load(servers, one)
    before = pid_of(servers, one)
    for _ in range(5):
        watch(servers)
        time.sleep(0.05)
    assert pid_of(servers, one) == before


def test_every_start_is_told_with_its_process_known(one: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_servers, "server_command", lambda *_, port, **__: [sys.executable, "-c", SERVER, str(port)])
    told: list[list[int]] = []
    telling = ModelServers(
        models_directory=tmp_path, log_directory=tmp_path, on_started=lambda: told.append([note.pid for note in telling.notes()])
    )
    try:
        load(telling, one)
        assert told == [[pid_of(telling, one)]]
        kill(telling, one)
        eventually(lambda: comes_back(telling, one))
        assert told[1:] == [[pid_of(telling, one)]]
    finally:
        telling.stop_all()


def test_what_is_being_stopped_is_not_started_again_and_afterwards_nothing_is(
    servers: ModelServers, one: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health thread still has its turn while the stack stops: a server it started then would outlive the supervisor."""
    load(servers, one)
    eventually(lambda: is_ready(servers, one))
    kill(servers, one)
    reading, may_go_on = threading.Event(), threading.Event()

    def answers(port: int) -> bool:
        reading.set()
        return may_go_on.wait(30) and False

    monkeypatch.setattr(servers, "_read", lambda loaded: answers(loaded.process.port))
    health = threading.Thread(target=watch, args=(servers,))
    health.start()
    assert reading.wait(30)
    loaded = servers._loaded["model-late-1"]
    servers.stop_all()
    may_go_on.set()
    health.join(30)
    assert not loaded.process.is_running
    with pytest.raises(ServiceUnavailable, match="stopping"):
        load(servers, one)


def next_servers(servers: ModelServers, tmp_path: Path) -> ModelServers:
    """Those of the next supervisor, after this one was killed."""
    ProcessNotes(tmp_path / "processes.json", read=servers.notes).note()
    left = Leftovers(tmp_path / "processes.json", log_directory=tmp_path)
    return ModelServers(models_directory=tmp_path, log_directory=tmp_path, leftovers=left)


def test_a_spare_is_a_second_server_with_a_port_of_its_own_and_goes_with_the_first(servers: ModelServers, one: ModelVersion) -> None:
    load(servers, one)
    assert servers.observe(one, is_spare=True) is None
    servers.load(servers.check(one, server="interlock"), thread_count=1, is_spare=True)
    primary, spare = servers.observe(one), servers.observe(one, is_spare=True)
    assert primary is not None
    assert spare is not None
    assert (primary.pid != spare.pid, primary.port != spare.port) == (True, True)
    servers.unload(one)
    assert (servers.observe(one), servers.observe(one, is_spare=True), servers.notes()) == (None, None, [])


def test_a_server_that_a_killed_supervisor_left_is_taken_over_and_restarted_where_it_was(
    servers: ModelServers, one: ModelVersion, tmp_path: Path
) -> None:
    load(servers, one)
    eventually(lambda: is_ready(servers, one))
    before = servers.observe(one)
    again = next_servers(servers, tmp_path)
    assert again.take_over(one, server="interlock", thread_count=1)
    assert not again.take_over(one, server="interlock", thread_count=1, is_spare=True), "there was none"
    taken = again.observe(one)
    assert taken is not None
    assert taken.ready, "Envoy is told of it at once: it must not be taken for one that does not answer"
    assert taken == before
    kill(again, one)
    eventually(lambda: comes_back(again, one))
    after = again.observe(one)
    assert before is not None
    assert after is not None
    assert (after.port, after.pid != before.pid) == (before.port, True)
    again.stop_all()


def test_other_files_under_the_same_label_are_not_taken_over(
    servers: ModelServers, one: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_servers, "server_command", lambda *_, model_dir, port, **__: [*SERVE, str(port), str(model_dir)])
    load(servers, one)
    other = ModelVersion("late", "1", "sha256:" + "2" * 64)
    assert not next_servers(servers, tmp_path).take_over(other, server="interlock", thread_count=1)
    assert next_servers(servers, tmp_path).take_over(one, server="interlock", thread_count=1)
