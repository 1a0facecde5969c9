"""The artifact gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_artifact
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: artifact", cache_policy=NO_CACHE)
def artifact_gate(session: ReleaseSession) -> Verdict:
    """The candidate's files, before anything of them is loaded."""
    return run_artifact(session)
