"""
Starts, supervises and stops the embedded stack.

Threads: lease (5 times a second; nothing it does waits for anything but Envoy), model server health, intake, control API. The main
thread restarts what died and waits for the signal to stop.
"""

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvicorn

from interlock.errors import ReleaseError, StateError
from interlock.plane import stack
from interlock.plane.api import build_api
from interlock.plane.controller import PlaneController
from interlock.plane.endpoints import write_arms
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.live import LivePage
from interlock.plane.model_servers import ModelServers
from interlock.plane.process import ManagedProcess, choose_port, stop_family
from interlock.plane.stack import Part, Ports
from interlock.plane.state_directory import StackAddresses, StateDirectory, write_json
from interlock.ports import Clock

START_SECONDS = 180.0  # Prefect and MLflow need 10-30 s each on two busy cores
STOP_GRACE_SECONDS = 8.0
LEASE_TICK_SECONDS = 0.2
HEALTH_TICK_SECONDS = 0.5
INTAKE_TICK_SECONDS = 2.0
PART_TICK_SECONDS = 0.25

Say = Callable[[str], None]
log = logging.getLogger("interlock.supervisor")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `interlock up` was asked for. Port 0 means any free one."""

    model_name: str
    profile_name: str
    live_port: int = 0
    page_port: int = 0
    mlflow_port: int = 0
    prefect_port: int = 0


class Supervisor:
    """One embedded stack. `run` blocks until SIGINT or SIGTERM and leaves no process behind."""

    def __init__(self, state: StateDirectory, options: UpOptions, *, clock: Clock, say: Say, poll_registry: Callable[[], object]) -> None:
        self._state, self._options, self._clock, self._say = state, options, clock, say
        self._poll_registry = poll_registry
        self._stopping = threading.Event()
        self._parts: list[Part] = []
        self._processes: list[ManagedProcess] = []
        self._noted_pids: list[int] = []
        self._servers: ModelServers | None = None
        self._api: uvicorn.Server | None = None

    def run(self, *, on_ready: Callable[[StackAddresses], None]) -> None:
        """
        Claim the state directory, start everything, tell `on_ready`, supervise until a signal, stop everything.

        Raises:
            StateError: the directory is taken or cannot be written, or a port is in use.
            ReleaseError: a part did not start.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        self._state.claim()
        try:
            self._stop_leftovers()
            addresses = self._start()
            if not self._stopping.is_set():
                on_ready(addresses)
            self._supervise()
        finally:
            self._stop()

    def _start(self) -> StackAddresses:
        ports = self._choose_ports()
        addresses = self._addresses(ports)
        write_arms(self._state / "envoy", incumbent=[], candidate=[])
        builders = (stack.envoy_part, stack.collector_part, stack.mlflow_part, stack.prefect_part)
        self._parts = [build(self._state, ports) for build in builders]
        for part in self._parts:
            self._launch(part.process)
        self._servers = ModelServers(models_directory=self._state / "models", log_directory=self._state / "logs")
        self._await(self._parts[:2])
        controller = PlaneController(
            admin=EnvoyAdmin(addresses.envoy_admin_url),
            servers=self._servers,
            endpoints_directory=self._state / "envoy",
            state_file=self._state / "plane.json",
            clock=self._clock,
        )
        controller.start()
        self._serve_api(controller, addresses, ports)
        self._repeat("lease", LEASE_TICK_SECONDS, lambda: self._enforce_lease(controller))
        self._repeat("health", HEALTH_TICK_SECONDS, controller.watch_servers)
        self._await(self._parts[2:])
        self._start_worker(ports)
        self._state.write_addresses(addresses)  # the sign that everything is up
        self._repeat("intake", INTAKE_TICK_SECONDS, self._poll_registry)
        return addresses

    def _start_worker(self, ports: Ports) -> None:
        """Start the worker and register the Prefect deployments; returns when all of them were read back."""
        if self._stopping.is_set():
            return
        stack.create_work_pool(ports)
        worker, deploy = stack.worker_process(self._state, ports), stack.deploy_process(self._state, ports)
        self._launch(worker)
        deploy.start()
        deadline = time.monotonic() + START_SECONDS
        while (missing := stack.declared_deployments() - stack.registered_deployments(ports)) and not self._stopping.wait(0.5):
            if deploy.exit_code not in (None, 0) or time.monotonic() > deadline:
                deploy.stop(grace_seconds=STOP_GRACE_SECONDS)
                raise StateError(f"Prefect deployments {', '.join(sorted(missing))} were not registered: see logs/prefect-deploy.log")
        while deploy.exit_code is None and not self._stopping.wait(0.1):
            pass
        deploy.stop(grace_seconds=STOP_GRACE_SECONDS)
        self._say(f"Prefect deployments registered: {', '.join(sorted(stack.declared_deployments()))}")

    def _supervise(self) -> None:
        while not self._stopping.wait(PART_TICK_SECONDS):
            for process in self._processes:
                if process.restart_if_dead():
                    self._say(f"{process.name} had ended and was restarted (restart {process.restart_count})")
            with contextlib.suppress(OSError):  # a full disk must not end the supervision
                self._note_processes()

    def _stop(self) -> None:
        self._stopping.set()
        self._say("stopping")
        if self._api:
            self._api.should_exit = True
        for process in reversed(self._processes):
            process.stop(grace_seconds=STOP_GRACE_SECONDS)
        if self._servers:
            self._servers.stop_all()
        (self._state / "processes.json").unlink(missing_ok=True)
        self._state.release()

    def _launch(self, process: ManagedProcess) -> None:
        process.start()
        self._processes.append(process)
        self._note_processes()

    def _await(self, parts: Sequence[Part]) -> None:
        """Wait until every part says it is ready; a part that ends, or takes 180 s, is an error that names its log."""
        waiting, started = list(parts), time.monotonic()
        while waiting and not self._stopping.wait(0.1):
            for part in [part for part in waiting if part.is_ready()]:
                waiting.remove(part)
                self._say(f"{part.title} is ready after {time.monotonic() - started:.1f} s")
            for part in waiting:
                if part.process.exit_code is not None or time.monotonic() - started > START_SECONDS:
                    said = part.process.last_log_line() or "it said nothing"
                    raise StateError(f"{part.title} did not start: {said} (logs/{part.process.name}.log)")

    def _serve_api(self, controller: PlaneController, addresses: StackAddresses, ports: Ports) -> None:
        links = {"prefect": addresses.prefect_url.removesuffix("/api"), "mlflow": addresses.mlflow_url, "live": addresses.live_url}
        live = LivePage(controller, evidence_directory=self._state / "evidence", collector_url=addresses.collector_url, links=links)
        api = build_api(controller, live, token=self._state.read_token())
        config = uvicorn.Config(api, host="127.0.0.1", port=ports.page, log_level="warning", access_log=False)
        self._api = uvicorn.Server(config)
        threading.Thread(target=self._api.run, name="control-api", daemon=True).start()

    def _enforce_lease(self, controller: PlaneController) -> None:
        if (lost := controller.enforce_lease()) is not None:
            self._say(f"the lease of release {lost} expired: all traffic is back on the incumbent")

    def _repeat(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        """Do something for ever in a thread of its own; a failure is logged and the next turn comes all the same."""

        def loop() -> None:
            while not self._stopping.wait(seconds):
                try:
                    act()
                except ReleaseError as error:
                    log.warning("%s: %s", name, error)
                except Exception:  # the lease must go on being enforced whatever one turn stumbled over
                    log.exception("%s failed", name)

        threading.Thread(target=loop, name=name, daemon=True).start()

    def _choose_ports(self) -> Ports:
        options = self._options
        asked = {"live": options.live_port, "page": options.page_port, "mlflow": options.mlflow_port, "prefect": options.prefect_port}
        chosen = {name: choose_port(port, name=name) for name, port in asked.items()}
        while len({*chosen.values()}) < len(chosen) or not {"envoy_admin", "collector"} <= chosen.keys():
            chosen |= {name: choose_port(0, name=name) for name in ("envoy_admin", "collector")}
        return Ports(**chosen)

    def _addresses(self, ports: Ports) -> StackAddresses:
        at = "http://127.0.0.1"
        return StackAddresses(
            supervisor_pid=os.getpid(),
            live_url=f"{at}:{ports.live}",
            page_url=f"{at}:{ports.page}",
            envoy_admin_url=f"{at}:{ports.envoy_admin}",
            collector_url=f"{at}:{ports.collector}",
            mlflow_url=f"{at}:{ports.mlflow}",
            prefect_url=f"{at}:{ports.prefect}/api",
            model_name=self._options.model_name,
            profile_name=self._options.profile_name,
        )

    def _note_processes(self) -> None:
        """Write down who our children are, so that the next supervisor can end them if this one is killed."""
        pids = [process.pid for process in self._processes] + (self._servers.pids() if self._servers else [])
        if pids == self._noted_pids:
            return
        self._noted_pids, noted = pids, []
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                noted.append({"pid": pid, "created_at": psutil.Process(pid).create_time()})
        write_json(self._state / "processes.json", noted)

    def _stop_leftovers(self) -> None:
        for pid in leftovers(self._state / "processes.json"):
            stop_family(pid, grace_seconds=STOP_GRACE_SECONDS)


def leftovers(noted: Path) -> list[int]:
    """Processes that a killed supervisor left behind: noted, alive, and started at the very moment that was noted."""
    try:
        entries = json.loads(noted.read_text())
    except (OSError, ValueError):
        return []
    alive = []
    for entry in entries:
        with contextlib.suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(entry["pid"]).create_time() - entry["created_at"]) < 0.01:
                alive.append(int(entry["pid"]))
    return alive
