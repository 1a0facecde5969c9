"""Whether everything agrees after a kill: traffic, registry, evidence, processes; and what is done when it does not."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx

from benchmarks.killmatrix_phases import endings
from benchmarks.killmatrix_release import ENDED_STATES, Followed
from benchmarks.killmatrix_stack import Rig, is_up
from benchmarks.killmatrix_targets import count_roles
from interlock.adapters.mlflow_registry import MlflowRegistry
from interlock.demo.driver import MODEL_NAME
from interlock.errors import ReleaseError
from interlock.model.release import Decision

PROBE_COUNT = 20
UNDER_WAY_COUNT = 20  # at 110 requests a second of some 5 ms it is one; those of an outage are waited for
POLL_SECONDS = 0.4
LOOKS_APART_SECONDS = 1.0  # consistent is what two looks in a row find: a late writer shows between them
PARTS = ("envoy", "collector", "mlflow", "prefect", "worker", "fuse")
STATE_SECONDS = 8.0  # after everything else agrees: how long Prefect may still call the run unfinished; its worker reports in 1 s


@dataclass(frozen=True, slots=True)
class Settled:
    """after_seconds: from the start of the wait until everything agreed; None when it never did. troubles: what did not."""

    after_seconds: float | None
    troubles: tuple[str, ...]


def settle(rig: Rig, release: Followed | None, *, limit_seconds: float, is_thawed: Callable[[], bool] = lambda: True) -> Settled:
    """Wait until two looks a second apart find everything in agreement, for `limit_seconds` at most."""
    started = time.monotonic()
    agreed_at: float | None = None
    while True:
        found = ("a process is still stopped",) if not is_thawed() else tuple(troubles(rig, release))
        now = time.monotonic()
        if found:
            agreed_at = None
        elif agreed_at is None:
            agreed_at = now
        elif now - agreed_at >= LOOKS_APART_SECONDS:
            return Settled(agreed_at - started, ())
        if now - started > limit_seconds and found:
            return Settled(None, found)
        time.sleep(POLL_SECONDS)


def troubles(rig: Rig, release: Followed | None) -> Iterator[str]:
    """Everything that is not as it should be with no release under way, in one sentence each."""
    try:
        if not is_up(rig.state, rig.init):
            yield "the stack is not up: supervisor, Prefect or MLflow does not answer"
            return
        incumbent = yield from _of_traffic(rig)
        yield from _of_processes(rig, incumbent)
        if release is not None:
            yield from _of_evidence(release, incumbent)
    except (ReleaseError, httpx.HTTPError, AssertionError) as error:
        yield f"it cannot be asked: {error}"


def _of_traffic(rig: Rig) -> Generator[str, None, str]:
    services = rig.demo.services
    state = services.traffic.observe()
    if state.incumbent is None or not state.incumbent.ready:
        yield "the plane has no incumbent that is ready"
        return ""
    incumbent = state.incumbent.version.version
    if (waiting := rig.traffic.snapshot(0).in_flight_count) > UNDER_WAY_COUNT:
        yield f"{waiting} user requests have no answer yet"
    if state.candidate_weight_bps or state.is_mirroring or state.candidate or state.release_id:
        yield (
            f"the plane still has share {state.candidate_weight_bps} bps, mirror {state.is_mirroring}, "
            f"candidate {state.candidate.version.version if state.candidate else None}, release {state.release_id}"
        )
    answered = dict(services.traffic.probe(PROBE_COUNT))
    if answered != {f"{MODEL_NAME}/{incumbent}": PROBE_COUNT}:
        yield f"the plane's incumbent is {incumbent}, but {PROBE_COUNT} live requests were answered by {answered}"
    registry = MlflowRegistry(rig.addresses.mlflow_url)
    if (champion := registry.read_champion(MODEL_NAME)) != incumbent:
        yield f"the plane's incumbent is {incumbent}, MLflow's champion is {champion}"
    production = [version.version for version in registry.read_versions(MODEL_NAME) if version.stage == "Production"]
    if production != [incumbent]:
        yield f"the plane's incumbent is {incumbent}, in stage Production are {production}"
    return incumbent


def _of_processes(rig: Rig, incumbent: str) -> Iterator[str]:
    counts: Counter[str] = count_roles(rig.state)
    if wrong := {part: counts[part] for part in PARTS if counts[part] != 1}:
        yield f"processes: {wrong}, wanted 1 each"
    if not counts[f"model server {incumbent}"]:
        yield f"no model server of version {incumbent} runs"
    left = {
        role: n for role, n in counts.items() if role == "flow run" or (role.startswith("model server") and role.split()[-1] != incumbent)
    }
    if left:
        yield f"still running: {left}"


def _of_evidence(release: Followed, incumbent: str) -> Iterator[str]:
    release.read()
    found = endings(release.records)
    if not found:
        yield f"the evidence of {release.release_id} has no ending"
        return
    is_promoted = Decision.PROMOTED.value in found
    if is_promoted != (incumbent == release.candidate):
        yield f"the evidence says {found}, and the incumbent is {incumbent} (candidate {release.candidate}, before {release.incumbent})"
    if is_promoted and set(found) != {Decision.PROMOTED.value}:
        yield f"the evidence has endings that exclude each other: {found}"


def await_run_state(release: Followed) -> str:
    """How Prefect says that the run ended; what it says after 8 s when it does not."""
    deadline = time.monotonic() + STATE_SECONDS
    while (name := release.run_state()) not in ENDED_STATES and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return name


def end_run(release: Followed) -> None:
    """Call a run that nobody executes any more Crashed, so that it no longer keeps the next one waiting."""
    with suppress(httpx.HTTPError):
        body = {"state": {"type": "CRASHED", "name": "Crashed", "message": "ended by the kill matrix"}, "force": True}
        httpx.post(f"{release.rig.addresses.prefect_url}/flow_runs/{release.run_id}/set_state", json=body, timeout=10, trust_env=False)


def roll_back(rig: Rig) -> None:
    """What a person would do: `interlock rollback`."""
    command = [sys.executable, "-m", "interlock", "rollback", "--reason", "the kill matrix found a trouble", "--state", str(rig.state.root)]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(command, timeout=150, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
