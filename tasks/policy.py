"""Reads the policy of a release, and holds the one rule of what Prefect may retry."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from interlock.errors import ServiceUnavailable
from interlock.profile.reader import LoadedProfile
from interlock.wiring import read_allowed_profile


def is_unavailable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """True when a task failed because a service was down for a moment: the only thing worth a retry."""
    del task, task_run
    result = state.result(raise_on_failure=False)
    return isinstance(result, ServiceUnavailable)


@task(name="read release profile", cache_policy=NO_CACHE)
def read_policy(profile_name: str) -> LoadedProfile:
    """The profile, checked whole, with its digest. PolicyError says what is wrong in it."""
    return read_allowed_profile(profile_name)
