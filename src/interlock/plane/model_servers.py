"""The model server processes of the plane: one for each loaded model version, watched by their `/ping`."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from interlock.errors import ServiceRefused
from interlock.model.digest import artifact_digest
from interlock.model.plane import ServerState
from interlock.model.release import ModelVersion
from interlock.plane.process import ManagedProcess, choose_port
from interlock.serving.commands import server_command, server_environment

PING_TIMEOUT_SECONDS = 1.0  # a server that needs longer for an empty answer is not ready for live requests
STALE_AFTER_SECONDS = 5.0  # a reading older than this says nothing about now
STOP_GRACE_SECONDS = 8.0  # the model server finishes requests in flight within 5 s of SIGTERM


@dataclass(slots=True)
class _Loaded:
    version: ModelVersion
    port: int
    process: ManagedProcess
    ready: bool = False
    checked_at: float = 0.0


class ModelServers:
    """Starts, watches and stops model servers. A version's files are read from `models/<digest>/`, nowhere else."""

    def __init__(self, *, models_directory: Path, log_directory: Path) -> None:
        self._models = models_directory
        self._logs = log_directory
        self._loaded: dict[str, _Loaded] = {}
        self._lock = threading.Lock()
        self._client = httpx.Client(timeout=PING_TIMEOUT_SECONDS, trust_env=False)

    def load(self, version: ModelVersion, *, server: str, thread_count: int) -> None:
        """
        Start a server for this version unless it runs; returns before it is ready.

        Raises:
            ServiceRefused: its files were not fetched, other files are served under its label, or the kind of server is unknown.
        """
        if server not in ("interlock", "mlflow"):
            raise ServiceRefused(f"serving.server is {server!r}, must be interlock or mlflow")
        kind: Literal["interlock", "mlflow"] = "interlock" if server == "interlock" else "mlflow"
        directory = self._models / version.digest.removeprefix("sha256:")
        if not directory.is_dir():
            raise ServiceRefused(f"the files of {version.label} ({version.digest}) are not in {self._models}: fetch the version first")
        if (found := artifact_digest(directory)) != version.digest:
            raise ServiceRefused(f"the files of {version.label} in {directory} have {found}, judged was {version.digest}: fetch them again")
        with self._lock:
            if (loaded := self._loaded.get(version.label)) is not None:
                if loaded.version != version:
                    raise ServiceRefused(f"{version.label} runs with the files {loaded.version.digest}, asked for {version.digest}")
                return
            port = choose_port(0, name=version.label)
            command = server_command(kind, python=sys.executable, model_dir=directory, version=version, port=port, threads=thread_count)
            process = ManagedProcess(
                f"model-{version.name}-{version.version}",
                command,
                log_directory=self._logs,
                environment={**server_environment(kind), **_without_prefect()},
            )
            process.start()
            self._loaded[version.label] = _Loaded(version, port, process)

    def unload(self, version: ModelVersion) -> None:
        """Stop the server of this version and wait until it is gone. Idempotent."""
        with self._lock:
            loaded = self._loaded.pop(version.label, None)
        if loaded:
            loaded.process.stop(grace_seconds=STOP_GRACE_SECONDS)

    def observe(self, version: ModelVersion | None) -> ServerState | None:
        """What is known of the server of this version; None when none is loaded. `ready` is False when the last reading is stale."""
        with self._lock:
            loaded = self._loaded.get(version.label) if version else None
        if loaded is None:
            return None
        fresh = time.monotonic() - loaded.checked_at <= STALE_AFTER_SECONDS
        return ServerState(
            version=loaded.version,
            pid=loaded.process.pid,
            port=loaded.port,
            ready=loaded.ready and fresh and loaded.process.is_running,
            resident_mib=round(loaded.process.resident_mib(), 1),
            restart_count=loaded.process.restart_count,
        )

    def watch(self, *, may_restart: Callable[[ModelVersion], bool]) -> None:
        """Read every server's `/ping` once, and restart those that died and may be restarted."""
        with self._lock:
            current = list(self._loaded.values())
        for loaded in current:
            if may_restart(loaded.version):
                loaded.process.restart_if_dead()
            loaded.ready = loaded.process.is_running and self._answers(loaded.port)
            loaded.checked_at = time.monotonic()

    def failure(self, version: ModelVersion) -> str | None:
        """Why this version's server ended by itself, in its own last words; None while it runs."""
        with self._lock:
            loaded = self._loaded.get(version.label)
        if loaded is None or loaded.process.is_running:
            return None
        return f"the model server of {version.label} ended with exit code {loaded.process.exit_code}: {loaded.process.last_log_line()}"

    def pids(self) -> list[int]:
        """Process ids of all servers."""
        with self._lock:
            return [loaded.process.pid for loaded in self._loaded.values()]

    def stop_all(self) -> None:
        """Stop every server."""
        for loaded in list(self._loaded.values()):
            self.unload(loaded.version)
        self._client.close()

    def _answers(self, port: int) -> bool:
        try:
            return self._client.get(f"http://127.0.0.1:{port}/ping").status_code == 200
        except httpx.HTTPError:
            return False


def _without_prefect() -> dict[str, str]:
    return {key: "" for key in os.environ if key.startswith("PREFECT_")}
