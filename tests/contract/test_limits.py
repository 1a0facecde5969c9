"""A candidate's process is contained by the kernel of this machine, as far as that can be asked without a container."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from interlock.plane.limits import SHADOW_NICE, lift_memory, limit_memory, make_equal, make_nice, resident_mib, wall_mib
from interlock.plane.process import family
from interlock.plane.sessions import session_pids, thread_ids
from interlock.serving.commands import ServerKind
from tests.contract.model_server_rig import running, save_odd_model

GROWS = "import time\nkept = []\nwhile True:\n    kept.append(bytearray(8 * 2**20))\n    time.sleep(0.002)"
TELLS = """
import time
time.sleep(1)
try:
    kept = bytearray(800 * 2**20)
except MemoryError:
    print("full", flush=True)
time.sleep(600)
"""
SLEEPS = "import time; time.sleep(600)"
BUSY = "import os\nos.sched_setaffinity(0, {int(os.environ['ON_CPU'])})\nwhile True: pass"
# A thread and a child, both started while the session is nice, and more of them later.
FAMILY = """
import subprocess, sys, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
sleeper = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
subprocess.Popen([sys.executable, "-c", sleeper])
print("up", flush=True)
while True:
    threading.Thread(target=time.sleep, args=(0.05,)).start()
    time.sleep(0.01)
"""
HAS_AUTOGROUPS = Path("/proc/self/autogroup").exists() and Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"


@contextlib.contextmanager
def session(code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **environment}
    )
    try:
        yield process
    finally:
        for pid in session_pids(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_candidate_that_grows_without_bound_ends_at_the_wall_while_its_neighbour_lives() -> None:
    with session(SLEEPS) as neighbour, session(GROWS) as candidate:
        assert limit_memory(candidate.pid, 64)
        largest = 0.0
        deadline = time.monotonic() + 120
        while candidate.poll() is None:
            largest = max(largest, resident_mib(candidate.pid))
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert candidate.returncode == 1, "MemoryError"
        assert 64 < largest <= wall_mib(64) + 64, "its libraries are beyond what the wall counts"
        assert neighbour.poll() is None
        assert resource.prlimit(neighbour.pid, resource.RLIMIT_DATA) == resource.getrlimit(resource.RLIMIT_DATA)


def test_what_does_not_fit_is_a_memory_error_and_no_end() -> None:
    with session(TELLS) as candidate:
        assert limit_memory(candidate.pid, 16)
        assert wall_mib(16) < 800 + 16, "this test asks for 800 MiB"
        assert first_line(candidate) == "full"
        assert candidate.poll() is None


@pytest.mark.parametrize("kind", ["interlock", "mlflow"])
def test_a_healthy_model_server_never_meets_the_wall(tmp_path: Path, kind: ServerKind) -> None:
    with running(kind, save_odd_model(tmp_path / "odd"), scratch=tmp_path) as server:
        assert limit_memory(server.process.pid, 300)
        server.wait_ready()
        body = {"dataframe_split": {"columns": ["amount", "count", "country", "vip"], "data": [[1.5, 1, "de", True]]}}
        for _ in range(200):
            assert httpx.post(f"{server.url}/invocations", json=body, timeout=60, trust_env=False).status_code == 200
        for pid in [process.pid for process in family(server.process.pid)]:
            held = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            mapped_mib, resident = (int(held[name].split()[0]) / 1024 for name in ("VmData", "VmRSS"))
            assert resource.prlimit(pid, resource.RLIMIT_DATA)[0] == wall_mib(300) * 2**20
            assert mapped_mib - resident <= wall_mib(0) / 2, "what it maps and does not touch; 110 to 210 MiB of 640 were measured"


def test_the_wall_is_inherited_and_only_lowered_until_it_is_lifted_for_all() -> None:
    start = f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}])"
    parent = f"import subprocess, sys, time\ntime.sleep(0.5)\nprint({start}.pid, flush=True)\ntime.sleep(600)"
    with session(parent) as candidate:
        before = resource.prlimit(candidate.pid, resource.RLIMIT_DATA)

        def walls(*pids: int) -> set[int]:
            limits = [resource.prlimit(pid, resource.RLIMIT_DATA) for pid in pids]
            assert {hard for _, hard in limits} == {before[1]}, "it is to be lifted without privileges"
            return {soft // 2**20 for soft, _ in limits}

        assert limit_memory(candidate.pid, 1000)
        child = int(first_line(candidate))
        assert walls(child) == {wall_mib(1000)}
        assert limit_memory(candidate.pid, 2000)
        assert walls(candidate.pid, child) == {wall_mib(1000)}
        assert limit_memory(candidate.pid, 500)
        assert walls(candidate.pid, child) == {wall_mib(500)}
        for _ in range(2):
            lift_memory(candidate.pid)
            assert {resource.prlimit(pid, resource.RLIMIT_DATA) for pid in (candidate.pid, child)} == {before}


def test_resident_memory_is_the_whole_sessions() -> None:
    holds = "import time; kept = bytearray(64 * 2**20); print('up', flush=True); time.sleep(600)"
    both = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {holds!r}]).wait()"
    with session(both) as candidate:
        first_line(candidate)
        assert 64 <= resident_mib(candidate.pid) <= 164
        candidate.kill()
        candidate.wait()
        assert 64 <= resident_mib(candidate.pid) <= 100, "its child is left in its session"
    deadline = time.monotonic() + 30
    while resident_mib(candidate.pid):  # it was told to end, which takes a moment
        assert time.monotonic() < deadline


@pytest.mark.skipif(not HAS_AUTOGROUPS, reason="this kernel has no autogroups: thread by thread is tested below")
def test_a_session_that_is_only_shadowed_leaves_the_cpu_to_its_neighbour_and_gets_it_back() -> None:
    cpu = str(min(os.sched_getaffinity(0)))
    with session(BUSY, ON_CPU=cpu) as neighbour, session(BUSY, ON_CPU=cpu) as candidate:
        time.sleep(0.5)
        assert make_nice(candidate.pid)
        assert make_nice(candidate.pid)
        assert _ratio(neighbour, candidate) > 1.8, "3 alone on the machine"
        assert make_equal(candidate.pid)
        assert make_equal(candidate.pid)
        assert 0.5 < _ratio(neighbour, candidate) < 2


def test_every_thread_and_child_is_made_nice_and_equal_again() -> None:
    with session(FAMILY) as candidate:
        first_line(candidate)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        is_nice = make_nice(candidate.pid)
        assert is_nice or not HAS_AUTOGROUPS
        if os.geteuid() == 0:
            time.sleep(0.2)
            assert _nices(candidate.pid) == {own + SHADOW_NICE}, "threads of today inherit it"
        assert make_equal(candidate.pid)
        time.sleep(0.2)
        assert _nices(candidate.pid) == {own}
        if HAS_AUTOGROUPS:
            assert Path(f"/proc/{candidate.pid}/autogroup").read_text().split()[-1] == "0"


def test_nobody_is_left_and_that_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    assert not limit_memory(process.pid, 64)
    lift_memory(process.pid)
    assert not make_nice(process.pid)
    assert make_equal(process.pid)
    assert resident_mib(process.pid) == 0.0


def _ratio(one: subprocess.Popen[str], other: subprocess.Popen[str]) -> float:
    """How much more CPU the one gets."""
    before = [_cpu_ticks(one.pid), _cpu_ticks(other.pid)]
    time.sleep(3.0)
    used = [_cpu_ticks(one.pid) - before[0], _cpu_ticks(other.pid) - before[1]]
    return used[0] / max(1, used[1])


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def _nices(pid: int) -> set[int]:
    found = set()
    for thread in [thread for member in session_pids(pid) for thread in thread_ids(member)]:
        with contextlib.suppress(ProcessLookupError):
            found.add(os.getpriority(os.PRIO_PROCESS, thread))
    return found
