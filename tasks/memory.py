"""The memory gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_memory
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: memory", cache_policy=NO_CACHE)
def memory_gate(session: ReleaseSession) -> Verdict:
    """Resident memory after work, beside the incumbent's."""
    return run_memory(session)
