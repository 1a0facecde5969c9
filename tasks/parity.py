"""The parity gate."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from interlock.control.gates.run import run_parity
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict


@task(name="gate: parity", cache_policy=NO_CACHE)
def parity_gate(session: ReleaseSession) -> Verdict:
    """The served candidate beside the same version in this process, row by row."""
    return run_parity(session)
