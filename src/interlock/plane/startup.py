"""What a start waits for: parts that answer, and the Prefect deployments, read back."""

import time
from collections.abc import Callable, Sequence

import httpx

from interlock.errors import StateError
from interlock.plane import stack
from interlock.plane.look import CannotLook
from interlock.plane.process import ManagedProcess
from interlock.plane.stack import Part, Ports

START_SECONDS = 180.0  # Prefect and MLflow need 10-30 s each on two busy cores

Pause = Callable[[float], bool]  # waits so many seconds; True when it is time to stop


def await_parts(parts: Sequence[Part], *, pause: Pause, say: Callable[[str], None]) -> None:
    """
    Wait until every part says that it is ready, or it is time to stop.

    Raises:
        StateError: a part ended, or took 180 s; names its log.
    """
    waiting, started = list(parts), time.monotonic()
    while waiting and not pause(0.1):
        for part in [part for part in waiting if _is_ready(part)]:
            waiting.remove(part)
            say(f"{part.title} is ready after {time.monotonic() - started:.1f} s")
        for part in waiting:
            if part.process.exit_code is not None or time.monotonic() - started > START_SECONDS:
                said = part.process.last_log_line() or "it said nothing"
                raise StateError(f"{part.title} did not start: {said} (logs/{part.process.name}.log)")


def make_work_pool(ports: Ports, *, pause: Pause) -> None:
    """Make the work pool unless it exists. A Prefect server that is busy is asked again. StateError when it never answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return stack.create_work_pool(ports)
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise StateError(f"Prefect did not answer within {START_SECONDS:g} s ({error!r}): see logs/prefect.log") from error
        if pause(1.0):
            return None


def await_deployments(ports: Ports, deploying: ManagedProcess, *, pause: Pause) -> None:
    """
    Wait until all Prefect deployments were read back and the process that registers them has ended, or it is time to stop.

    Raises:
        StateError: it failed, or took 180 s.
    """
    deadline = time.monotonic() + START_SECONDS
    while (missing := _missing_deployments(ports)) and not pause(0.5):
        if deploying.exit_code not in (None, 0) or time.monotonic() > deadline:
            raise StateError(f"Prefect deployments {', '.join(sorted(missing))} were not registered: see logs/prefect-deploy.log")
    while deploying.exit_code is None and not pause(0.1):
        pass


def _missing_deployments(ports: Ports) -> set[str]:
    try:
        return stack.declared_deployments() - stack.registered_deployments(ports)
    except httpx.HTTPError:
        return stack.declared_deployments()


def _is_ready(part: Part) -> bool:
    try:
        return part.is_ready()
    except CannotLook:
        return False
