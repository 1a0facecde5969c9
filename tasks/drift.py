"""The drift gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_drift
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: drift", cache_policy=NO_CACHE)
def drift_gate(session: ReleaseSession) -> Verdict:
    """Inputs and predictions, reference against current rows."""
    return run_drift(session)
