"""The evaluation gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_evaluation
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: evaluation", cache_policy=NO_CACHE)
def evaluation_gate(session: ReleaseSession) -> Verdict:
    """Metrics on labelled rows, beside the incumbent's on the same rows."""
    return run_evaluation(session)
