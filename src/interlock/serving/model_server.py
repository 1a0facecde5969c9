"""
The model server: one process, one loaded MLflow model version, MLflow's scoring protocol.

    python -m interlock.serving.model_server --model DIRECTORY --name NAME --version V --digest sha256:... --port P

The plane's supervisor starts it and knows its pid; the pid that is known is the pid that holds the model. Granian's usual server starts a
second process for its worker, so its embeddable server is used, which runs in this one: SIGKILL leaves nothing behind, and /proc of one pid
tells memory and CPU. Predictions run on threads, so that /ping and /metrics answer meanwhile. (Granian's WSGI worker costs the same CPU as
this on uvloop, but shares its threads between probes and predictions, and in one process only behind a class that refuses the GIL.)

It listens only after the digest has matched, the model has loaded and its input example has been answered: a port that answers is a model
that answers. It never looks at traffic, weights or releases.

Exit codes: 0 after SIGTERM or SIGINT, 1 when requests had to be cut off, 3 when the artifact cannot be served, 4 when the port is taken.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from granian.constants import HTTPModes
from granian.server.embed import Server

from interlock.errors import ArtifactError, StateError
from interlock.model.digest import artifact_digest
from interlock.model.release import ModelVersion
from interlock.serving.endpoints import Endpoints

log = logging.getLogger("interlock.model_server")

EXIT_CUT_OFF = 1
EXIT_ARTIFACT = 3
EXIT_PORT = 4
# The supervisor allows 5 s from SIGTERM to the end; half a second of it is for the process itself.
DRAIN_SECONDS = 4.5
# Python code holds the GIL: more threads than this only help models that wait (for a feature store, say) or compute outside the GIL.
DEFAULT_THREADS = 4
# What granian calls backpressure bounds open connections, idle ones too: with its default of 128, an Envoy that keeps as many idle ones
# gets no further answer (seen with granian 2.8.7). Memory is bounded by the bodies instead.
MAX_CONNECTIONS = 4096


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM; the return value is the exit code."""
    options = _options(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    version = ModelVersion(options.name, options.version, options.digest)
    # Some flavors read their files only when asked to predict: what was fetched stays until the end.
    with tempfile.TemporaryDirectory(prefix="interlock-model-", ignore_cleanup_errors=True) as scratch:
        try:
            _refuse_taken_port(options.host, options.port)
            endpoints = _load(options.model, version, scratch=Path(scratch), threads=options.threads)
            _refuse_taken_port(options.host, options.port)
        except (ArtifactError, StateError) as error:
            print(f"{version.label} is not served: {error}.", file=sys.stderr)
            return EXIT_ARTIFACT if isinstance(error, ArtifactError) else EXIT_PORT
        # asyncio's own loop costs 0.4 ms more CPU a request than uvloop here (measured); MLflow's server runs on uvloop too.
        uvloop.run(_serve(endpoints, host=options.host, port=options.port))
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="interlock.serving.model_server", description="Serve one MLflow model version.")
    parser.add_argument("--model", required=True, help="directory of the model artifact, or an MLflow URI to fetch it from")
    parser.add_argument("--name", required=True, help="registered model name")
    parser.add_argument("--version", required=True, help="model version")
    parser.add_argument("--digest", required=True, help="sha256:... of the artifact that was judged")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--threads", type=int, default=DEFAULT_THREADS, help="predictions computed at the same time")
    return parser.parse_args(arguments)


def _load(model: str, version: ModelVersion, *, scratch: Path, threads: int) -> Endpoints:
    """The application, once the artifact is the one that was judged and the model has answered its example."""
    started = time.monotonic()
    directory = Path(model)
    if "://" in model or model.startswith(("models:/", "runs:/")):
        from interlock.serving.scoring import fetch_artifact

        directory = fetch_artifact(model, scratch)
    _refuse_other_artifact(directory, version)
    # Importing mlflow takes seconds: a wrong digest or a taken port is told before.
    from interlock.serving.scoring import MLFLOW_VERSION, load_scorer

    # Importing code that came with the artifact would write __pycache__ into it, and the digest would not match at the next start. Not set
    # before mlflow was imported: a fresh installation gets its byte code then, which makes later starts faster.
    sys.dont_write_bytecode = True
    scorer = load_scorer(directory)
    log.info("%s loaded in %.1f s from %s (%s), pid %d", version.label, time.monotonic() - started, directory, version.digest, os.getpid())
    return Endpoints(scorer.answer, version=version, mlflow_version=MLFLOW_VERSION, threads=threads)


def _refuse_other_artifact(directory: Path, version: ModelVersion) -> None:
    found = artifact_digest(directory)
    if found != version.digest:
        raise ArtifactError(
            f"the artifact in {directory} has the digest {found}, {version.digest} was judged; fetch it again or release it anew"
        )


def _refuse_taken_port(host: str, port: int) -> None:
    """Granian binds with SO_REUSEPORT: a second server on the port would silently share its requests with another model version."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a predecessor may linger in TIME_WAIT
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StateError(f"{host}:{port} cannot be bound ({error.strerror}); stop what holds it or choose another port") from error


async def _serve(endpoints: Endpoints, *, host: str, port: int) -> None:
    server = Server(
        endpoints,
        address=host,
        port=port,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        backlog=1024,
        backpressure=MAX_CONNECTIONS,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stopper(server.stop, endpoints))
    await server.serve()


def _stopper(stop: Callable[[], None], endpoints: Endpoints) -> Callable[[], None]:
    """Stops accepting and lets requests in flight finish; ends the process when one does not."""

    def cut_off() -> None:
        log.error("%d requests in flight were cut off %.1f s after the signal", endpoints.inflight_count, DRAIN_SECONDS)
        os._exit(EXIT_CUT_OFF)

    def on_signal() -> None:
        log.info("stopping, %d requests in flight", endpoints.inflight_count)
        timer = threading.Timer(DRAIN_SECONDS, cut_off)
        timer.daemon = True
        timer.start()
        stop()

    return on_signal


if __name__ == "__main__":
    sys.exit(main())
