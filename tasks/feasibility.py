"""The traffic gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_traffic
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: traffic", cache_policy=NO_CACHE)
def traffic_gate(session: ReleaseSession) -> Verdict:
    """Whether the live traffic can decide the canary in the planned time."""
    return run_traffic(session)
