"""
Starts, supervises and stops the embedded stack.

Threads: lease (5 times a second), model server health, spare, live traffic, intake, control API, one for each process that is watched; one
for each call of `on_lost` and `on_start`. The main thread prints what the others have to say, and waits for the signal to stop. A
supervisor that was killed leaves everything running, and the next one takes over what still works: users notice nothing.

The lease thread waits for Envoy's admin (1 s a call at most) and for the controller's lock. Under that lock others wait for Envoy too (5 s
at most, for endpoints), write a small file or start a process; nobody reads model files, stops a process or prints under it.
"""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict

import uvicorn

from interlock.errors import ReleaseError, StateError
from interlock.model.release import ModelVersion
from interlock.plane import stack
from interlock.plane.addresses import UpOptions, choose_ports, stack_addresses
from interlock.plane.announcements import Announcements
from interlock.plane.api import build_api
from interlock.plane.controller import PlaneController
from interlock.plane.endpoints import write_arms
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.fleet import Fleet, Member
from interlock.plane.fuse_signs import BEAT_FILE, is_beating
from interlock.plane.leftovers import Leftovers, ProcessNotes
from interlock.plane.live import LivePage
from interlock.plane.model_servers import ModelServers
from interlock.plane.process import Note
from interlock.plane.stack import Part, Ports
from interlock.plane.startup import await_deployments, await_parts, make_work_pool
from interlock.plane.state_directory import StackAddresses, StateDirectory
from interlock.ports import Clock

STOP_GRACE_SECONDS = 8.0
LEASE_TICK_SECONDS = 0.2
HEALTH_TICK_SECONDS = 0.5
INTAKE_TICK_SECONDS = 2.0
TRAFFIC_TICK_SECONDS = 5.0
NOTE_TICK_SECONDS = 0.25
WATCH_SECONDS: Mapping[str, tuple[float, float]] = {
    # How often each part is looked at, and how long it may be silent before it counts as hanging. Users wait for Envoy; a database that
    # other processes write to may hold up the servers of MLflow and Prefect for many seconds, and nobody's traffic depends on them.
    "envoy": (0.1, 0.6),
    "fuse": (0.5, 2.0),
    "collector": (0.5, 10.0),
    "mlflow": (1.0, 60.0),
    "prefect": (1.0, 60.0),
}

Say = Callable[[str], None]
log = logging.getLogger("interlock.supervisor")


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
        self._fleet = Fleet(say=self._announcements.say, on_change=self._note_processes)
        self._notes = ProcessNotes(state / "processes.json", read=self._read_notes)
        self._servers: ModelServers | None = None
        self._controller: PlaneController | None = None
        self._incumbent_failure: str | None = None
        self._leftovers: Leftovers | None = None
        self._leaves_running = False
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
                self._leaves_running = True  # until everything is up, what a killed supervisor left goes on serving users
                addresses = self._start()
                self._leaves_running = False
                if not self._stopping.is_set():
                    on_ready(addresses)
                self._supervise()
            finally:
                self._stop()

    def _start(self) -> StackAddresses:
        self._leftovers = leftovers = Leftovers(self._state / "processes.json", log_directory=self._state / "logs")
        ports = choose_ports(self._options, leftovers.ports)
        addresses = stack_addresses(self._options, ports)
        members, worker = self._gather(ports, leftovers)
        for member in members:
            self._fleet.launch(member)
        await_parts(self._parts[:2], pause=self._pause, say=self._announcements.say)
        self._controller = controller = self._start_controller(addresses, leftovers)
        self._launch_watched(Member(stack.fuse_process(self._state, ports), self._fuse_beats, WATCH_SECONDS["fuse"][1]))
        for member in members[:2]:
            self._watch(member)
        self._serve_api(controller, addresses, ports)
        self._repeat("lease", LEASE_TICK_SECONDS, lambda: self._enforce_lease(controller))
        self._repeat("health", HEALTH_TICK_SECONDS, lambda: self._watch_servers(controller))
        self._repeat("spare", HEALTH_TICK_SECONDS, controller.keep_spare)
        self._repeat("traffic", TRAFFIC_TICK_SECONDS, controller.capture_counts)
        leftovers.stop(grace_seconds=STOP_GRACE_SECONDS)  # servers of a candidate that nobody releases any more
        await_parts(self._parts[2:], pause=self._pause, say=self._announcements.say)
        for member in members[2:]:
            self._watch(member)
        self._start_worker(worker, ports)
        self._state.write_addresses(addresses)  # the sign that everything is up
        self._in_background("on start", lambda: self._on_start(controller.incumbent))
        self._repeat("intake", INTAKE_TICK_SECONDS, self._poll_registry)
        return addresses

    def _gather(self, ports: Ports, leftovers: Leftovers) -> tuple[list[Member], Member]:
        """The parts and the worker, each with the process that a killed supervisor left running, if it still works; the rest is ended."""
        envoy = stack.envoy_part(self._state, ports, input_share_bps=self._options.input_share_bps)
        others = (stack.collector_part, stack.mlflow_part, stack.prefect_part)
        self._parts = [envoy, *(build(self._state, ports) for build in others)]
        members = [Member(part.process, part.is_ready, WATCH_SECONDS[part.process.name][1]) for part in self._parts]
        members[0].is_answering = stack.EnvoyLook(ports)
        worker = Member(stack.worker_process(self._state, ports))
        taken = [member for member in (*members, worker) if self._fleet.take_over(member, leftovers)]
        if members[0] not in taken:  # an Envoy that starts must not find the servers of the last time in its files
            write_arms(self._state / "envoy", incumbent=[], candidate=[])
        if members[0] in taken:
            with contextlib.suppress(ReleaseError):  # at once: the fuse that guarded its split ends here
                EnvoyAdmin(f"http://127.0.0.1:{ports.envoy_admin}").set_split(0, mirror=False, quiet=True)
        leftovers.stop(grace_seconds=STOP_GRACE_SECONDS, but=lambda name: name.startswith("model-"))
        leftovers.stop_unnoted(grace_seconds=STOP_GRACE_SECONDS)
        with contextlib.suppress(OSError):
            self._notes.note_ports(asdict(ports))
        return members, worker

    def _start_controller(self, addresses: StackAddresses, leftovers: Leftovers) -> PlaneController:
        self._servers = ModelServers(
            models_directory=self._state / "models",
            log_directory=self._state / "logs",
            on_started=self._note_processes,
            leftovers=leftovers,
        )
        controller = PlaneController(
            admin=EnvoyAdmin(addresses.envoy_admin_url),
            servers=self._servers,
            endpoints_directory=self._state / "envoy",
            state_file=self._state / "plane.json",
            clock=self._clock,
        )
        controller.start()
        return controller

    def _start_worker(self, worker: Member, ports: Ports) -> None:
        """Start the worker and register the Prefect deployments; returns when all of them were read back."""
        if self._stopping.is_set():
            return
        make_work_pool(ports, pause=self._pause)
        self._launch_watched(worker)
        deploy = Member(stack.deploy_process(self._state, ports))
        self._fleet.launch(deploy)
        await_deployments(ports, deploy.process, pause=self._pause)
        self._fleet.retire(deploy, grace_seconds=STOP_GRACE_SECONDS)
        self._announcements.say(f"Prefect deployments registered: {', '.join(sorted(stack.declared_deployments()))}")

    def _launch_watched(self, member: Member) -> None:
        self._fleet.launch(member)
        self._watch(member)

    def _watch(self, member: Member) -> None:
        name = member.process.name
        self._repeat(f"watch {name}", WATCH_SECONDS.get(name, (NOTE_TICK_SECONDS, 0.0))[0], lambda: self._fleet.look(member))

    def _fuse_beats(self) -> bool:
        return is_beating(self._state / BEAT_FILE, within_seconds=3.0)  # it beats five times a second, and every 1.5 s while Envoy hangs

    def _supervise(self) -> None:
        while not self._pause(NOTE_TICK_SECONDS):
            self._note_processes()

    def _pause(self, seconds: float) -> bool:
        """Print what there is to say and wait; True when it is time to stop. For the main thread."""
        self._announcements.print_all()
        return self._stopping.wait(seconds)

    def _stop(self) -> None:
        """Stop everything. After a start that failed, what a killed supervisor had left, and what was taken over of it, runs on."""
        leaves = self._leaves_running and not self._stopping.is_set() and self._leftovers is not None and self._leftovers.is_serving
        self._stopping.set()
        self._restore_incumbent()
        self._announcements.say("stopping; what was found running runs on" if leaves else "stopping")
        self._announcements.print_all()
        if self._api:
            self._api.should_exit = True
        self._fleet.stop_all(grace_seconds=STOP_GRACE_SECONDS, keeps_taken_over=leaves)
        if not leaves:
            if self._servers:
                self._servers.stop_all()
            if self._leftovers:
                self._leftovers.stop(grace_seconds=STOP_GRACE_SECONDS)
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

    def _serve_api(self, controller: PlaneController, addresses: StackAddresses, ports: Ports) -> None:
        links = {"prefect": addresses.prefect_url.removesuffix("/api"), "mlflow": addresses.mlflow_url, "live": addresses.live_url}
        live = LivePage(controller, evidence_directory=self._state / "evidence", collector_url=addresses.collector_url, links=links)
        api = build_api(controller, live, token=self._state.read_token())
        # Without a logging configuration of its own, what it logs is handled like everything else: by the main thread.
        config = uvicorn.Config(api, log_config=None, log_level="warning", access_log=False, limit_concurrency=200)
        self._api = server = uvicorn.Server(config)
        try:
            listening = socket.create_server(("127.0.0.1", ports.page))  # here, where a port that was taken meanwhile is an error
        except OSError as error:
            raise StateError(f"port {ports.page} for the control API is in use by now: start again") from error
        threading.Thread(target=lambda: server.run(sockets=[listening]), name="control-api", daemon=True).start()

    def _enforce_lease(self, controller: PlaneController) -> None:
        if (lost := controller.enforce_lease()) is not None:
            self._announcements.say(f"the lease of release {lost.release_id} expired: all traffic is back on the incumbent")
            self._in_background("on lost", lambda: self._on_lost(lost.release_id, lost.candidate))

    def _watch_servers(self, controller: PlaneController) -> None:
        controller.watch_servers()
        before, self._incumbent_failure = self._incumbent_failure, controller.incumbent_failure()
        if (failure := self._incumbent_failure) and failure != before:
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

    def _read_notes(self) -> list[Note]:
        pending = self._leftovers.pending() if self._leftovers else []
        return [*self._fleet.notes(), *(self._servers.notes() if self._servers else []), *pending]

    def _note_processes(self) -> None:
        """Write down who our children are, so that the next supervisor can take them over if this one is killed."""
        with contextlib.suppress(OSError):  # a full disk must not end the supervision; the next turn tries again
            self._notes.note()
