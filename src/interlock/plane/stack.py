"""The processes of the embedded stack: how each is started, and how it says that it is ready."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path

import httpx

from interlock.errors import PolicyError
from interlock.plane.envoy_config import envoy_command, write_configuration
from interlock.plane.envoy_settings import READY_PATH, EnvoySettings
from interlock.plane.look import answer_of
from interlock.plane.process import ManagedProcess
from interlock.plane.state_directory import StateDirectory

WORK_POOL = "interlock"
ENVOY_LOOK_SECONDS = 0.25  # two looks of two questions each are 1 s, and an outage must be over within 2
ADMIN_SILENT_SECONDS = 5.0
QUIET_LIBRARIES = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONUNBUFFERED": "1",
    "NO_PROXY": "127.0.0.1,localhost",  # a proxy of the environment has no business between processes of one machine
    "no_proxy": "127.0.0.1,localhost",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the stack."""

    live: int
    page: int
    mlflow: int
    prefect: int
    envoy_admin: int
    collector: int


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack and the address that answers 200 when it is ready."""

    title: str
    process: ManagedProcess
    ready_url: str

    def is_ready(self) -> bool:
        """One look, half a second at most. Raises CannotLook."""
        return answer_of(self.ready_url, timeout_seconds=0.5) == HTTPStatus.OK


class EnvoyLook:
    """Whether Envoy does its work: for users, and for those who must be able to give traffic back through its admin."""

    def __init__(self, ports: Ports) -> None:
        self._admin_url, self._live_url = f"http://127.0.0.1:{ports.envoy_admin}/ready", f"http://127.0.0.1:{ports.live}/ping"
        self._admin_at = time.monotonic()

    def __call__(self) -> bool:
        """
        One look, half a second at most. An admin that is silent counts at once when users get no answer either, else after 5 s.

        Raises:
            CannotLook: nobody knows.
        """
        if answer_of(self._admin_url, timeout_seconds=ENVOY_LOOK_SECONDS) is not None:
            self._admin_at = time.monotonic()
            return True
        if time.monotonic() - self._admin_at > ADMIN_SILENT_SECONDS:
            return False
        return answer_of(self._live_url, timeout_seconds=ENVOY_LOOK_SECONDS) is not None


def envoy_part(state: StateDirectory, ports: Ports, *, input_share_bps: int) -> Part:
    """Envoy with its configuration written; the endpoint files must exist already."""
    settings = EnvoySettings(
        live_port=ports.live,
        admin_port=ports.envoy_admin,
        collector_port=ports.collector,
        endpoints_directory=state / "envoy",
        input_share_bps=input_share_bps,
    )
    command = envoy_command(settings, write_configuration(settings))
    # With its admin's port: whoever takes it over has to find it there, and its command does not say.
    process = ManagedProcess("envoy", command, log_directory=state / "logs", port=ports.envoy_admin)
    return Part("Envoy", process, f"http://127.0.0.1:{ports.live}{READY_PATH}")


def collector_part(state: StateDirectory, ports: Ports) -> Part:
    """The collector of the prediction journal."""
    command = [sys.executable, "-m", "interlock.serving.collector", "--port", str(ports.collector), "--directory", str(state / "journal")]
    return Part(
        "prediction journal",
        ManagedProcess("collector", command, log_directory=state / "logs"),
        f"http://127.0.0.1:{ports.collector}/metrics",
    )


def fuse_process(state: StateDirectory, ports: Ports) -> ManagedProcess:
    """Enforces the lease when nobody else does."""
    command = [
        *(sys.executable, "-m", "interlock.plane.fuse", "--admin-port", str(ports.envoy_admin)),
        *("--stamp", str(state / "lease.json"), "--supervisor-pid", str(os.getpid())),
    ]
    return ManagedProcess("fuse", command, log_directory=state / "logs")


def mlflow_part(state: StateDirectory, ports: Ports) -> Part:
    """MLflow tracking server and registry: SQLite, artifacts in the state directory, served through the server."""
    root = state / "mlflow"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(ports.mlflow), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", "--artifacts-destination", str(root / "artifacts")),
    ]
    environment = {**QUIET_LIBRARIES, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = ManagedProcess("mlflow", command, log_directory=state / "logs", environment=environment)
    return Part("MLflow", process, f"http://127.0.0.1:{ports.mlflow}/health")


def prefect_part(state: StateDirectory, ports: Ports) -> Part:
    """The Prefect server, on SQLite in the state directory."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(ports.prefect)]
    process = ManagedProcess("prefect", command, log_directory=state / "logs", environment=prefect_environment(state, ports))
    return Part("Prefect", process, f"http://127.0.0.1:{ports.prefect}/api/health")


def worker_process(state: StateDirectory, ports: Ports) -> ManagedProcess:
    """The process worker that runs the flows."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--name", "interlock-worker"]
    environment = {**prefect_environment(state, ports), "INTERLOCK_STATE_DIR": str(state.root)}
    return ManagedProcess("prefect-worker", command, log_directory=state / "logs", environment=environment)


def deploy_process(state: StateDirectory, ports: Ports) -> ManagedProcess:
    """Registers every Prefect deployment of prefect.yaml, then ends."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file())]
    return ManagedProcess("prefect-deploy", command, log_directory=state / "logs", environment=prefect_environment(state, ports))


def prefect_environment(state: StateDirectory, ports: Ports) -> Mapping[str, str]:
    """Prefect's settings for server, worker and flow runs; nobody's home profile matters."""
    return {
        **QUIET_LIBRARIES,
        "PYTHONDONTWRITEBYTECODE": "1",  # a gate that imports a model's code must not write into the files that were judged
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{ports.prefect}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "5",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "30",  # SQLite has one writer: a busy machine needs longer than the 10 s of the default
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "30",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def create_work_pool(ports: Ports) -> None:
    """Make the work pool unless it exists; the worker fills in its template."""
    url = f"http://127.0.0.1:{ports.prefect}/api/work_pools/"
    answer = httpx.post(url, json={"name": WORK_POOL, "type": "process", "base_job_template": {}}, timeout=10, trust_env=False)
    if answer.status_code not in (200, 201, 409):
        raise PolicyError(f"Prefect did not make the work pool {WORK_POOL} ({answer.status_code}): see logs/prefect.log")


def registered_deployments(ports: Ports) -> set[str]:
    """`flow/deployment` of everything registered, read back from the Prefect server."""
    api = f"http://127.0.0.1:{ports.prefect}/api"
    deployments = httpx.post(f"{api}/deployments/filter", json={}, timeout=10, trust_env=False).json()
    flows = {flow["id"]: flow["name"] for flow in httpx.post(f"{api}/flows/filter", json={}, timeout=10, trust_env=False).json()}
    return {f"{flows.get(item['flow_id'])}/{item['name']}" for item in deployments}


def prefect_file() -> Path:
    """prefect.yaml: the packaged copy, else the source checkout's."""
    package = Path(str(files("interlock")))
    for candidate in (package / "_prefect.yaml", package.parent.parent / "prefect.yaml"):
        if candidate.is_file():
            return candidate
    raise PolicyError("prefect.yaml is not installed with interlock: install the wheel again")


def declared_deployments() -> set[str]:
    """`flow/deployment` of everything in prefect.yaml."""
    import yaml

    declared = yaml.safe_load(prefect_file().read_text(encoding="utf-8"))["deployments"]
    return {f"{item['entrypoint'].split('.')[-1]}/{item['name']}" for item in json.loads(json.dumps(declared))}
