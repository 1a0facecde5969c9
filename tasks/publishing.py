"""
Artifacts for people, handed to Prefect behind the release's back.

A Prefect server that is away holds up whoever asks it for a minute and more (its client tries again); the lease is seconds long. So nobody
who renews a lease waits here: what cannot be shown is said in the log, and missing.
"""

import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import cache

from prefect import get_run_logger

AWAIT_SECONDS = 10.0  # at the end of a release: traffic is where it belongs, and the decision is recorded

_Job = Callable[[], object]


def publish(what: str, make: Callable[[], object]) -> None:
    """Make an artifact, later and in order. Returns at once."""
    context = contextvars.copy_context()  # Prefect finds the run that an artifact belongs to in there
    _jobs().put(lambda: context.run(_made, what, make))


def await_published() -> None:
    """Wait until everything is shown, 10 s at most; what is left then is shown if the process lives long enough."""
    deadline = time.monotonic() + AWAIT_SECONDS
    while _jobs().unfinished_tasks and time.monotonic() < deadline:
        time.sleep(0.02)
    if left := _jobs().unfinished_tasks:
        get_run_logger().warning("%d artifacts could not be shown within %g s: is the Prefect server up?", left, AWAIT_SECONDS)


def _made(what: str, make: Callable[[], object]) -> None:
    try:
        make()
    except BaseException as error:  # noqa: BLE001 - nothing that people look at may end a release, or the thread that shows the rest
        get_run_logger().warning("%s could not be shown: %s", what, error)


@cache
def _jobs() -> "queue.Queue[_Job]":
    """The queue of this process, with the one thread that works on it."""
    jobs: queue.Queue[_Job] = queue.Queue()
    threading.Thread(target=_work, args=(jobs,), name="artifacts", daemon=True).start()
    return jobs


def _work(jobs: "queue.Queue[_Job]") -> None:
    while True:
        job = jobs.get()
        try:
            job()
        except BaseException:
            logging.getLogger(__name__).exception("an artifact could not be shown")
        finally:
            jobs.task_done()
