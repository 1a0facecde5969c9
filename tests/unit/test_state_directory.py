"""The state directory has one owner, keeps its secret, and says in one sentence why it cannot be used."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interlock.errors import StateError
from interlock.plane.state_directory import MIN_FREE_BYTES, StackAddresses, StateDirectory, write_json

ADDRESSES = StackAddresses(1, "a", "b", "c", "d", "e", "f", "late", ["demo"], "g", "h")
CLAIM = "import sys, pathlib; from interlock.plane.state_directory import *; StateDirectory(pathlib.Path(sys.argv[1])).claim()"


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path / "state")
    first.claim()
    first.write_addresses(ADDRESSES)
    with pytest.raises(StateError, match=rf"already up in .* \(process {os.getpid()}\)"):
        StateDirectory(tmp_path / "state").claim()
    other = subprocess.run([sys.executable, "-c", CLAIM, str(tmp_path / "state")], capture_output=True, text=True)
    assert f"(process {os.getpid()})" in other.stderr
    assert first.read_addresses() == ADDRESSES, "a refused claim must not touch what the owner has published"
    first.release()
    StateDirectory(tmp_path / "state").claim()


def test_what_a_killed_owner_left_behind_is_no_owner(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"{CLAIM}; import os; os._exit(9)", str(tmp_path)], check=False)
    assert (tmp_path / "lock").read_text().isdecimal()
    StateDirectory(tmp_path).claim()
    assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_releasing_forgets_the_addresses_and_can_be_repeated(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.claim()
    state.write_addresses(ADDRESSES)
    state.release()
    state.release()
    with pytest.raises(StateError, match="no stack is up"):
        state.read_addresses()


def test_the_secret_is_the_owners_alone_and_stays_the_same(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.claim()
    secret = state.read_token()
    assert len(secret) >= 32
    assert stat.S_IMODE((tmp_path / "control.token").stat().st_mode) == 0o600
    (tmp_path / "control.token").chmod(0o644)
    state.release()
    state.claim()
    assert state.read_token() == secret
    assert stat.S_IMODE((tmp_path / "control.token").stat().st_mode) == 0o600


def test_an_empty_secret_is_none(tmp_path: Path) -> None:
    """A machine that lost power between making the file and writing it: everybody would know the secret."""
    (tmp_path / "control.token").touch()
    state = StateDirectory(tmp_path)
    with pytest.raises(StateError, match="is empty"):
        state.read_token()
    state.claim()
    assert len(state.read_token()) >= 32


def test_a_secret_that_is_not_there_means_that_no_stack_was_started(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no stack has been started"):
        StateDirectory(tmp_path).read_token()


def test_a_file_in_place_of_the_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match=r"cannot be written \(.*\): choose another"):
        StateDirectory(tmp_path / "state").claim()
    with pytest.raises(StateError, match=r"cannot be written"):
        StateDirectory(tmp_path / "state" / "below").claim()


def test_a_read_only_directory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(StateError, match="Read-only file system"):
        StateDirectory(tmp_path / "state").claim()


def test_a_disk_that_is_nearly_full_is_said_and_the_lock_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=MIN_FREE_BYTES - 1))
    state = StateDirectory(tmp_path)
    with pytest.raises(StateError, match="511 MiB free, needs 512"):
        state.claim()
    monkeypatch.undo()
    StateDirectory(tmp_path).claim()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"supervisor_pid": 1}', "\x00"])
def test_addresses_that_cannot_be_read_mean_that_no_stack_is_up(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(StateError, match="no stack is up"):
        StateDirectory(tmp_path).read_addresses()


def test_a_json_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plane.json"
    write_json(file, {"token": 1})

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(file, {"token": 2})
    assert json.loads(file.read_text()) == {"token": 1}
