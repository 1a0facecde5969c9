"""
The whole product on this machine: real Prefect, MLflow, Envoy and model servers, real flights, real faults.

One stack for the module, because it takes a minute to start. The tests run in the order of the file: each leaves the plane idle.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest
from rich.console import Console

from interlock.adapters.mlflow_registry import MlflowRegistry
from interlock.adapters.prefect_api import PrefectApi
from interlock.demo.driver import MODEL_NAME, REQUESTS_PER_SECOND, Demo, running_stack, train
from interlock.demo.models import TrainedModel, register
from interlock.demo.scenarios import SCENARIOS
from interlock.demo.traffic import LiveTraffic
from interlock.errors import ServiceUnavailable
from interlock.model.plane import PlaneState
from interlock.model.release import Decision
from interlock.plane.envoy_admin import EnvoyAdmin
from interlock.plane.process import family
from interlock.plane.state_directory import StackAddresses, StateDirectory

T = TypeVar("T")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ENDED = {"Promoted", "Held", "Rejected", "RolledBack", "Failed", "Crashed", "TimedOut"}
LEASE_SECONDS = 10.0  # profiles/short.yaml
PROFILES = Path(__file__).parent / "profiles"
BETTER, SKEWED = SCENARIOS[0], replace(SCENARIOS[1], fault_after_seconds=1.0)


@dataclass(frozen=True)
class Stack:
    """A running stack with its incumbent, users, and two trained candidates."""

    state: StateDirectory
    addresses: StackAddresses
    demo: Demo
    traffic: LiveTraffic
    better: TrainedModel
    skewed: TrainedModel
    processes: list[psutil.Process]

    @property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.addresses.mlflow_url)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """An `interlock` command on this stack."""
        command = [sys.executable, "-m", "interlock", *arguments, "--state", str(self.state.root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def release(self, version: str, *, profile: str = "short") -> tuple[str, str]:
        """Ask Prefect for a release and return the name and message of the state it ended in."""
        run_id = self.submit(version, profile)
        return eventually(lambda: self.state_of(run_id), lambda state: state[0] in ENDED, seconds=240)

    def submit(self, version: str, profile: str) -> str:
        """Ask Prefect for a release, again while its SQLite is busy, as the intake does: the key makes it one run."""
        parameters = {"model_name": MODEL_NAME, "version": version, "profile_name": profile}

        def ask() -> str:
            try:
                key = f"test:{version}:{profile}"
                return PrefectApi(self.addresses.prefect_url).submit("release/release", parameters, idempotency_key=key)
            except ServiceUnavailable:
                return ""

        return eventually(ask, bool, seconds=60)

    def state_of(self, run_id: str) -> tuple[str, str]:
        """State name and message of a run; unknown while Prefect is busy."""
        try:
            return PrefectApi(self.addresses.prefect_url).read_state(run_id)
        except ServiceUnavailable as error:
            return "Unknown", str(error)

    def begin_canary(self, model: TrainedModel) -> tuple[str, PlaneState]:
        """Ask for a release and return its run and the plane as soon as its candidate has live traffic."""
        version = register(model, MODEL_NAME, tracking_uri=self.addresses.mlflow_url)
        run_id = self.submit(version, "short")
        plane = self.demo.services.traffic
        return run_id, eventually(plane.observe, lambda state: state.candidate_weight_bps > 0, seconds=240)

    def last_release(self) -> str:
        """The release that wrote evidence last."""
        return max((self.state / "evidence").glob(f"{MODEL_NAME}-*.jsonl"), key=lambda path: path.stat().st_mtime).stem

    def stage_of(self, version: str) -> str:
        """Where the registry has a version now."""
        return self.registry.read_version(MODEL_NAME, version).stage

    def incumbent_serves(self) -> bool:
        """Whether all of 20 requests on the live listener are answered by the registry's champion."""
        champion = self.registry.read_champion(MODEL_NAME)
        answers = [httpx.get(f"{self.addresses.live_url}/ping").headers.get("x-interlock-served-by") for _ in range(20)]
        return set(answers) == {f"{MODEL_NAME}/{champion}"}


def eventually(read: Callable[[], T], done: Callable[[T], bool], *, seconds: float) -> T:
    """What `read` says once `done` holds for it; fails after `seconds` with what it said last."""
    deadline = time.monotonic() + seconds
    while not done(last := read()):
        assert time.monotonic() < deadline, f"not reached within {seconds:g} s; last: {last}"
        time.sleep(0.3)
    return last


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state, console = StateDirectory(tmp_path_factory.mktemp("state with a space")), Console(force_terminal=False)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        patch.setenv("INTERLOCK_PROFILES_DIR", str(PROFILES))
        patch.setenv("DO_NOT_TRACK", "true")
        when_up = running.enter_context(running_stack(state, state / "conditions.json", ["short", "served-by-mlflow"], console))
        data, incumbent, (better, skewed) = train(state, (BETTER, SKEWED), console)
        addresses = when_up()
        demo = Demo(state, addresses, data, state / "conditions.json", console)
        demo.adopt(incumbent)
        traffic = running.enter_context(LiveTraffic(addresses.live_url, data.live, REQUESTS_PER_SECOND))
        yield Stack(state, addresses, demo, traffic, better, skewed, family(addresses.supervisor_pid))


def test_a_better_candidate_that_moves_to_staging_ends_promoted_and_serves_everything(stack: Stack) -> None:
    outcome = stack.demo.release(BETTER, stack.better, stack.traffic)

    assert (outcome.decision, outcome.failed_request_count) == (Decision.PROMOTED, 0), outcome
    champion = stack.registry.read_champion(MODEL_NAME)
    assert outcome.candidate == f"{MODEL_NAME}/{champion}"
    assert stack.registry.read_version(MODEL_NAME, str(champion)).stage == "Production"
    assert stack.incumbent_serves()


def test_a_candidate_with_swapped_columns_is_rolled_back_by_divergence_and_no_user_notices(stack: Stack) -> None:
    champion = stack.registry.read_champion(MODEL_NAME)
    outcome = stack.demo.release(SKEWED, stack.skewed, stack.traffic)

    assert (outcome.decision, outcome.decided_by, outcome.failed_request_count) == (Decision.ROLLED_BACK, "divergence", 0), outcome
    assert outcome.recover_seconds is not None
    assert stack.registry.read_champion(MODEL_NAME) == champion
    assert stack.registry.read_version(MODEL_NAME, outcome.candidate.split("/")[1]).stage == "Archived"
    assert stack.incumbent_serves()


def test_every_gate_and_every_tick_can_be_read_in_the_prefect_ui_and_the_evidence(stack: Stack) -> None:
    release_id = next(path.stem for path in (stack.state / "evidence").glob("*.jsonl") if path.stem.startswith(f"{MODEL_NAME}-3"))
    shown = stack.run("status", release_id)
    assert shown.returncode == 0, shown.stderr
    assert all(word in shown.stdout for word in ("evaluation", "latency", "memory", "drift", "RolledBack"))

    artifacts = httpx.post(f"{stack.addresses.prefect_url}/artifacts/filter", json={"limit": 200}).json()
    keys = {artifact["key"] for artifact in artifacts}
    wanted = ("gates", "ticks-0", "ticks-1", "e-values", "signals", "decision")
    assert all(any(key.startswith(f"{MODEL_NAME}-3-") and key.endswith(end) for key in keys) for end in wanted), keys
    rows = json.loads(next(a["data"] for a in artifacts if a["key"].startswith(f"{MODEL_NAME}-3-") and a["key"].endswith("gates")))
    assert all({"value", "limit", "n", "reason"} <= row.keys() for row in rows)
    assert httpx.get(f"{stack.addresses.page_url}/releases/{release_id}/e-values.svg").status_code == 200
    assert "RolledBack" in httpx.get(f"{stack.addresses.page_url}/releases/{release_id}/report.html").text


def test_a_candidate_served_by_mlflow_models_serve_is_released_like_any_other(stack: Stack) -> None:
    version = register(stack.better, MODEL_NAME, tracking_uri=stack.addresses.mlflow_url)
    name, message = stack.release(version, profile="served-by-mlflow")
    assert name == Decision.PROMOTED, message
    assert stack.incumbent_serves()
    serving = [" ".join(p.cmdline()) for p in family(stack.addresses.supervisor_pid) if "models serve" in " ".join(p.cmdline())]
    assert serving, "the incumbent should be served by mlflow models serve now"


@pytest.mark.parametrize(
    ("version", "profile", "state", "words"),
    [
        pytest.param("99", "short", "Failed", "99", id="an unknown version fails with one sentence"),
        pytest.param("1", "nonsense", "Failed", "known", id="an unknown profile fails and names the known ones"),
        pytest.param("1", "malformed", "Failed", "alhpa", id="a misspelt key in the profile fails and is named"),
        pytest.param(
            "1", "forbidden", "Failed", "this plane releases under short", id="a good profile that this plane was not started with"
        ),
    ],
)
def test_bad_input_moves_nothing(stack: Stack, version: str, profile: str, state: str, words: str) -> None:
    name, message = stack.release(version, profile=profile)
    assert (name, words in message) == (state, True), message
    assert "Traceback" not in message
    assert stack.incumbent_serves()


def test_a_corrupt_model_artifact_is_rejected_and_the_incumbent_keeps_serving(stack: Stack) -> None:
    version = register(stack.better, MODEL_NAME, tracking_uri=stack.addresses.mlflow_url)
    for pickle in (stack.state / "mlflow" / "artifacts").rglob("*scorer*"):
        if pickle.is_file() and time.time() - pickle.stat().st_mtime < 60:
            pickle.write_bytes(b"not a pickle")
    name, message = stack.release(version)
    assert name == "Rejected", message
    assert stack.registry.read_version(MODEL_NAME, version).tags["interlock.decision"] == "Rejected"
    assert stack.incumbent_serves()


def test_a_second_up_on_a_live_state_directory_says_so_and_exits_2(stack: Stack) -> None:
    second = stack.run("up", "--model", MODEL_NAME, "--profile", "short")
    assert second.returncode == 2
    assert "already up" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_rollback_command_is_idempotent_and_prints_a_receipt(stack: Stack) -> None:
    for _ in range(2):
        answer = stack.run("rollback", "--reason", "a drill")
        assert answer.returncode == 0, answer.stderr
        assert "100 %" in answer.stdout
    assert stack.incumbent_serves()


def test_a_candidate_server_that_is_killed_in_the_canary_costs_no_user_request_and_is_rolled_back(stack: Stack) -> None:
    failed_before = stack.traffic.snapshot().failed_count
    run_id, plane = stack.begin_canary(stack.better)
    assert plane.candidate is not None
    os.kill(plane.candidate.pid, signal.SIGKILL)

    state, message = eventually(lambda: stack.state_of(run_id), lambda state: state[0] in ENDED, seconds=120)
    assert state == Decision.ROLLED_BACK, message
    assert stack.traffic.snapshot().failed_count == failed_before
    assert stack.incumbent_serves()


def test_law_5_a_release_that_is_killed_in_the_canary_is_ended_and_no_user_notices(stack: Stack) -> None:
    """In the promotion: test_killmatrix.py."""
    failed_before, services = stack.traffic.snapshot().failed_count, stack.demo.services
    champion = stack.registry.read_champion(MODEL_NAME)
    run_id, plane = stack.begin_canary(stack.better)
    assert plane.candidate is not None
    candidate = plane.candidate.version
    for process in family(stack.addresses.supervisor_pid):
        if "prefect.engine" in process.cmdline():
            process.kill()

    eventually(services.traffic.observe, lambda state: state.candidate_weight_bps == 0, seconds=LEASE_SECONDS + 5)
    eventually(services.traffic.observe, lambda state: state.release_id is None and state.candidate is None, seconds=30)
    assert stack.traffic.snapshot().failed_count == failed_before
    # It was asked for by hand, out of no stage; it goes back there, and so it is not tried again.
    eventually(lambda: stack.registry.read_version(MODEL_NAME, candidate.version).stage, lambda stage: stage == "None", seconds=30)
    assert stack.registry.read_champion(MODEL_NAME) == champion
    assert stack.incumbent_serves()
    eventually(lambda: "its process is gone" in stack.run("status", stack.last_release()).stdout, bool, seconds=30)
    eventually(lambda: stack.state_of(run_id), lambda state: state[0] == "Crashed", seconds=60)


def test_a_release_whose_process_and_worker_are_killed_is_tried_again_from_the_first_step_and_promoted(stack: Stack) -> None:
    """Nobody is left to tell Prefect: the run would hold the one place for ever, and the version would wait in Staging."""
    failed_before, champion = stack.traffic.snapshot().failed_count, stack.registry.read_champion(MODEL_NAME)
    version = register(stack.better, MODEL_NAME, tracking_uri=stack.addresses.mlflow_url)
    token = stack.registry.read_token(MODEL_NAME)
    stack.registry.set_stage(MODEL_NAME, version, "Staging", token=token)
    plane = stack.demo.services.traffic
    eventually(plane.observe, lambda state: state.candidate_weight_bps > 0, seconds=240)
    died = stack.last_release()
    for process in family(stack.addresses.supervisor_pid):
        if {"prefect.engine", "worker"} & set(process.cmdline()):
            process.kill()

    eventually(plane.observe, lambda state: state.candidate_weight_bps == 0, seconds=LEASE_SECONDS + 5)
    assert stack.registry.read_champion(MODEL_NAME) == champion
    eventually(plane.observe, lambda state: state.release_id not in (None, died), seconds=180)
    resumed = eventually(stack.last_release, lambda release_id: release_id != died, seconds=60)
    intake = stack.demo.services.evidence.read(resumed)[0]
    assert (intake["resumes"], intake["attempt"]) == (died, 2)
    eventually(lambda: stack.stage_of(version), lambda stage: stage == "Production", seconds=240)
    eventually(plane.observe, lambda state: state.release_id is None, seconds=120)
    endings = [record["kind"] for record in stack.demo.services.evidence.read(died) if record["kind"] in ("decision", "failed")]
    assert endings == ["failed"]
    assert stack.registry.read_token(MODEL_NAME) >= token + 2
    assert stack.traffic.snapshot().failed_count == failed_before
    assert stack.incumbent_serves()


def test_a_supervisor_that_is_stopped_in_the_canary_leaves_nobody_on_the_candidate(stack: Stack) -> None:
    """The lease is the supervisor's to enforce; when it cannot, the fuse does. Envoy is asked, since the control API stands still."""
    failed_before, supervisor_pid = stack.traffic.snapshot().failed_count, stack.addresses.supervisor_pid
    champion, envoy = stack.registry.read_champion(MODEL_NAME), EnvoyAdmin(stack.addresses.envoy_admin_url)
    run_id, _ = stack.begin_canary(stack.better)
    os.kill(supervisor_pid, signal.SIGSTOP)
    try:
        eventually(envoy.observe_split, lambda split: split.candidate_weight_bps == 0, seconds=LEASE_SECONDS + 5)
    finally:
        os.kill(supervisor_pid, signal.SIGCONT)
    plane = stack.demo.services.traffic
    eventually(plane.observe, lambda state: state.release_id is None and state.candidate is None, seconds=60)
    assert eventually(lambda: stack.state_of(run_id), lambda state: state[0] in ENDED, seconds=120)[0] != Decision.PROMOTED
    assert stack.traffic.snapshot().failed_count == failed_before
    assert stack.registry.read_champion(MODEL_NAME) == champion
    assert stack.incumbent_serves()
    assert "was given back to the incumbent" in (stack.state / "logs" / "fuse.log").read_text()


def test_no_user_request_failed_in_all_of_this(stack: Stack) -> None:
    users = stack.traffic.snapshot()
    assert users.total_count > 1000
    assert users.failed_count == 0


def test_sigterm_leaves_no_process_behind(stack: Stack) -> None:
    stack.traffic.stop()
    everything = {p.pid: p for p in [*stack.processes, *family(stack.addresses.supervisor_pid)]}.values()
    assert len(everything) > 6
    os.kill(stack.addresses.supervisor_pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(list(everything), timeout=60)
    assert not [p.cmdline() for p in alive]
    assert not (stack.state / "stack.json").exists()
