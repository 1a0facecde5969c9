"""The only place that chooses adapters, from the state directory that INTERLOCK_STATE_DIR names."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlock.adapters.clock import SystemClock
from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.mlflow_files import MlflowFiles
from interlock.adapters.mlflow_registry import MlflowRegistry
from interlock.adapters.plane_client import PlaneClient
from interlock.adapters.prefect_api import PrefectApi
from interlock.control.gates.inputs import Dataset, DriftReading, Model, OpenSender
from interlock.control.intake import Intake
from interlock.control.reconcile import Reconciler
from interlock.control.releases import ReleaseIndex
from interlock.control.resume import ProcessMark
from interlock.control.session import Services
from interlock.plane.stamp import boot_id
from interlock.plane.state_directory import StateDirectory
from interlock.ports import Journal
from interlock.profile.reader import LoadedProfile, read_profile

if TYPE_CHECKING:
    from pandas import DataFrame

SENDER_TIMEOUT_SECONDS = 10.0  # a user's deadline; a gate that waits longer measures nothing that a user would see
DEFAULT_STATE_DIRECTORY = Path(".interlock")
_GONE = ("", "Z", "X")  # of a process's states in /proc


def state_directory(chosen: Path | None = None) -> StateDirectory:
    """The state directory: the one chosen, else INTERLOCK_STATE_DIR, else `.interlock` in the working directory."""
    return StateDirectory(chosen or Path(os.environ.get("INTERLOCK_STATE_DIR") or DEFAULT_STATE_DIRECTORY))


def open_services(state: StateDirectory | None = None) -> Services:
    """
    Adapters for the running stack.

    Raises:
        StateError: no stack is up in the state directory.
    """
    state = state or state_directory()
    addresses, clock = state.read_addresses(), SystemClock()
    return Services(
        traffic=PlaneClient(page_url=addresses.page_url, live_url=addresses.live_url, token=state.read_token()),
        registry=MlflowRegistry(addresses.mlflow_url),
        evidence=EvidenceFiles(state / "evidence", clock),
        files=MlflowFiles(addresses.mlflow_url, state / "models"),
        clock=clock,
        open_journal=lambda: _open_journal(state),
        read_rows=lambda uri: _read_rows(uri, Path(addresses.data_directory)),
        load_model=cache(_load_model),
        measure_drift=_measure_drift,
        open_sender=_open_sender,
        page_url=addresses.page_url,
        allowed_profiles=tuple(addresses.profile_names),
    )


def read_allowed_profile(name: str) -> LoadedProfile:
    """
    A profile from the directory that the running stack was started with, whatever this process's environment says.

    Raises:
        StateError: no stack is up. PolicyError: there is no such profile, or it is wrong.
    """
    return read_profile(name, Path(state_directory().read_addresses().profiles_directory))


def _open_journal(state: StateDirectory) -> Journal:
    from interlock.serving.journal import JournalReader  # brings pyarrow, which a rollback has no time for

    return JournalReader(state / "journal", from_now=True)


def _read_rows(uri: str, data_directory: Path) -> Dataset:
    from interlock.adapters.datasets import read_rows

    return read_rows(uri, data_directory=data_directory)


def _load_model(directory: Path) -> Model:
    from interlock.adapters.pyfunc_models import load_model

    return load_model(directory)


def _measure_drift(reference: "DataFrame", current: "DataFrame", *, columns: Sequence[str]) -> DriftReading:
    from interlock.adapters.evidently_drift import measure_drift

    return measure_drift(reference, current, columns=columns)


def _open_sender(port: int) -> OpenSender:
    from interlock.adapters.scoring_client import ScoringClient

    return ScoringClient(port, timeout_seconds=SENDER_TIMEOUT_SECONDS)


def evidence_store(state: StateDirectory) -> EvidenceFiles:
    """The evidence in a state directory, whether or not a stack is up in it."""
    return EvidenceFiles(state / "evidence", SystemClock())


@dataclass(frozen=True, slots=True)
class Caretaker:
    """What `interlock up` does besides the plane: `poll` every two seconds, `lose` when a lease ran out, `start` once."""

    reconciler: Callable[[], Reconciler]
    intake: Callable[[], Intake]

    def poll(self) -> None:
        """End what dead releases left, then ask for what waits in the registry; neither waits for the other's troubles."""
        try:
            self.reconciler().poll()
        finally:
            self.intake().poll()

    def lose(self, release_id: str) -> None:
        """The lease of this release ran out."""
        self.reconciler().lose(release_id)

    def start(self) -> None:
        """Everything is up."""
        self.reconciler().start()


def caretaker(state: StateDirectory) -> Caretaker:
    """Of the stack in this state directory, once it is up; until then its adapters are not made."""
    index = ReleaseIndex(evidence_store(state))

    @cache
    def reconciler() -> Reconciler:
        services = open_services(state)
        return Reconciler(
            traffic=services.traffic,
            registry=services.registry,
            evidence=services.evidence,
            clock=services.clock,
            runs=PrefectApi(state.read_addresses().prefect_url),
            index=index,
            is_alive=is_alive,
            is_running=is_running,
            write_report=lambda release_id: write_report(release_id, services.evidence.read(release_id), state=state),
        )

    @cache
    def intake() -> Intake:
        addresses = state.read_addresses()
        profile_name, directory = addresses.profile_names[0], Path(addresses.profiles_directory)
        return Intake(
            registry=MlflowRegistry(addresses.mlflow_url),
            runs=PrefectApi(addresses.prefect_url),
            index=index,
            clock=SystemClock(),
            model_name=addresses.model_name,
            profile_name=profile_name,
            read_profile_digest=lambda: read_profile(profile_name, directory).digest,
        )

    return Caretaker(reconciler, intake)


def this_process() -> ProcessMark:
    """The process that asks, for the evidence of a release. What cannot be read stays empty, and nobody is called dead by it."""
    found = _state_and_start(os.getpid())
    return ProcessMark(socket.gethostname(), boot_id(), os.getpid(), found[1] if found else "", _pid_namespace())


def is_alive(mark: ProcessMark) -> bool | None:
    """
    Whether that very process lives, stopped or not.

    None when that cannot be seen from here: it is on another machine or in another container, or /proc could not be read just now.
    """
    namespace, boot = _pid_namespace(), boot_id()
    if mark.host != socket.gethostname() or not mark.started or not boot or (mark.namespace and mark.namespace != namespace):
        return None
    if mark.boot != boot:
        return False
    found = _state_and_start(mark.pid)
    return None if found is None else found[0] not in _GONE and found[1] == mark.started


def is_running(run_id: str, pid: int) -> bool | None:
    """Whether a process of this number lives that Prefect has started for this flow run; None when it may not be looked at."""
    found = _state_and_start(pid)
    if found is None or found[0] in _GONE:
        return None if found is None else False
    try:
        return f"PREFECT__FLOW_RUN_ID={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The kernel's letter for what a process does, and its start in clock ticks; both empty when it is gone, None when unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    except OSError:
        return None
    return fields[0], fields[19]


def _pid_namespace() -> str:
    """What process numbers count in here. Empty when it cannot be read."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def draw_e_values(release_id: str, ticks: Sequence[Mapping[str, Any]]) -> None:
    """Draw the release's e-values so far next to its evidence, where the live page serves it from."""
    from interlock.report.charts import draw

    _write_whole(state_directory() / "evidence" / f"{release_id}.svg", draw(ticks))


def write_report(
    release_id: str, records: Sequence[Mapping[str, Any]], *, state: StateDirectory | None = None, out: Path | None = None
) -> Path:
    """Write the release's report to `out`, else next to the evidence, where the live page serves it from; returns where it is."""
    from interlock.report.page import render_report

    path = out or (state or state_directory()) / "evidence" / f"{release_id}.html"
    _write_whole(path, render_report(release_id, records))
    return path


def _write_whole(path: Path, text: str) -> None:
    """Whole or not at all: somebody may be reading the former one. What a full disk took of it is taken away again."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
