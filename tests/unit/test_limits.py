"""What contains a candidate where the kernel says no; what it does where the kernel says yes is in the contract tests."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.plane import limits, sessions
from interlock.plane.limits import limit_memory, make_equal, make_nice, wall_mib
from interlock.plane.sessions import ProcessId, identify, session_pids, session_resident_mib, started_at, thread_ids


def test_the_wall_is_beyond_the_resident_limit_by_what_every_server_needs() -> None:
    assert wall_mib(2048.0) - 2048 >= 512
    assert wall_mib(2048.0) - wall_mib(1024.0) == 1024


def test_a_priority_that_could_not_be_given_back_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()
    monkeypatch.setattr(limits, "_can_raise", lambda pid: False)
    monkeypatch.setattr(limits, "_set_group_nice", lambda pid, nice: False)
    monkeypatch.setattr(os, "setpriority", lambda which, thread, nice: asked.append(nice))
    assert not make_nice(os.getpid())
    assert asked == []


@pytest.mark.parametrize(
    ("capabilities", "rlimit", "own", "can"),
    [
        pytest.param("0000000000000000", 0, 0, False, id="nobody"),
        pytest.param("0000000000800000", 0, 0, True, id="CAP_SYS_NICE"),
        pytest.param("ffffffffff7fffff", 0, 0, False, id="every other capability"),
        pytest.param("0000000000000000", 19, 0, False, id="nice 1 at best"),
        pytest.param("0000000000000000", 20, 0, True, id="nice 0"),
        pytest.param("0000000000000000", 15, 5, True, id="no more than we have ourselves"),
        pytest.param("0000000000000000", resource.RLIM_INFINITY, 0, True, id="any"),
    ],
)
def test_who_may_give_a_priority_back(monkeypatch: pytest.MonkeyPatch, capabilities: str, rlimit: int, own: int, can: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: f"Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{capabilities}\n")
    monkeypatch.setattr(resource, "prlimit", lambda pid, what: (rlimit, rlimit))
    monkeypatch.setattr(limits, "_own_nice", lambda: own)
    assert limits._can_raise(1) is can


def _raising(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_thread_that_cannot_be_made_equal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_set_group_nice", lambda pid, nice: True)
    monkeypatch.setattr(limits, "session_pids", lambda pid: [pid])
    monkeypatch.setattr(limits, "_nice", lambda thread, otherwise: 10)
    monkeypatch.setattr(os, "setpriority", _raising(errno.EACCES))
    assert not make_equal(os.getpid())
    monkeypatch.setattr(os, "setpriority", _raising(errno.ESRCH))
    assert not make_equal(os.getpid()), "threads that come and go faster than they can be counted"


def test_a_kernel_without_autogroups_has_nothing_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", _raising(errno.ENOENT))
    monkeypatch.setattr(Path, "read_text", _raising(errno.ENOENT))
    assert make_equal(os.getsid(0))


def test_a_kernel_that_takes_no_two_changes_in_a_row_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = list[str]()

    def write(path: Path, text: str) -> None:
        tries.append(text)
        if len(tries) < 3:
            raise BlockingIOError(errno.EAGAIN, "again")

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr("interlock.plane.limits.time.sleep", lambda seconds: None)
    assert limits._set_group_nice(os.getsid(0), 0)
    assert tries == ["0", "0", "0"]
    monkeypatch.setattr(Path, "write_text", _raising(errno.EAGAIN))
    assert not limits._set_group_nice(os.getsid(0), 0)


def test_a_group_that_stays_nice_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_set_group_nice", lambda pid, nice: False)
    monkeypatch.setattr(limits, "_set_thread_nice", lambda *_: True)
    monkeypatch.setattr(Path, "read_text", lambda self: "/autogroup-31 nice 10\n")
    assert not make_equal(os.getsid(0))


def test_a_stranger_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "prlimit", _raising(errno.EPERM))
    assert not limit_memory(os.getpid(), 64)


def test_a_process_is_found_with_its_session_and_its_threads() -> None:
    assert os.getpid() in session_pids(os.getsid(0))
    assert os.getpid() in thread_ids(os.getpid())
    assert session_pids(2**22 + 1) == []
    assert thread_ids(2**22 + 1) == []
    assert started_at(os.getpid()).isdigit()
    assert identify(2**22 + 1) == ProcessId(2**22 + 1, "")


def test_a_stranger_with_the_same_id_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "session_pids", lambda leader_pid: [os.getpid()])
    assert session_resident_mib(identify(os.getpid())) > 1
    assert session_resident_mib(ProcessId(os.getpid(), "1")) == 0.0
    assert session_resident_mib(ProcessId(2**22 + 1, "1")) > 1, "the leader has ended, what it started has not"
