"""
Starts, supervises and stops the embedded stack.

Threads: lease (5 times a second), model server health, intake, control API; and one for each call of `on_lost` and `on_start`. The main
thread restarts what died, prints what the others have to say, and waits for the signal to stop.

The lease thread waits for Envoy's admin (1 s a call at most) and for the controller's lock. Under that lock others wait for Envoy too (5 s
at most, for endpoints), write a small file or start a process; nobody reads model files, stops a process or prints under it.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from interlock.errors import ReleaseError, StateError
from interlock.model.release import ModelVersion
from interlock.plane import stack
from interlock.plane.announcements import Announcements
from interlock.plane.api import build_api
from interlock.plane.controller import PlaneController
from interlock.plane.endpoints import write_arms
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.leftovers import ProcessNotes
from interlock.plane.live import LivePage
from interlock.plane.model_servers import ModelServers
from interlock.plane.process import ManagedProcess, choose_port
from interlock.plane.stack import Part, Ports
from interlock.plane.state_directory import StackAddresses, StateDirectory
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
    profile_names: tuple[str, ...]
    profiles_directory: Path
    data_directory: Path
    live_port: int = 0
    page_port: int = 0
    mlflow_port: int = 0
    prefect_port: int = 0


class Supervisor:
    """
    One embedded stack. `run` blocks until SIGINT or SIGTERM and leaves no process behind.

    `on_lost` is told which release lost the plane because its lease ran out, and that release's candidate; `on_start`, once everything
    is up, who is the incumbent. Each call has a thread of its own; what it raises is logged.
    """

    def __init__(  # noqa: PLR0913  what a stack is made of, each by name
        self,
        state: StateDirectory,
        options: UpOptions,
        *,
        clock: Clock,
        say: Say,
        poll_registry: Callable[[], object],
        on_lost: Callable[[str, ModelVersion | None], None] = lambda release_id, candidate: None,
        on_start: Callable[[ModelVersion | None], None] = lambda incumbent: None,
    ) -> None:
        self._state, self._options, self._clock = state, options, clock
        self._announcements = Announcements(say)
        self._poll_registry, self._on_lost, self._on_start = poll_registry, on_lost, on_start
        self._stopping = threading.Event()
        self._parts: list[Part] = []
        self._processes: list[ManagedProcess] = []
        self._notes = ProcessNotes(state / "processes.json", log_directory=state / "logs", pids=self._pids)
        self._servers: ModelServers | None = None
        self._controller: PlaneController | None = None
        self._incumbent_failure: str | None = None
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
        with self._announcements.instead_of_logging():
            try:
                self._notes.stop_leftovers(grace_seconds=STOP_GRACE_SECONDS)
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
        self._servers = ModelServers(
            models_directory=self._state / "models", log_directory=self._state / "logs", on_started=self._note_processes
        )
        self._await(self._parts[:2])
        self._controller = controller = PlaneController(
            admin=EnvoyAdmin(addresses.envoy_admin_url),
            servers=self._servers,
            endpoints_directory=self._state / "envoy",
            state_file=self._state / "plane.json",
            clock=self._clock,
        )
        controller.start()
        self._launch(stack.fuse_process(self._state, ports))
        self._serve_api(controller, addresses, ports)
        self._repeat("lease", LEASE_TICK_SECONDS, lambda: self._enforce_lease(controller))
        self._repeat("health", HEALTH_TICK_SECONDS, lambda: self._watch_servers(controller))
        self._await(self._parts[2:])
        self._start_worker(ports)
        self._state.write_addresses(addresses)  # the sign that everything is up
        self._in_background("on start", lambda: self._on_start(controller.incumbent))
        self._repeat("intake", INTAKE_TICK_SECONDS, self._poll_registry)
        return addresses

    def _start_worker(self, ports: Ports) -> None:
        """Start the worker and register the Prefect deployments; returns when all of them were read back."""
        if self._stopping.is_set():
            return
        stack.create_work_pool(ports)
        worker, deploy = stack.worker_process(self._state, ports), stack.deploy_process(self._state, ports)
        self._launch(worker)
        self._launch(deploy)
        deadline = time.monotonic() + START_SECONDS
        while (missing := stack.declared_deployments() - stack.registered_deployments(ports)) and not self._pause(0.5):
            if deploy.exit_code not in (None, 0) or time.monotonic() > deadline:
                deploy.stop(grace_seconds=STOP_GRACE_SECONDS)
                raise StateError(f"Prefect deployments {', '.join(sorted(missing))} were not registered: see logs/prefect-deploy.log")
        while deploy.exit_code is None and not self._pause(0.1):
            pass
        deploy.stop(grace_seconds=STOP_GRACE_SECONDS)
        self._processes.remove(deploy)  # it has done its work: nobody starts it again
        self._announcements.say(f"Prefect deployments registered: {', '.join(sorted(stack.declared_deployments()))}")

    def _supervise(self) -> None:
        while not self._pause(PART_TICK_SECONDS):
            for process in self._processes:
                if process.restart_if_dead():
                    self._note_processes()
                    self._announcements.say(f"{process.name} had ended and was restarted (restart {process.restart_count})")
            self._note_processes()

    def _pause(self, seconds: float) -> bool:
        """Print what there is to say and wait; True when it is time to stop. For the main thread."""
        self._announcements.print_all()
        return self._stopping.wait(seconds)

    def _stop(self) -> None:
        self._stopping.set()
        self._restore_incumbent()
        self._announcements.say("stopping")
        self._announcements.print_all()
        if self._api:
            self._api.should_exit = True
        for process in reversed(self._processes):
            process.stop(grace_seconds=STOP_GRACE_SECONDS)
        if self._servers:
            self._servers.stop_all()
        self._notes.forget()
        self._state.release()
        self._announcements.print_all()

    def _restore_incumbent(self) -> None:
        """A release that is under way ends here: its traffic goes back while Envoy is still there to take it back."""
        if self._controller is None or self._controller.release_id is None:
            return
        try:
            self._controller.restore_incumbent(reason="interlock up is stopping")
        except ReleaseError as error:  # Envoy may be gone already; the next start begins with the safe split
            log.warning("the incumbent could not be asked for before stopping: %s", error)

    def _launch(self, process: ManagedProcess) -> None:
        process.start()
        self._processes.append(process)
        self._note_processes()

    def _await(self, parts: Sequence[Part]) -> None:
        """Wait until every part says it is ready; a part that ends, or takes 180 s, is an error that names its log."""
        waiting, started = list(parts), time.monotonic()
        while waiting and not self._pause(0.1):
            for part in [part for part in waiting if part.is_ready()]:
                waiting.remove(part)
                self._announcements.say(f"{part.title} is ready after {time.monotonic() - started:.1f} s")
            for part in waiting:
                if part.process.exit_code is not None or time.monotonic() - started > START_SECONDS:
                    said = part.process.last_log_line() or "it said nothing"
                    raise StateError(f"{part.title} did not start: {said} (logs/{part.process.name}.log)")

    def _serve_api(self, controller: PlaneController, addresses: StackAddresses, ports: Ports) -> None:
        links = {"prefect": addresses.prefect_url.removesuffix("/api"), "mlflow": addresses.mlflow_url, "live": addresses.live_url}
        live = LivePage(controller, evidence_directory=self._state / "evidence", collector_url=addresses.collector_url, links=links)
        api = build_api(controller, live, token=self._state.read_token())
        # Without a logging configuration of its own, what it logs is handled like everything else: by the main thread.
        config = uvicorn.Config(api, host="127.0.0.1", port=ports.page, log_config=None, log_level="warning", access_log=False)
        self._api = uvicorn.Server(config)
        threading.Thread(target=self._api.run, name="control-api", daemon=True).start()

    def _enforce_lease(self, controller: PlaneController) -> None:
        if (lost := controller.enforce_lease()) is not None:
            self._announcements.say(f"the lease of release {lost.release_id} expired: all traffic is back on the incumbent")
            self._in_background("on lost", lambda: self._on_lost(lost.release_id, lost.candidate))

    def _watch_servers(self, controller: PlaneController) -> None:
        controller.watch_servers()
        failure, before = controller.incumbent_failure(), self._incumbent_failure
        self._incumbent_failure = failure
        if failure and failure != before:
            self._announcements.say(failure)

    def _in_background(self, name: str, act: Callable[[], object]) -> None:
        def once() -> None:
            try:
                act()
            except Exception:  # it is somebody else's business, and must not end in a thread that nobody sees
                log.exception("%s failed", name)

        threading.Thread(target=once, name=name, daemon=True).start()

    def _repeat(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        """Do something for ever in a thread of its own; a failure is logged, once while it lasts, and the next turn comes all the same."""

        def loop() -> None:
            trouble = ""
            while not self._stopping.wait(seconds):
                try:
                    act()
                    trouble = ""
                except ReleaseError as error:
                    if (told := str(error)) != trouble:
                        log.warning("%s: %s", name, told)
                    trouble = told
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
            profile_names=list(self._options.profile_names),
            profiles_directory=str(self._options.profiles_directory),
            data_directory=str(self._options.data_directory),
        )

    def _pids(self) -> list[int]:
        return [process.pid for process in list(self._processes)] + (self._servers.pids() if self._servers else [])

    def _note_processes(self) -> None:
        """Write down who our children are, so that the next supervisor can end them if this one is killed."""
        with contextlib.suppress(OSError):  # a full disk must not end the supervision; the next turn tries again
            self._notes.note()
