"""The readiness gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_readiness
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: readiness", cache_policy=NO_CACHE)
def readiness_gate(session: ReleaseSession) -> Verdict:
    """The incumbent healthy and warm, and these files not rejected or rolled back before under this profile."""
    return run_readiness(session)
