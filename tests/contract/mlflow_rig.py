"""A real MLflow server for contract tests: SQLite and artifacts in a directory of the test, stopped with everything it started."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from interlock.plane.process import ManagedProcess, choose_port

START_SECONDS = 180.0  # 10 s alone on this machine


@contextlib.contextmanager
def running_mlflow(root: Path) -> Iterator[str]:
    """The server's address, once it answers."""
    port = choose_port(0, name="mlflow")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", "--artifacts-destination", str(root / "artifacts")),
    ]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = ManagedProcess("mlflow", command, log_directory=root, environment=environment)
    process.start()
    try:
        _await(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop(grace_seconds=5)


def _await(process: ManagedProcess, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.exit_code is None, f"mlflow ended: {process.last_log_line()}"
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"mlflow was not ready within {START_SECONDS:g} s: {process.last_log_line()}")


@contextlib.contextmanager
def quiet_mlflow(url: str) -> Iterator[None]:
    """The mlflow package of this process, pointed at the server, without a sound and without retries that last minutes."""
    import mlflow

    settings = {"DO_NOT_TRACK": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
