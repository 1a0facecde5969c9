"""A model server on trial: of a version that is to become the first incumbent, asked by its gates alone. Envoy does not know it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interlock.errors import ArtifactError, ServiceUnavailable
from interlock.plane.model_servers import ModelServers
from interlock.ports import Clock, Trial, TrialServer

POLL_SECONDS = 0.1


@contextmanager
def trial_server(trial: Trial, *, models_directory: Path, log_directory: Path, clock: Clock) -> Iterator[TrialServer]:
    """
    The version in a server of its own, started as the plane starts them, and ended with the block.

    If this process is killed first, the next `interlock up` ends the server, as whatever else carries its log directory in the environment.

    Raises:
        ArtifactError: the server ended by itself; carries its last words.
        ServiceRefused: the files are not those that were fetched.
        ServiceUnavailable: it was not ready in time.
    """
    servers, started = ModelServers(models_directory=models_directory, log_directory=log_directory), clock.monotonic()
    try:
        files = servers.check(trial.version, server=trial.server)
        servers.load(files, thread_count=trial.thread_count, memory_limit_mib=trial.memory_limit_mib)
        yield TrialServer(_await_port(servers, trial, clock, started), clock.monotonic() - started)
    finally:
        servers.stop_all()


def _await_port(servers: ModelServers, trial: Trial, clock: Clock, started: float) -> int:
    while True:
        servers.watch(may_restart=lambda _: False)
        if (state := servers.observe(trial.version)) is not None and state.ready:
            return state.port
        if (failure := servers.failure(trial.version)) is not None:
            raise ArtifactError(failure)
        if clock.monotonic() - started > trial.start_deadline_seconds:
            raise ServiceUnavailable(
                f"the server of {trial.version.label} was not ready after {clock.monotonic() - started:.0f} s "
                f"(limit {trial.start_deadline_seconds:g} s)"
            )
        clock.sleep(POLL_SECONDS)
