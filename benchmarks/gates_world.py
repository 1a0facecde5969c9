"""
What all parts of the gates' benchmark share: the flights, the two versions, planted ones beside them, and a release of any of them.

Everything is real but Envoy, Prefect and the registry: MLflow's files on disk, their digests, model servers in processes of their own,
the process that reads artifacts, Evidently, the evidence. The policy is profiles/demo.yaml.
"""

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd

from benchmarks import gates_model
from benchmarks.gates_plane import BenchPlane, Serving
from interlock.adapters.artifact.reading import read_artifact
from interlock.adapters.clock import SystemClock
from interlock.adapters.datasets import read_rows
from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.evidently_drift import draw_page
from interlock.adapters.fakes import FakeJournal, FakeRegistry
from interlock.adapters.mlflow_files import MlflowFiles
from interlock.adapters.pyfunc_models import LoadedModel, load_model
from interlock.adapters.scoring_client import ScoringClient
from interlock.control.pairing import PairedOutputs
from interlock.control.session import ReleaseSession, Services
from interlock.demo.flights import FlightsData, prepare
from interlock.demo.models import TrainedModel, describe, train_candidate, train_incumbent
from interlock.model.digest import artifact_digest
from interlock.model.plane import PlaneState
from interlock.model.release import ModelVersion, Release
from interlock.model.signature import ModelOutput
from interlock.plane.trial import trial_server
from interlock.profile.reader import LoadedProfile, read_profile

MODEL_NAME = "flight-delay"
PROFILE_NAME = "demo"
PROFILES = Path(__file__).parents[1] / "profiles"
ONE_NUMBER = (ModelOutput("", "double"),)
SENDER_TIMEOUT_SECONDS = 10.0  # as interlock.wiring has it


@dataclass
class World:
    """The flights, an incumbent and a good candidate, logged; `plant` logs others, `session` opens a release of any of them."""

    root: Path
    data: FlightsData
    loaded: LoadedProfile
    serving: Serving
    trained_incumbent: TrainedModel
    trained: TrainedModel
    incumbent: ModelVersion = field(init=False)
    good: ModelVersion = field(init=False)
    clock: SystemClock = field(default_factory=SystemClock)
    load_model: Callable[[Path], LoadedModel] = field(default_factory=lambda: cache(load_model))
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.evidence = EvidenceFiles(self.root / "evidence", self.clock)
        self.files = MlflowFiles("http://127.0.0.1:1", self.serving.models)  # whose registry nobody asks
        self.incumbent, self.good = self.log(self.trained_incumbent), self.log(self.trained)

    def log(self, model: TrainedModel, **changes: Any) -> ModelVersion:
        """A version of the model as MLflow writes it, where the plane looks for it."""
        with tempfile.TemporaryDirectory(dir=self.root) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            description = {**describe(model, Path(scratch)), **changes}
            mlflow.pyfunc.save_model(str(self.root / "logged"), **description)
        return self.keep(self.root / "logged")

    def keep(self, directory: Path) -> ModelVersion:
        """These files, moved to where a fetched version lies, as the next version."""
        digest = artifact_digest(directory)
        target = self.serving.models / digest.removeprefix("sha256:")
        if target.exists():
            shutil.rmtree(directory)
        else:
            directory.rename(target)
        return ModelVersion(MODEL_NAME, str(next(self._numbers)), digest)

    def plant(self, defect: str, size: float = 0.0, *, only_served: bool = False, model: TrainedModel | None = None) -> ModelVersion:
        """A version with a defect of `gates_model`."""
        chosen = model or self.trained
        config = {"fault_key": chosen.fault_key, "defect": defect, "size": size, "only_served": only_served}
        return self.log(chosen, python_model=gates_model.__file__, model_config=config)

    def altered(self, change: Callable[[Path], object]) -> ModelVersion:
        """The good candidate with its files changed before anybody took their digest."""
        copy = self.root / "altered"
        shutil.copytree(self.files.directory(self.good), copy)
        change(copy)
        return self.keep(copy)

    def write(self, name: str, frame: pd.DataFrame) -> tuple[str, str]:
        """Rows as a file of the data directory: its address and the SHA-256 of its bytes."""
        path = self.data.directory / f"{name}-{next(self._numbers)}.parquet"
        frame.to_parquet(path, index=False)
        address = str(path.relative_to(self.data.directory.parent))
        return address, read_rows(address, data_directory=self.data.directory.parent).digest

    def labelled(self, frame: pd.DataFrame) -> LoadedProfile:
        """The profile with other evaluation data, pinned as it is."""
        address, digest = self.write("evaluation", frame)
        return self.changed("evaluation", data=address, data_sha256=digest)

    def changed(self, gate: str, **changes: object) -> LoadedProfile:
        """The profile with some numbers of one gate changed."""
        return with_gate(self.loaded, gate, changes)

    def session(
        self,
        candidate: ModelVersion,
        plane: BenchPlane | None = None,
        *,
        incumbent: ModelVersion | None = None,
        loaded: LoadedProfile | None = None,
        opened: PlaneState | None = None,
        **services: Any,
    ) -> ReleaseSession:
        """A release of this version beside the incumbent. `services` replace those of the world by name."""
        policy, beside = loaded or self.loaded, incumbent or self.incumbent
        release_id = f"{MODEL_NAME}-{candidate.version}-{next(self._numbers)}"
        return ReleaseSession(
            services=replace(self._services(plane or BenchPlane(self.serving.servers, beside)), **services),
            release=Release(release_id, candidate, beside, policy.profile.name, policy.digest, 1),
            loaded=policy,
            candidate_directory=self.files.directory(candidate),
            incumbent_directory=self.files.directory(beside),
            outputs=PairedOutputs(ONE_NUMBER, ONE_NUMBER),
            opened_plane=opened,
        )

    def _services(self, plane: BenchPlane) -> Services:
        data_directory = self.data.directory.parent
        return Services(
            traffic=plane,
            registry=FakeRegistry(),
            evidence=self.evidence,
            files=self.files,
            clock=self.clock,
            open_journal=FakeJournal,
            read_rows=lambda uri: read_rows(uri, data_directory=data_directory),
            read_training_rows=lambda *_: read_rows(self.loaded.profile.gates.drift.reference, data_directory=data_directory),
            load_model=self.load_model,
            read_artifact=read_artifact,
            draw_drift=lambda _: draw_page,
            open_sender=lambda port: ScoringClient(port, timeout_seconds=SENDER_TIMEOUT_SECONDS),
            start_trial=partial(trial_server, models_directory=self.serving.models, log_directory=self.serving.logs, clock=self.clock),
            page_url="",
            allowed_profiles=(PROFILE_NAME,),
        )


def with_gate(loaded: LoadedProfile, gate: str, changes: Mapping[str, object]) -> LoadedProfile:
    """A profile with some numbers of one gate changed; they are checked as those of a file are."""
    gates = loaded.profile.gates
    policy = getattr(gates, gate)
    changed = type(policy).model_validate({**policy.model_dump(), **changes})
    return replace(loaded, profile=loaded.profile.model_copy(update={"gates": gates.model_copy(update={gate: changed})}))


@contextmanager
def open_world(*, profile_name: str = PROFILE_NAME) -> Iterator[World]:
    """A world of its own in a temporary directory; its servers end with the block."""
    with tempfile.TemporaryDirectory(prefix="interlock-gates-") as root:
        directory = Path(root)
        for name in ("models", "logs", "evidence"):
            (directory / name).mkdir()
        serving = Serving(directory / "models", directory / "logs")
        try:
            data = prepare(directory / "data")
            incumbent, candidate = train_incumbent(data), train_candidate(data, fault_key="good", seed=11)
            yield World(directory, data, read_profile(profile_name, PROFILES), serving, incumbent, candidate)
        finally:
            serving.servers.stop_all()
