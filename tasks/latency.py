"""The latency gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_latency
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: latency", cache_policy=NO_CACHE)
def latency_gate(session: ReleaseSession) -> Verdict:
    """Both servers under the same load at the same time."""
    return run_latency(session)
