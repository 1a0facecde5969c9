"""A real Prefect server: a run whose process is gone is ended, and its deployment's one place is free for the next."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from interlock.adapters.prefect_api import PrefectApi
from interlock.control.reconcile import CRASH_GRACE_SECONDS, Reconciler
from interlock.control.releases import ReleaseIndex
from interlock.plane.sessions import started_at
from interlock.wiring import is_alive, is_running, this_process
from tests.worlds import World

ROOT = Path(__file__).parents[2]
KEYS = ("zombie:1", "zombie:2")


def eventually(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@contextlib.contextmanager
def worker(prefect_url: str, home: Path) -> Iterator[psutil.Process]:
    """A process worker of the pool `zombies`, in a session of its own, ended with all it started."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "zombies", "--type", "process"]
    settings = {"PREFECT_API_URL": prefect_url, "PREFECT_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = psutil.Process(started.pid)
    try:
        yield process
    finally:
        kill_family(process)
        started.wait()


def kill_family(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


@pytest.fixture
def deployed(prefect_url: str) -> str:
    """The deployment `release/zombies` with room for one run, of a flow that sleeps."""
    api = httpx.Client(base_url=prefect_url, timeout=60)
    api.post("/work_pools/", json={"name": "zombies", "type": "process", "base_job_template": {}})
    flow = api.post("/flows/", json={"name": "release"}).raise_for_status().json()
    deployment = {"name": "zombies", "flow_id": flow["id"], "entrypoint": "tests.flows.sleeper.sleeper", "work_pool_name": "zombies"}
    limits = {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "ENQUEUE"}, "pull_steps": []}
    api.post("/deployments/", json=deployment | limits).raise_for_status()
    return "release/zombies"


@dataclass
class Rig:
    """Two runs that were asked for, one place, and who looks after them."""

    api: PrefectApi
    deployment: str
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        parameters = {"model_name": "late", "version": "2", "profile_name": "short"}
        for key in KEYS:
            self.api.submit(self.deployment, parameters, idempotency_key=key)
        self.reconciler = Reconciler(
            traffic=self.world.traffic,
            registry=self.world.registry,
            evidence=self.world.evidence,
            clock=self.world.clock,
            runs=self.api,
            index=ReleaseIndex(self.world.evidence),
            is_alive=is_alive,
            is_running=is_running,
        )

    def states(self) -> dict[str, str]:
        return {run.run_id: run.state_name for run in self.api.read_by_key(KEYS).values()}

    def only_run(self) -> tuple[str, int]:
        """The run that holds the place, and its process."""
        eventually(lambda: "Running" in self.states().values())
        (run,) = self.api.read_under_way(self.deployment)
        assert run.pid is not None
        assert started_at(run.pid)
        return run.run_id, run.pid

    def looked_after(self) -> None:
        self.reconciler.poll()
        self.world.clock.seconds += CRASH_GRACE_SECONDS
        self.reconciler.poll()


@pytest.mark.timeout(400)
def test_a_run_whose_worker_and_process_were_killed_is_ended_and_the_next_one_starts(
    prefect_url: str, deployed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.control.reconcile.RELEASE_DEPLOYMENT", deployed)
    rig = Rig(PrefectApi(prefect_url, timeout_seconds=60), deployed)
    with worker(prefect_url, tmp_path):
        zombie, pid = rig.only_run()
        rig.looked_after()
        assert rig.states()[zombie] == "Running", "it lives"
    eventually(lambda: not started_at(pid))
    with worker(prefect_url, tmp_path):
        eventually(lambda: "AwaitingConcurrencySlot" in rig.states().values())
        assert rig.states()[zombie] == "Running", "nobody is left to say anything else, and it keeps the place"
        rig.reconciler.poll()
        assert rig.states()[zombie] == "Running", "the runner may still say so itself"
        rig.looked_after()
        assert rig.states()[zombie] == "Crashed"
        last, pid = rig.only_run()
        mark = asdict(this_process()) | {"pid": pid, "started": started_at(pid)}
        rig.world.evidence.append("r", "intake", {"candidate": "late/2", "flow_run_id": last, "process": mark})
        rig.world.evidence.append("r", "decision", {"decision": "Held", "reason": "not proved"})
    eventually(lambda: not started_at(pid))
    rig.looked_after()
    assert rig.states() == {zombie: "Crashed", last: "Held"}
    assert rig.api.read_state(last) == ("Held", "not proved")
    assert rig.api.read_under_way(deployed) == []
