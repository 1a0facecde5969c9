"""
What contains a candidate's process, so that whatever it does to itself it does not do to the incumbent beside it.

Everything here is for a process that leads a session of its own (`ManagedProcess`), and for all that runs in the session. Each call is
idempotent, and a process that has vanished is no error. What a process cannot be stopped from without a container stays open: it may
fill shared memory and files, and what leaves the session keeps the memory limit, but not the priority.
"""

import contextlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from interlock.plane.sessions import identify, session_pids, session_resident_mib, thread_ids

# Above our own: a third of a busy neighbour's share. At 10, a tenth, copies on an overloaded machine ran into their deadline, and a good
# candidate was halted for errors.
SHADOW_NICE = 5
_WALL_MIB = 512  # libraries, allocator and the stacks of a few threads: 210 MiB beyond what is resident were measured on two cores
_WALL_PER_CPU_MIB = 64  # one more thread of each pool: 8 MiB of stack, 32 MiB of OpenBLAS buffer, the allocator's own
_CAP_SYS_NICE = 23
_NICE_RLIMIT_OF_0 = 20  # an RLIMIT_NICE of 20 - n allows nice n
_PASS_COUNT = 5  # a thread that starts in the middle of a pass inherits what its parent had then; the next pass finds it
_RETRY_SECONDS = 0.11  # the kernel takes one change of an autogroup in 100 ms from whoever is not root
_RETRY_COUNT = 20


def wall_mib(resident_limit_mib: float) -> int:
    """How much writable memory of its own one process of a candidate may map, touched or not: the hard wall behind the resident limit."""
    return int(resident_limit_mib) + _WALL_MIB + _WALL_PER_CPU_MIB * (os.cpu_count() or 1)


def limit_memory(pid: int, resident_limit_mib: float) -> bool:
    """
    Let every process of the session map `wall_mib` at most; what it starts inherits that. True when the leader has the wall.

    RLIMIT_DATA: at the wall, malloc fails (MemoryError, or the process ends) before the machine is out of memory and the kernel picks
    a process to end, perhaps the incumbent's. RLIMIT_AS would count what costs nothing, libraries and address space held back: 890 to
    1,220 MiB for a server of 260. RLIMIT_RSS does nothing on Linux. A lower wall that stands already stays. Only the soft limit is set:
    the hard one could not be lifted again for the incumbent it may become; a model that grows does not lift its own.
    """
    wall_bytes = wall_mib(resident_limit_mib) * 2**20
    for member in session_pids(pid):
        _wall(member, wall_bytes)
    return _wall(pid, wall_bytes)


def lift_memory(pid: int) -> None:
    """Let every process of the session map what it could before `limit_memory`: it serves users for good now. Idempotent."""
    for member in session_pids(pid):
        with contextlib.suppress(OSError):
            _, hard = resource.prlimit(member, resource.RLIMIT_DATA)
            resource.prlimit(member, resource.RLIMIT_DATA, (hard, hard))


def resident_mib(pid: int) -> float:
    """Resident memory of the whole session, as the fuse reads it; 0.0 when nobody is left."""
    return session_resident_mib(identify(pid))


def make_nice(pid: int) -> bool:
    """
    Let the session have the CPU only where nobody else wants it; True when that was done.

    Where it could not be taken back before the candidate gets users it is not done: without autogroups, nice belongs to threads, and
    only CAP_SYS_NICE or an RLIMIT_NICE of 20 allows to lower it again.
    """
    is_grouped = _set_group_nice(pid, SHADOW_NICE)
    nice = min(19, _own_nice() + SHADOW_NICE)
    is_alone = _can_raise(pid) and _set_thread_nice(pid, nice, lambda found: found < nice)
    return is_grouped or is_alone


def make_equal(pid: int) -> bool:
    """Let the session, every thread and child of it, have the CPU as we have it; True when that is so, or nobody is left."""
    is_grouped = _set_group_nice(pid, 0) or not _has_group_nice(pid)
    nice = _own_nice()
    is_alone = _set_thread_nice(pid, nice, lambda found: found > nice)
    return is_grouped and is_alone


def _wall(pid: int, wall_bytes: int) -> bool:
    with contextlib.suppress(OSError):  # gone, or somebody else's: then it is not what we started
        soft, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        lowest = wall_bytes if soft == resource.RLIM_INFINITY else min(soft, wall_bytes)
        resource.prlimit(pid, resource.RLIMIT_DATA, (lowest, hard))
        return True
    return False


def _set_group_nice(pid: int, nice: int) -> bool:
    """
    The nice of the session's autogroup, which is all that counts between sessions where the kernel has autogroups. False where it has none.

    Anybody may lower it to 0 again. A session without members has nothing to set.
    """
    for member in session_pids(pid):
        for _ in range(_RETRY_COUNT):
            try:
                Path(f"/proc/{member}/autogroup").write_text(str(nice))
                return True
            except BlockingIOError:
                time.sleep(_RETRY_SECONDS)
            except OSError:
                break  # this one has just ended, or there are no autogroups
    return False


def _has_group_nice(pid: int) -> bool:
    """Whether the session's autogroup stands back behind others."""
    for member in session_pids(pid):
        with contextlib.suppress(OSError, ValueError):
            return int(Path(f"/proc/{member}/autogroup").read_text().rpartition(" ")[2]) > 0
    return False


def _can_raise(pid: int) -> bool:
    """Whether we could give the process its priority back."""
    with contextlib.suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        capabilities = int(next(line for line in status if line.startswith("CapEff:")).split()[1], 16)
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NICE)
        return bool(capabilities >> _CAP_SYS_NICE & 1) or soft >= _NICE_RLIMIT_OF_0 - _own_nice() or soft == resource.RLIM_INFINITY
    return False


def _set_thread_nice(pid: int, nice: int, is_other: Callable[[int], bool]) -> bool:
    """The nice of every thread of the session that has another one, until a pass finds none; False when one could not be changed."""
    for _ in range(_PASS_COUNT):
        others = [thread for member in session_pids(pid) for thread in thread_ids(member) if is_other(_nice(thread, nice))]
        if not others:
            return True
        for thread in others:
            try:
                os.setpriority(os.PRIO_PROCESS, thread, nice)
            except ProcessLookupError:
                continue
            except OSError:
                return False
    return False


def _nice(thread: int, otherwise: int) -> int:
    try:
        return os.getpriority(os.PRIO_PROCESS, thread)
    except OSError:  # it has ended
        return otherwise


def _own_nice() -> int:
    """What our children were started with, the incumbent's server among them."""
    return os.getpriority(os.PRIO_PROCESS, 0)
