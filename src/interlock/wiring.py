"""The only place that chooses adapters, from the state directory that INTERLOCK_STATE_DIR names."""

import os
from collections.abc import Callable, Mapping, Sequence
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
from interlock.control.session import Services
from interlock.plane.state_directory import StateDirectory
from interlock.ports import Journal
from interlock.profile.reader import read_profile

if TYPE_CHECKING:
    from pandas import DataFrame

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
    return Services(
        traffic=PlaneClient(page_url=addresses.page_url, live_url=addresses.live_url, token=state.read_token()),
        registry=MlflowRegistry(addresses.mlflow_url),
        evidence=EvidenceFiles(state / "evidence", clock),
        files=MlflowFiles(addresses.mlflow_url, state / "models"),
        clock=clock,
        open_journal=lambda: _open_journal(state),
        read_rows=lambda uri: _read_rows(uri, Path(os.environ.get("INTERLOCK_DATA_DIR") or state / "data")),
        load_model=cache(_load_model),
        measure_drift=_measure_drift,
        open_sender=_open_sender,
        page_url=addresses.page_url,
    )


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


def registry_poller(state: StateDirectory, *, model_name: str, profile_name: str) -> Callable[[], list[str]]:
    """
    A function that looks once for versions that entered the watched stage and asks for their releases.

    Raises:
        PolicyError: now, when the profile is wrong; a stack that could not release anything should not start.
    """
    profile_digest, waiting = read_profile(profile_name).digest, list[Intake]()

    def poll() -> list[str]:
        if not waiting:
            addresses = state.read_addresses()
            submitter = PrefectApi(addresses.prefect_url)
            waiting.append(Intake(MlflowRegistry(addresses.mlflow_url), submitter, model_name, profile_name, profile_digest))
        return waiting[0].poll()

    return poll


def draw_e_values(release_id: str, ticks: Sequence[Mapping[str, Any]]) -> None:
    """Draw the release's e-values so far into its evidence, where the live page serves it from."""
    from interlock.adapters.chart import draw

    (state_directory() / "evidence" / f"{release_id}.svg").write_text(draw(ticks), encoding="utf-8")
