"""
The state directory: everything the embedded stack keeps, and the lock that makes it one stack's own.

Layout: lock, stack.json (addresses), control.token, plane.json (who is the incumbent), evidence/, journal/, models/, data/, logs/,
envoy/, mlflow/, prefect/.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interlock.errors import StateError

MIN_FREE_BYTES = 512 * 1024 * 1024  # a demonstration writes about 200 MiB; below 512 MiB a database may break in mid-release
_FOLDERS = ("evidence", "journal", "models", "data", "logs", "envoy", "mlflow", "prefect")


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """
    Where the parts of a running stack listen (all on loopback), and what it releases under.

    `profile_names`: the profiles this plane allows, the first one for what enters Staging. Flows read profiles and data from the
    directories named here, not from their own environment: a run could change that.
    """

    supervisor_pid: int
    live_url: str
    page_url: str
    envoy_admin_url: str
    collector_url: str
    mlflow_url: str
    prefect_url: str
    model_name: str
    profile_names: list[str]
    profiles_directory: str
    data_directory: str


class StateDirectory:
    """One directory, owned by at most one live supervisor."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock_descriptor: int | None = None

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def claim(self) -> None:
        """
        Make the layout and take the lock.

        Raises:
            StateError: another supervisor lives here, the directory cannot be written, or its disk is nearly full.
        """
        try:
            for folder in _FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            self._take_lock()
            free_bytes = shutil.disk_usage(self.root).free
            if free_bytes < MIN_FREE_BYTES:
                raise StateError(
                    f"{self.root} has {free_bytes // 2**20} MiB free, needs {MIN_FREE_BYTES // 2**20}: free space or choose another --state"
                )
            self._write_secret()
        except StateError:
            self._unlock()
            raise
        except OSError as error:
            self._unlock()
            raise StateError(
                f"the state directory {self.root} cannot be written ({error.strerror}): choose another with --state"
            ) from error

    def release(self) -> None:
        """Forget the addresses and give the lock free."""
        with contextlib.suppress(OSError):
            (self.root / "stack.json").unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def read_token(self) -> str:
        """The secret that the control API asks for; readable by the owner only."""
        try:
            if token := (self.root / "control.token").read_text().strip():
                return token
            raise StateError(f"{self.root / 'control.token'} is empty: stop the stack, delete the file and run `interlock up` again")
        except OSError as error:
            raise StateError(f"no stack has been started in {self.root}: run `interlock up --state {self.root}`") from error

    def write_addresses(self, addresses: StackAddresses) -> None:
        """Publish where the stack listens."""
        write_json(self.root / "stack.json", asdict(addresses))

    def read_addresses(self) -> StackAddresses:
        """
        Where the live stack listens.

        Raises:
            StateError: no stack is up here.
        """
        try:
            return StackAddresses(**json.loads((self.root / "stack.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise StateError(f"no stack is up in {self.root}: run `interlock up --state {self.root}`") from error

    def _take_lock(self) -> None:
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StateError(
                f"a stack is already up in {self.root} (process {holder}): use it, stop it, or choose another directory with --state"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock_descriptor = descriptor

    def _write_secret(self) -> None:
        path = self.root / "control.token"
        if path.exists() and path.read_bytes().strip():
            path.chmod(0o600)
            return
        temporary = path.with_name(".control.token.tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
        temporary.replace(path)  # whole or not at all: an empty secret would be one that everybody knows


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file so that a reader, and a crash, see the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
