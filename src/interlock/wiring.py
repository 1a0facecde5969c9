"""The only place that chooses adapters, from the state directory that INTERLOCK_STATE_DIR names."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlock.adapters.clock import SystemClock
from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.mlflow_files import MlflowFiles
from interlock.adapters.mlflow_registry import MlflowRegistry
from interlock.adapters.plane_client import PlaneClient
from interlock.adapters.prefect_api import PrefectApi
from interlock.control.gates.inputs import Dataset, Model, OpenSender
from interlock.control.intake import Intake
from interlock.control.reconcile import Reconciler
from interlock.control.releases import ReleaseIndex
from interlock.control.session import Services
from interlock.plane.marks import is_alive, is_running, this_process
from interlock.plane.state_directory import StateDirectory
from interlock.plane.trial import trial_server
from interlock.ports import Journal
from interlock.profile.reader import LoadedProfile, read_profile

if TYPE_CHECKING:
    from pandas import DataFrame

    from interlock.adapters.mlflow_datasets import LoggedDataset, MlflowDatasets
    from interlock.model.artifact import ArtifactReading
    from interlock.profile.gates import CategoryColumn, NumberColumn

__all__ = [
    "Caretaker",
    "caretaker",
    "draw_e_values",
    "evidence_store",
    "is_alive",
    "is_running",
    "open_services",
    "read_allowed_profile",
    "state_directory",
    "this_process",
    "write_report",
]

SENDER_TIMEOUT_SECONDS = 10.0  # a user's deadline; a gate that waits longer measures nothing that a user would see
DEFAULT_STATE_DIRECTORY = Path(".interlock")


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
    traffic = PlaneClient(page_url=addresses.page_url, live_url=addresses.live_url, token=state.read_token())
    files = MlflowFiles(addresses.mlflow_url, state / "models")

    def read_rows(uri: str) -> Dataset:
        if uri.startswith("journal:"):
            return _read_inputs(uri, state / "journal", traffic=traffic, files=files, clock=clock)
        if uri.startswith("runs:/"):
            return _read_logged(lambda datasets: datasets.find(uri), addresses.mlflow_url)
        return _read_rows(uri, Path(addresses.data_directory))

    return Services(
        traffic=traffic,
        registry=MlflowRegistry(addresses.mlflow_url),
        evidence=EvidenceFiles(state / "evidence", clock),
        files=files,
        clock=clock,
        open_journal=lambda: _open_journal(state),
        read_rows=read_rows,
        read_training_rows=lambda name, version: _read_logged(lambda datasets: datasets.find_training(name, version), addresses.mlflow_url),
        load_model=cache(_load_model),
        read_artifact=_read_artifact,
        draw_drift=lambda release_id: partial(_draw_drift, state / "evidence" / f"{release_id}.drift.html"),
        open_sender=_open_sender,
        start_trial=partial(trial_server, models_directory=state / "models", log_directory=state / "logs", clock=clock),
        page_url=addresses.page_url,
        allowed_profiles=tuple(addresses.profile_names),
    )


def read_allowed_profile(name: str, state: StateDirectory | None = None) -> LoadedProfile:
    """
    A profile from the directory that the running stack was started with, whatever this process's environment says.

    Raises:
        StateError: no stack is up. PolicyError: there is no such profile, or it is wrong.
    """
    return read_profile(name, Path((state or state_directory()).read_addresses().profiles_directory))


def _open_journal(state: StateDirectory) -> Journal:
    from interlock.serving.journal import JournalReader  # brings pyarrow, which a rollback has no time for

    return JournalReader(state / "journal", from_now=True)


def _read_rows(uri: str, data_directory: Path) -> Dataset:
    from interlock.adapters.datasets import read_rows

    return read_rows(uri, data_directory=data_directory)


def _read_logged(find: "Callable[[MlflowDatasets], LoggedDataset]", mlflow_url: str) -> Dataset:
    from interlock.adapters.datasets import read_logged_rows
    from interlock.adapters.mlflow_datasets import MlflowDatasets

    found = find(MlflowDatasets(mlflow_url))
    return read_logged_rows(found.address, name=found.name)


def _read_inputs(uri: str, journal: Path, *, traffic: PlaneClient, files: MlflowFiles, clock: SystemClock) -> Dataset:
    """What users have sent lately. Columns and their types are the incumbent's: it is the incumbent that users talk to."""
    from interlock.serving.input_rows import read_input_rows

    serving = traffic.observe().incumbent
    kinds = files.read_input_kinds(serving.version) if serving else {}
    return read_input_rows(uri, directory=journal, now_at_seconds=clock.utc_now().timestamp(), kinds=kinds)


def _load_model(directory: Path) -> Model:
    from interlock.adapters.pyfunc_models import load_model

    return load_model(directory)


def _draw_drift(path: Path, reference: "DataFrame", current: "DataFrame", columns: "Sequence[NumberColumn | CategoryColumn]") -> None:
    from interlock.adapters.evidently_drift import draw_page

    _write_whole(path, draw_page(reference, current, columns))


def _read_artifact(directory: Path, *, hold: Callable[[], None]) -> "ArtifactReading":
    from interlock.adapters.artifact.reading import read_artifact

    return read_artifact(directory, hold=hold)


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
