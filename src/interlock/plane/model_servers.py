"""The model server processes of the plane: one for each loaded model version, and a spare where asked, watched by their `/ping`."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from interlock.errors import ArtifactError, ServiceRefused, ServiceUnavailable
from interlock.model.digest import artifact_digest
from interlock.model.plane import ServerState
from interlock.model.release import ModelVersion
from interlock.plane.leftovers import Leftovers
from interlock.plane.limits import lift_memory, limit_memory, make_equal
from interlock.plane.look import CannotLook, answer_of
from interlock.plane.process import ManagedProcess, Note, choose_port
from interlock.serving.commands import ServerKind, server_command, server_environment

PING_TIMEOUT_SECONDS = 1.0  # a server that needs longer for an empty answer is not ready for live requests
STALE_AFTER_SECONDS = 5.0  # a reading older than this says nothing about now
STOP_GRACE_SECONDS = 8.0  # the model server finishes requests in flight within 5 s of SIGTERM
HUNG_AFTER_SECONDS = 15.0  # silent for so long, though it was ready before: it will not come back by itself
# The same where its spare answers. Envoy has left it alone for 4 s by then, so it is not merely busy; who waits for it waits in vain.
HUNG_BESIDE_SPARE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """Files that were read and are those that were judged. Made by `ModelServers.check` alone."""

    version: ModelVersion
    directory: Path
    kind: ServerKind


@dataclass(slots=True)
class _Loaded:
    files: CheckedFiles
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

    A spare is a second server of the same version, for when the first one ends. `on_started` is called after every start of a process,
    from whatever thread started it. `leftovers`: what a killed supervisor left running, to be taken over.
    """

    def __init__(
        self,
        *,
        models_directory: Path,
        log_directory: Path,
        on_started: Callable[[], None] = lambda: None,
        leftovers: Leftovers | None = None,
    ) -> None:
        self._models = models_directory
        self._logs = log_directory
        self._on_started = on_started
        self._leftovers = leftovers
        self._loaded: dict[str, _Loaded] = {}
        self._is_closed = False
        self._lock = threading.Lock()

    def check(self, version: ModelVersion, *, server: str) -> CheckedFiles:
        """
        Read all the files of this version, which takes seconds for large ones.

        Raises:
            ServiceRefused: they were not fetched, are not those that were judged, or the kind of server is unknown.
            ArtifactError: they cannot be read.
        """
        kind, directory = _kind(server), self._directory(version)
        if not directory.is_dir():
            raise ServiceRefused(f"the files of {version.label} ({version.digest}) are not in {self._models}: fetch the version first")
        if (found := artifact_digest(directory)) != version.digest:
            raise ServiceRefused(f"the files of {version.label} in {directory} have {found}, judged was {version.digest}: fetch them again")
        return CheckedFiles(version, directory, kind)

    def load(self, files: CheckedFiles, *, thread_count: int, is_spare: bool = False, memory_limit_mib: float | None = None) -> None:
        """
        Start a server for these files unless it runs, within this much memory; returns before it is ready.

        Raises:
            ServiceRefused: other files are served under the same label.
            ServiceUnavailable: all servers have been stopped for good.
        """
        version, name = files.version, _name(files.version, is_spare=is_spare)
        with self._lock:
            if self._is_closed:
                raise ServiceUnavailable("the plane is stopping: no model server is started any more")
            if (loaded := self._loaded.get(name)) is not None:
                if loaded.files.version != version:
                    raise ServiceRefused(f"{version.label} runs with the files {loaded.files.version.digest}, asked for {version.digest}")
                return
            process = self._process(name, files, thread_count, port=choose_port(0, name=version.label))
            process.start()
            if memory_limit_mib is not None:
                limit_memory(process.pid, memory_limit_mib)
            self._loaded[name] = _Loaded(files, process)
        self._on_started()

    def set_free(self, version: ModelVersion) -> None:
        """This version's servers may have what the machine has: it is the incumbent. What cannot be lifted stays, and nothing is raised."""
        for is_spare in (False, True):
            if state := self.observe(version, is_spare=is_spare):
                with contextlib.suppress(OSError):
                    lift_memory(state.pid)
                    make_equal(state.pid)

    def take_over(self, version: ModelVersion, *, server: str, thread_count: int, is_spare: bool = False) -> bool:
        """Go on with the server of this version that a killed supervisor left running; False when there is none that was started alike."""
        name = _name(version, is_spare=is_spare)
        if self._leftovers is None or (note := self._leftovers.find(name)) is None:
            return False
        files = CheckedFiles(version, self._directory(version), _kind(server))  # read when it was started, as its command says
        process = self._process(name, files, thread_count, port=note.port)
        if not self._leftovers.take_over(process):
            return False
        loaded = _Loaded(files, process, was_ready=True)  # if it is silent now, it hangs
        self._read(loaded)  # before anybody asks whether Envoy should have it
        with self._lock:
            self._loaded[name] = loaded
        self._on_started()
        return True

    def unload(self, version: ModelVersion) -> None:
        """Stop the servers of this version, its spare as well, and wait until they are gone. Idempotent."""
        for is_spare in (False, True):
            self._unload(_name(version, is_spare=is_spare))

    def observe(self, version: ModelVersion | None, *, is_spare: bool = False) -> ServerState | None:
        """What is known of the server of this version; None when none is loaded. `ready` is False when the last reading is stale."""
        with self._lock:
            loaded = self._loaded.get(_name(version, is_spare=is_spare)) if version else None
        if loaded is None:
            return None
        fresh = time.monotonic() - loaded.checked_at <= STALE_AFTER_SECONDS
        return ServerState(
            version=loaded.files.version,
            pid=loaded.process.pid,
            port=loaded.process.port,
            ready=loaded.ready and fresh and loaded.process.is_running,
            resident_mib=round(loaded.process.resident_mib(), 1),
            restart_count=loaded.process.restart_count,
            peak_resident_mib=round(loaded.process.peak_resident_mib(), 1),
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
            loaded = self._loaded.get(_name(version))
        if loaded is None or loaded.process.is_running:
            return None
        ended = f"the model server of {version.label} ended with exit code {loaded.process.exit_code}: {loaded.process.last_log_line()}"
        return f"{ended}; it is not started again: {loaded.refusal}" if loaded.refusal else ended

    def notes(self) -> list[Note]:
        """The processes of all servers."""
        with self._lock:
            return [note for loaded in self._loaded.values() if (note := loaded.process.note)]

    def stop_all(self) -> None:
        """Stop every server; none is started any more."""
        with self._lock:
            self._is_closed = True
            current = list(self._loaded)
        for name in current:
            self._unload(name)

    def _unload(self, name: str) -> None:
        with self._lock:
            if loaded := self._loaded.pop(name, None):
                loaded.is_unloaded = True
        if loaded:
            with loaded.turn:
                loaded.process.stop(grace_seconds=STOP_GRACE_SECONDS)

    def _process(self, name: str, files: CheckedFiles, thread_count: int, *, port: int) -> ManagedProcess:
        command = server_command(
            files.kind, python=sys.executable, model_dir=files.directory, version=files.version, port=port, threads=thread_count
        )
        environment = {**server_environment(files.kind), **_without_prefect()}
        return ManagedProcess(name, command, log_directory=self._logs, environment=environment, port=port)

    def _directory(self, version: ModelVersion) -> Path:
        return self._models / version.digest.removeprefix("sha256:")

    def _read(self, loaded: _Loaded) -> None:
        try:
            loaded.ready = loaded.process.is_running and _answers(loaded.process.port)
        except CannotLook:
            return  # no reading at all: the last one grows old
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
            if loaded.process.is_running and _is_hung(loaded, self._patience_seconds(loaded)):
                loaded.process.kill()
            if not loaded.process.restart_if_dead(is_allowed=lambda: self._is_unchanged(loaded)):
                return False
            loaded.was_ready, loaded.silent_since = False, None
            return True

    def _patience_seconds(self, loaded: _Loaded) -> float:
        with self._lock:
            others = [other for other in self._loaded.values() if other.files.version == loaded.files.version and other is not loaded]
        return HUNG_BESIDE_SPARE_SECONDS if any(other.ready for other in others) else HUNG_AFTER_SECONDS

    def _is_unchanged(self, loaded: _Loaded) -> bool:
        try:
            self.check(loaded.files.version, server=loaded.files.kind)
        except (ServiceRefused, ArtifactError) as error:
            loaded.refusal = str(error)
            return False
        loaded.refusal = ""
        return True


def _name(version: ModelVersion, *, is_spare: bool = False) -> str:
    """Of the process and of its log."""
    return f"model-{version.name}-{version.version}{'-spare' if is_spare else ''}"


def _kind(server: str) -> ServerKind:
    if server not in ("interlock", "mlflow"):
        raise ServiceRefused(f"serving.server is {server!r}, must be interlock or mlflow")
    return "interlock" if server == "interlock" else "mlflow"


def _answers(port: int) -> bool:
    return answer_of(f"http://127.0.0.1:{port}/ping", timeout_seconds=PING_TIMEOUT_SECONDS) == HTTPStatus.OK


def _is_hung(loaded: _Loaded, patience_seconds: float) -> bool:
    silent_since = loaded.silent_since
    return loaded.was_ready and silent_since is not None and time.monotonic() - silent_since > patience_seconds


def _without_prefect() -> dict[str, str]:
    return {key: "" for key in os.environ if key.startswith("PREFECT_")}
