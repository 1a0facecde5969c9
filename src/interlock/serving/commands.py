"""
How to start a model server: the argv and the environment additions, for ours and for MLflow's.

The traffic plane treats both alike: the same protocol, one port on the loopback, stopped with SIGTERM. MLflow's is two processes (the pid
is its launcher's, the model is in a child that dies with it), checks no digest and stamps no answer.
"""

import os
import sys
from pathlib import Path
from typing import Literal

from interlock.model.release import ModelVersion

ServerKind = Literal["interlock", "mlflow"]

HOST = "127.0.0.1"


def server_command(kind: ServerKind, *, python: str, model_dir: Path, version: ModelVersion, port: int, threads: int) -> list[str]:
    """The argv. MLflow's server has no such thing as `threads`: it takes as many as asyncio gives it."""
    if kind == "mlflow":
        options = ["--model-uri", str(model_dir), "--host", HOST, "--port", str(port), "--env-manager", "local", "--workers", "1"]
        return [python, "-m", "mlflow", "models", "serve", *options]
    identity = ["--name", version.name, "--version", version.version, "--digest", version.digest]
    where = ["--model", str(model_dir), "--host", HOST, "--port", str(port), "--threads", str(threads)]
    return [python, "-m", "interlock.serving.model_server", *identity, *where]


def server_environment(kind: ServerKind, *, python: str = sys.executable) -> dict[str, str]:
    """What to add to the environment of the process."""
    additions = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1"}
    if kind == "mlflow":
        # Its launcher starts `uvicorn` by name: the one beside the same interpreter has to come first.
        additions["PATH"] = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", os.defpath)])
        # Importing code that came with the artifact must not write into it: the digest is over every file. Ours sees to that itself.
        additions["PYTHONDONTWRITEBYTECODE"] = "1"
    return additions
