"""Builds small MLflow artifacts and starts model servers for the tests and the benchmark of the model server."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import yaml

from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.serving.commands import ServerKind, server_command, server_environment

HERE = Path(__file__).parent
# mlflow's server takes 11 s alone on this machine, 24 s on a busy one.
START_SECONDS = 120.0


def save_odd_model(directory: Path) -> Path:
    """The artifact of `odd_model.py`: four columns of different types, a parameter, an input example."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    frame = pd.DataFrame({"amount": [1.5, 2.0], "count": [1, 2], "country": ["de", "fr"], "vip": [True, False]})
    answer = pd.DataFrame({"scaled": [3.0], "country": ["de"], "seen": [1]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            directory,
            python_model=str(HERE / "odd_model.py"),
            signature=infer_signature(frame, answer, params={"factor": 2.0}),
            input_example=(frame.head(1), {"factor": 3.0}),
            pip_requirements=["mlflow"],
        )
    _add_code(directory)
    return directory


def _add_code(directory: Path) -> None:
    """A module that came with the artifact (MLflow's `code_paths`) and is imported when the model loads."""
    (directory / "code").mkdir()
    (directory / "code" / "odd_words.py").write_text("WORD = 'odd'\n")
    with (directory / "odd_model.py").open("a") as model:
        model.write("\nimport odd_words\n")
    description = yaml.safe_load((directory / "MLmodel").read_text())
    description["flavors"]["python_function"]["code"] = "code"
    (directory / "MLmodel").write_text(yaml.safe_dump(description))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningServer:
    """A started model server. `process` is what the supervisor would know."""

    kind: ServerKind
    process: subprocess.Popen[bytes]
    port: int
    version: ModelVersion
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_ready(self) -> None:
        """Returns once /ping answers 200."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"{self.kind} server ended with {self.process.returncode}: {self.log}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/ping", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{self.kind} server was not ready within {START_SECONDS} s: {self.log}")


@contextlib.contextmanager
def running(kind: ServerKind, model_dir: Path, *, scratch: Path, threads: int = 2, source: str | None = None) -> Iterator[RunningServer]:
    """Starts a server as the plane does, through `server_command`; not yet ready. `source` replaces the directory."""
    version = ModelVersion("odd", "7", artifact_digest(model_dir))
    port = free_port()
    log_file = scratch / f"{kind}-{port}.log"
    command = server_command(kind, python=sys.executable, model_dir=model_dir, version=version, port=port, threads=threads)
    command = [source if source and part == str(model_dir) else part for part in command]
    with log_file.open("wb") as log:
        process = _start(command, server_environment(kind), log)
    try:
        yield RunningServer(kind, process, port, version, log_file)
    finally:
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def _start(command: list[str], additions: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # One hash seed for both: messages of mlflow print sets.
    # Not the developer's switch against byte code: that the servers keep it out of the artifact is theirs to show.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(command, env={**inherited, **additions, "PYTHONHASHSEED": "0"}, stdout=log, stderr=subprocess.STDOUT)
