"""The model server processes of the plane: one for each loaded model version, watched by their `/ping`."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from interlock.errors import ArtifactError, ServiceRefused, ServiceUnavailable
from interlock.model.digest import artifact_digest
from interlock.model.plane import ServerState
from interlock.model.release import ModelVersion
from interlock.plane.process import ManagedProcess, choose_port
from interlock.serving.commands import ServerKind, server_command, server_environment

PING_TIMEOUT_SECONDS = 1.0  # a server that needs longer for an empty answer is not ready for live requests
STALE_AFTER_SECONDS = 5.0  # a reading older than this says nothing about now
STOP_GRACE_SECONDS = 8.0  # the model server finishes requests in flight within 5 s of SIGTERM
HUNG_AFTER_SECONDS = 15.0  # silent for so long, though it was ready before: it will not come back by itself
HUNG_GRACE_SECONDS = 2.0  # whoever has not answered for 15 s has nothing in flight to finish


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """Files that were read and are those that were judged. Made by `ModelServers.check` alone."""

    version: ModelVersion
    directory: Path
    kind: ServerKind


@dataclass(slots=True)
class _Loaded:
    files: CheckedFiles
    port: int
    process: ManagedProcess
    ready: bool = False
    checked_at: float = 0.0
    was_ready: bool = False  # since it was started last
    silent_since: float | None = None
    refusal: str = ""
    is_unloaded: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)  # starting and stopping: one at a time


class ModelServers:
    """
    Starts, watches and stops model servers. A version's files are read from `models/<digest>/`, nowhere else.

    `on_started` is called after every start of a process, from whatever thread started it.
    """

    def __init__(self, *, models_directory: Path, log_directory: Path, on_started: Callable[[], None] = lambda: None) -> None:
        self._models = models_directory
        self._logs = log_directory
        self._on_started = on_started
        self._loaded: dict[str, _Loaded] = {}
        self._is_closed = False
        self._lock = threading.Lock()
        self._client = httpx.Client(timeout=PING_TIMEOUT_SECONDS, trust_env=False)

    def check(self, version: ModelVersion, *, server: str) -> CheckedFiles:
        """
        Read all the files of this version, which takes seconds for large ones.

        Raises:
            ServiceRefused: they were not fetched, are not those that were judged, or the kind of server is unknown.
            ArtifactError: they cannot be read.
        """
        if server not in ("interlock", "mlflow"):
            raise ServiceRefused(f"serving.server is {server!r}, must be interlock or mlflow")
        kind: ServerKind = "interlock" if server == "interlock" else "mlflow"
        directory = self._models / version.digest.removeprefix("sha256:")
        if not directory.is_dir():
            raise ServiceRefused(f"the files of {version.label} ({version.digest}) are not in {self._models}: fetch the version first")
        if (found := artifact_digest(directory)) != version.digest:
            raise ServiceRefused(f"the files of {version.label} in {directory} have {found}, judged was {version.digest}: fetch them again")
        return CheckedFiles(version, directory, kind)

    def load(self, files: CheckedFiles, *, thread_count: int) -> None:
        """
        Start a server for these files unless it runs; returns before it is ready.

        Raises:
            ServiceRefused: other files are served under the same label.
            ServiceUnavailable: all servers have been stopped for good.
        """
        version = files.version
        with self._lock:
            if self._is_closed:
                raise ServiceUnavailable("the plane is stopping: no model server is started any more")
            if (loaded := self._loaded.get(version.label)) is not None:
                if loaded.files.version != version:
                    raise ServiceRefused(f"{version.label} runs with the files {loaded.files.version.digest}, asked for {version.digest}")
                return
            port = choose_port(0, name=version.label)
            command = server_command(
                files.kind, python=sys.executable, model_dir=files.directory, version=version, port=port, threads=thread_count
            )
            process = ManagedProcess(
                f"model-{version.name}-{version.version}",
                command,
                log_directory=self._logs,
                environment={**server_environment(files.kind), **_without_prefect()},
            )
            process.start()
            self._loaded[version.label] = _Loaded(files, port, process)
        self._on_started()

    def unload(self, version: ModelVersion) -> None:
        """Stop the server of this version and wait until it is gone. Idempotent."""
        with self._lock:
            if loaded := self._loaded.pop(version.label, None):
                loaded.is_unloaded = True
        if loaded:
            with loaded.turn:
                loaded.process.stop(grace_seconds=STOP_GRACE_SECONDS)

    def observe(self, version: ModelVersion | None) -> ServerState | None:
        """What is known of the server of this version; None when none is loaded. `ready` is False when the last reading is stale."""
        with self._lock:
            loaded = self._loaded.get(version.label) if version else None
        if loaded is None:
            return None
        fresh = time.monotonic() - loaded.checked_at <= STALE_AFTER_SECONDS
        return ServerState(
            version=loaded.files.version,
            pid=loaded.process.pid,
            port=loaded.port,
            ready=loaded.ready and fresh and loaded.process.is_running,
            resident_mib=round(loaded.process.resident_mib(), 1),
            restart_count=loaded.process.restart_count,
        )

    def watch(self, *, may_restart: Callable[[ModelVersion], bool]) -> None:
        """Read every server's `/ping` once, then restart those that died or hang, and may be restarted."""
        with self._lock:
            current = list(self._loaded.values())
        for loaded in current:
            self._read(loaded)
        for loaded in current:  # afterwards: a restart reads all files again, and the other readings must not grow old meanwhile
            if may_restart(loaded.files.version) and self._revive(loaded):
                self._on_started()

    def failure(self, version: ModelVersion) -> str | None:
        """Why this version's server ended, in its own last words, and why it is not started again; None while it runs."""
        with self._lock:
            loaded = self._loaded.get(version.label)
        if loaded is None or loaded.process.is_running:
            return None
        ended = f"the model server of {version.label} ended with exit code {loaded.process.exit_code}: {loaded.process.last_log_line()}"
        return f"{ended}; it is not started again: {loaded.refusal}" if loaded.refusal else ended

    def pids(self) -> list[int]:
        """Process ids of all servers."""
        with self._lock:
            return [loaded.process.pid for loaded in self._loaded.values()]

    def stop_all(self) -> None:
        """Stop every server; none is started any more."""
        with self._lock:
            self._is_closed = True
            current = list(self._loaded.values())
        for loaded in current:
            self.unload(loaded.files.version)
        self._client.close()

    def _read(self, loaded: _Loaded) -> None:
        loaded.ready = loaded.process.is_running and self._answers(loaded.port)
        loaded.checked_at = time.monotonic()
        if loaded.ready:
            loaded.was_ready, loaded.silent_since = True, None
        elif loaded.silent_since is None:
            loaded.silent_since = loaded.checked_at

    def _revive(self, loaded: _Loaded) -> bool:
        """Start it again if it needs that; True when that was done. Its files are read first: they may have changed since."""
        with loaded.turn:
            if loaded.is_unloaded:
                return False
            if loaded.process.is_running and _is_hung(loaded):
                loaded.process.stop(grace_seconds=HUNG_GRACE_SECONDS)
            if not loaded.process.restart_if_dead(is_allowed=lambda: self._is_unchanged(loaded)):
                return False
            loaded.was_ready, loaded.silent_since = False, None
            return True

    def _is_unchanged(self, loaded: _Loaded) -> bool:
        try:
            self.check(loaded.files.version, server=loaded.files.kind)
        except (ServiceRefused, ArtifactError) as error:
            loaded.refusal = str(error)
            return False
        loaded.refusal = ""
        return True

    def _answers(self, port: int) -> bool:
        try:
            return self._client.get(f"http://127.0.0.1:{port}/ping").status_code == 200
        except (httpx.HTTPError, RuntimeError):  # RuntimeError: the client was closed, because the plane stops
            return False


def _is_hung(loaded: _Loaded) -> bool:
    silent_since = loaded.silent_since
    return loaded.was_ready and silent_since is not None and time.monotonic() - silent_since > HUNG_AFTER_SECONDS


def _without_prefect() -> dict[str, str]:
    return {key: "" for key in os.environ if key.startswith("PREFECT_")}
