"""Our model server against `mlflow models serve`: the same requests to both, side by side, and what only ours promises."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.serving.commands import server_command, server_environment
from tests.contract.model_server_cases import CASES, JSON_TYPE, ROW, Case, split
from tests.contract.model_server_rig import RunningServer, running, save_odd_model

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def odd_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_odd_model(tmp_path_factory.mktemp("artifact") / "odd")


@pytest.fixture(scope="module")
def servers(odd_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, RunningServer]]:
    scratch = tmp_path_factory.mktemp("logs")
    with running("interlock", odd_model, scratch=scratch) as ours, running("mlflow", odd_model, scratch=scratch) as theirs:
        ours.wait_ready()
        theirs.wait_ready()
        yield ours, theirs


@pytest.fixture(scope="module")
def ours(servers: tuple[RunningServer, RunningServer]) -> RunningServer:
    return servers[0]


def ask(server: RunningServer, case: Case) -> httpx.Response:
    return httpx.request(case.method, server.url + case.path, content=case.body, headers=case.headers, timeout=30)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_as_mlflow_does(servers: tuple[RunningServer, RunningServer], case: Case) -> None:
    mine, theirs = (ask(server, case) for server in servers)

    assert (mine.status_code, theirs.status_code) == (case.status, case.status), (mine.text[:300], theirs.text[:300])
    assert mine.headers["content-type"] == theirs.headers["content-type"]
    assert mine.headers.get("allow") == theirs.headers.get("allow")
    assert mine.headers["x-interlock-model"] == "odd/7"
    assert mine.headers["x-interlock-digest"] == servers[0].version.digest
    if theirs.status_code != 200 and theirs.headers["content-type"] == "application/json":
        wanted = theirs.json()
        wanted.pop("stack_trace", None)
        assert mine.json() == wanted
    elif case.same_body:  # granian hands over no header value that is not ASCII: the status is the same, the quotation is not
        assert mine.content == theirs.content
    assert b"Traceback" not in mine.content
    assert b"stack_trace" not in mine.content


def test_the_short_way_was_open(ours: RunningServer) -> None:
    """The server closes it when the input example comes out differently; then the test above would compare MLflow with MLflow."""
    assert "using only that" not in ours.log


def test_mlflow_does_send_stack_traces(servers: tuple[RunningServer, RunningServer]) -> None:
    """Otherwise the test above proves nothing about ours."""
    assert "stack_trace" in ask(servers[1], next(case for case in CASES if case.name == "the model raises")).json()


@pytest.mark.parametrize("how", ["announced", "in chunks"])
def test_too_large_a_body_is_heard_out_and_refused(ours: RunningServer, how: str) -> None:
    too_much = b"x" * (17 * 1024 * 1024)
    content: Any = too_much if how == "announced" else (too_much[at : at + 65536] for at in range(0, len(too_much), 65536))
    answer = httpx.post(f"{ours.url}/invocations", content=content, headers=JSON_TYPE, timeout=30)
    assert (answer.status_code, answer.json()["error_code"]) == (413, "BAD_REQUEST")


def test_a_body_in_chunks_is_read(ours: RunningServer) -> None:
    body = split(ROW)
    answer = httpx.post(f"{ours.url}/invocations", content=iter([body[:20], body[20:]]), headers=JSON_TYPE)
    assert answer.json() == {"predictions": [{"scaled": 3.0, "country": "de", "seen": 1}]}


def test_one_process_holds_everything(ours: RunningServer) -> None:
    process = psutil.Process(ours.process.pid)
    assert process.children(recursive=True) == []
    assert "interlock.serving.model_server" in process.cmdline()


def test_connections_are_kept(ours: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", ours.port)) as connection:
        for _ in range(3):
            connection.sendall(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_idle_connections_do_not_keep_others_out(ours: RunningServer) -> None:
    """Granian's default gives no answer to the 129th connection while 128 are open, even if nothing happens on them."""
    idle = [socket.create_connection(("127.0.0.1", ours.port)) for _ in range(300)]
    try:
        for connection in idle:
            connection.sendall(b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n")
        assert httpx.get(f"{ours.url}/ping", timeout=5).status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_probes_answer_while_every_thread_predicts(ours: RunningServer) -> None:
    slow = [threading.Thread(target=ask, args=(ours, Case("slow", split([16.0, 1, "de", True])))) for _ in range(3)]
    for thread in slow:
        thread.start()
    deadline = time.monotonic() + 20
    while 'interlock_model_inflight{model="odd",version="7"} 3.0' not in httpx.get(f"{ours.url}/metrics").text:
        assert time.monotonic() < deadline, "the three predictions never ran at once"
    assert httpx.get(f"{ours.url}/ping").status_code == 200
    assert all(thread.is_alive() for thread in slow)
    for thread in slow:
        thread.join()


def test_metrics_count_requests_by_status(ours: RunningServer) -> None:
    def counted(name: str) -> float:
        lines = httpx.get(f"{ours.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    good = 'interlock_model_requests_total{code="200",model="odd",version="7"}'
    bad = 'interlock_model_requests_total{code="400",model="odd",version="7"}'
    seconds = 'interlock_model_request_seconds_count{model="odd",version="7"}'
    before = counted(good), counted(bad), counted(seconds)
    for body in (split(ROW), split(ROW), b"{}"):
        ask(ours, Case("counted", body))
    assert (counted(good) - before[0], counted(bad) - before[1], counted(seconds) - before[2]) == (2, 1, 3)
    assert counted(f'interlock_model_info{{digest="{ours.version.digest}",model="odd",version="7"}}') == 1
    assert 30e6 < counted("process_resident_memory_bytes") < 2e9
    assert counted('interlock_model_inflight{model="odd",version="7"}') == 0


def test_a_failed_prediction_is_logged_in_one_line(ours: RunningServer) -> None:
    ask(ours, Case("raises", split([13.0, 1, "de", True])))
    logged = ours.log
    assert "prediction answered 400: ValueError: thirteen is unlucky (odd_model.py:" in logged
    assert "Traceback" not in logged


def test_a_taken_port_is_refused(ours: RunningServer, odd_model: Path) -> None:
    """SO_REUSEPORT would let two versions share one port in silence."""
    command = server_command("interlock", python=sys.executable, model_dir=odd_model, version=ours.version, port=ours.port, threads=1)
    ended = subprocess.run(command, env={**os.environ, **server_environment("interlock")}, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 4
    assert f"127.0.0.1:{ours.port} cannot be bound" in ended.stderr


def test_sigterm_lets_requests_in_flight_finish(odd_model: Path, tmp_path: Path) -> None:
    with running("interlock", odd_model, scratch=tmp_path) as server:
        server.wait_ready()
        answers: list[httpx.Response] = []
        client = threading.Thread(target=lambda: answers.append(ask(server, Case("slow", split([16.0, 1, "de", True])))))
        client.start()
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        client.join()
        assert [answer.status_code for answer in answers] == [200]


def test_sigterm_ends_a_hung_prediction(odd_model: Path, tmp_path: Path) -> None:
    with running("interlock", odd_model, scratch=tmp_path) as server:
        server.wait_ready()
        connection = socket.create_connection(("127.0.0.1", server.port))
        body = split([17.0, 1, "de", True])
        head = f"POST /invocations HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 1
        assert "1 requests in flight were cut off" in server.log
        connection.close()


def test_loading_leaves_the_artifact_as_it_was(servers: tuple[RunningServer, RunningServer], odd_model: Path) -> None:
    """Neither server may write into the artifact (byte code of its modules, say): the next start would find another digest."""
    assert artifact_digest(odd_model) == servers[0].version.digest


def refused(directory: Path, digest: str, **environment: str) -> subprocess.CompletedProcess[str]:
    version = ModelVersion("odd", "7", digest)
    command = server_command("interlock", python=sys.executable, model_dir=directory, version=version, port=1, threads=1)
    command[command.index("--port") + 1] = "0"
    return subprocess.run(
        command, env={**os.environ, **server_environment("interlock"), **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("odd_model.py", b"import warnings; warnings.warn('old'); raise RuntimeError('no\\nmodel')", "does not load: MlflowException: "),
        ("MLmodel", None, "does not load: "),
        ("MLmodel", b"flavors: {}", "does not load: "),
        ("serving_input_example.json", b'{"dataframe_split": {"columns": ["amount"], "data": [[1]]}}', "its own input example with 400"),
    ],
    ids=["model raises at load", "MLmodel missing", "no pyfunc flavor", "example refused"],
)
def test_an_artifact_that_cannot_be_served(odd_model: Path, tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(odd_model, broken)
    (broken / name).unlink() if content is None else (broken / name).write_bytes(content)
    ended = refused(broken, artifact_digest(broken))
    assert ended.returncode == 3
    assert ended.stderr.startswith("odd/7 is not served: ")
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_another_artifact_than_the_judged_one_is_refused_before_it_is_loaded(odd_model: Path) -> None:
    ended = refused(odd_model, "sha256:" + "0" * 64, PYTHONPROFILEIMPORTTIME="1")
    assert ended.returncode == 3
    assert f"has the digest {artifact_digest(odd_model)}, sha256:{'0' * 64} was judged" in ended.stderr
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}
    assert "interlock.serving" in imported
    assert "mlflow" not in imported


def test_a_version_fetched_through_any_uri_has_one_digest_and_is_served(
    odd_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's downloader adds a file that differs from URI to URI; the digest does not see it."""
    import mlflow

    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    client = mlflow.MlflowClient(tracking)
    client.create_registered_model("odd")
    client.create_model_version("odd", source=odd_model.as_uri())
    client.set_registered_model_alias("odd", "champion", "1")
    for name, uri in (("number", "models:/odd/1"), ("alias", "models:/odd@champion")):
        (tmp_path / name).mkdir()
        fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path / name), tracking_uri=tracking))
        assert (fetched / "registered_model_meta").exists()
        assert artifact_digest(fetched) == artifact_digest(odd_model)

    with running("interlock", odd_model, scratch=tmp_path, source="models:/odd/1") as server:
        server.wait_ready()
        assert ask(server, Case("split", split(ROW))).status_code == 200
        assert "models:/" not in server.log
