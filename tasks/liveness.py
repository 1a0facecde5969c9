"""The liveness gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run_liveness import run_liveness
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: liveness", cache_policy=NO_CACHE)
def liveness_gate(session: ReleaseSession) -> Verdict:
    """Every gate first refuses a candidate that was made for it."""
    return run_liveness(session)
