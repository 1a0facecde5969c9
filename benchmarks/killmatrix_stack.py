"""The stack under test: `interlock up` under an init system that starts it again, with users on it and two models that take turns."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from benchmarks.killmatrix_watch import Watch
from interlock.demo.driver import MODEL_NAME, Demo, train
from interlock.demo.models import TrainedModel, register
from interlock.demo.scenarios import SCENARIOS
from interlock.demo.served import CONDITIONS_VARIABLE
from interlock.demo.traffic import LiveTraffic
from interlock.errors import ServiceUnavailable
from interlock.plane.process import choose_port
from interlock.plane.state_directory import StackAddresses, StateDirectory

PROFILE_NAME = "killmatrix"
PROFILES = Path(__file__).parent / "profiles"
REQUESTS_PER_SECOND = 110.0  # at least 100 are promised; the rest is for a machine that is late now and then
UP_SECONDS = 240.0
STOP_SECONDS = 60.0
START_AGAIN_SECONDS = 1.0  # an init system's usual pause (systemd: RestartSec=1)
MODELS = tuple(replace(SCENARIOS[0], key=key, seed=seed) for key, seed in (("first", 11), ("second", 12)))


class InitSystem:
    """Keeps one command running, as systemd would: whatever ends is started again with the same arguments a second later."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._stopping = threading.Event()
        self.start_count = 0
        self._child = self._start()
        self._thread = threading.Thread(target=self._run, name="init", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the child that was started last."""
        return self._child.pid

    def stop(self) -> None:
        """End the command, and start it no more."""
        self._stopping.set()
        self._thread.join()
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self._child.pid).resume()
        self._child.terminate()
        try:
            self._child.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.start_count += 1
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, env=self._environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            if self._child.poll() is not None and not self._stopping.wait(START_AGAIN_SECONDS):
                self._child = self._start()


@dataclass(frozen=True, slots=True)
class Rig:
    """A running stack, its users, the two models, and the versions that were registered, with the key of each one's fault."""

    state: StateDirectory
    demo: Demo
    traffic: LiveTraffic
    watch: Watch
    init: InitSystem
    models: tuple[TrainedModel, ...]
    fault_keys: dict[str, str]
    conditions: Path

    @property
    def addresses(self) -> StackAddresses:
        """As they are now."""
        return self.state.read_addresses()

    def register_other(self, incumbent: str) -> str:
        """
        A new version of the model that does not serve. Each release gets its own: files that were rolled back are refused for good.
        """
        other = next(model for model in self.models if model.fault_key != self.fault_keys[incumbent])
        version = register(other, MODEL_NAME, tracking_uri=self.addresses.mlflow_url)
        self.fault_keys[version] = other.fault_key
        return version


@contextmanager
def running_rig(root: Path, console: Console) -> Iterator[Rig]:
    """A stack in `root` with its first incumbent, and users on it; stopped in the end."""
    state, conditions = StateDirectory(root), root / "conditions.json"
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        init = InitSystem(_command(root), _environment(conditions), root / "up.log")
        running.callback(init.stop)
        data, _, models = train(state, MODELS, console)
        addresses = when_up(state, init)
        demo = Demo(state, addresses, data, conditions, console)
        demo.adopt(models[0])
        traffic = running.enter_context(LiveTraffic(addresses.live_url, data.live, REQUESTS_PER_SECOND))
        watch = running.enter_context(Watch(root))
        yield Rig(state, demo, traffic, watch, init, tuple(models), {"1": MODELS[0].key}, conditions)


def when_up(state: StateDirectory, init: InitSystem) -> StackAddresses:
    """Wait until the supervisor that was started last says that everything is up."""
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        if is_up(state, init):
            return state.read_addresses()
        time.sleep(0.1)
    raise ServiceUnavailable(f"the stack was not up after {UP_SECONDS:g} s: see {state / 'up.log'}")


def is_up(state: StateDirectory, init: InitSystem) -> bool:
    """Whether the addresses are those of the supervisor that runs now, and all of them answer."""
    with suppress(Exception):  # whatever does not work is not up
        addresses = state.read_addresses()
        health = (f"{addresses.prefect_url}/health", f"{addresses.mlflow_url}/health", f"{addresses.page_url}/ping")
        is_answered = all(httpx.get(url, timeout=2.0, trust_env=False).status_code == 200 for url in health)
        return addresses.supervisor_pid == init.pid and psutil.Process(init.pid).status() != psutil.STATUS_STOPPED and is_answered
    return False


def _command(root: Path) -> list[str]:
    """With ports of its own choice: a second start has to come up where users and clients look for it."""
    ports: dict[str, int] = {}
    while len(set(ports.values())) < 4:
        ports = {name: choose_port(0, name=name) for name in ("live", "page", "mlflow", "prefect")}
    asked = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    return [sys.executable, "-m", "interlock", "up", "--model", MODEL_NAME, "--profile", PROFILE_NAME, *asked, "--state", str(root)]


def _environment(conditions: Path) -> dict[str, str]:
    settings = {CONDITIONS_VARIABLE: str(conditions), "INTERLOCK_PROFILES_DIR": str(PROFILES), "DO_NOT_TRACK": "true"}
    return {**os.environ, **settings}
