"""The disagreement gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_disagreement
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: disagreement", cache_policy=NO_CACHE)
def disagreement_gate(session: ReleaseSession) -> Verdict:
    """Both servers' answers to the same rows, and the incumbent's own noise, before a user is exposed."""
    return run_disagreement(session)
