"""A whole world of fakes around one release: plane, registry, evidence, and live traffic that flows while somebody sleeps."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.adapters.fakes import CANDIDATE_PORT, FakeClock, FakeEvidence, FakeJournal, FakeRegistry, FakeTraffic
from interlock.control.pairing import PairedOutputs
from interlock.control.session import ReleaseSession, Services
from interlock.errors import ArtifactError, ServiceUnavailable
from interlock.model.artifact import ArtifactReading, FileReading, Requirement, SignatureReading
from interlock.model.digest import artifact_digest
from interlock.model.journal import Arm, Leg, Role
from interlock.model.plane import LiveTraffic
from interlock.model.release import ModelVersion, Release
from interlock.model.signature import ModelOutput
from interlock.ports import Trial, TrialServer
from interlock.profile.reader import LoadedProfile, parse_profile
from tests.artifacts import reading_of
from tests.plane_fakes import LIMITS

PROFILES = Path(__file__).parent / "profiles"
INCUMBENT = ModelVersion("late", "1", "sha256:" + "1" * 64)
CANDIDATE = ModelVersion("late", "2", "sha256:" + "2" * 64)
REQUESTS_PER_SECOND = 200
HEALTHY_ARTIFACT = ArtifactReading(
    digest=CANDIDATE.digest,
    manifest={"MLmodel": "3" * 64},
    files=(FileReading("MLmodel", "text"),),
    code=(),
    requirements=(Requirement("numpy==2.0.0", "requirements.txt", "2.0.0", "same_version"),),
    signature=SignatureReading(1, 1, 1),
)
TRIAL_PORT = 4


def read_test_profile(name: str = "short") -> LoadedProfile:
    """A profile of tests/profiles."""
    path = PROFILES / f"{name}.yaml"
    return parse_profile(path.read_text(encoding="utf-8"), source=str(path))


@dataclass
class FakeFiles:
    """Model files that are there, unless `refused` says why not."""

    refused: str | None = None
    root: Path | None = None  # where the files really lie; None: nowhere, and they are what they were
    outputs: dict[str, tuple[ModelOutput, ...]] = field(default_factory=lambda: dict.fromkeys(("1", "2"), (ModelOutput("", "double"),)))

    def read_outputs(self, version: ModelVersion) -> tuple[ModelOutput, ...]:
        return self.outputs[version.version]

    def read_digest(self, version: ModelVersion, *, between: Callable[[], None]) -> str:
        return artifact_digest(self.root, between=between) if self.root else version.digest

    def fetch(self, name: str, version: str) -> tuple[ModelVersion, Path]:
        if self.refused:
            raise ArtifactError(self.refused)
        found = ModelVersion(name, version, "sha256:" + version * 64)
        return found, self.directory(found)

    def directory(self, version: ModelVersion) -> Path:
        return Path("/models") / version.digest.removeprefix("sha256:")


@dataclass(frozen=True)
class Rows:
    """A data set as read."""

    frame: pd.DataFrame
    source: str = "fake"
    digest: str = "5" * 64


@dataclass
class FakeModel:
    """Answers with what is true, after `change`."""

    change: Callable[[NDArray[Any]], NDArray[Any]] = lambda answers: answers
    input_columns: tuple[str, ...] = ("x",)

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        return self.change(frame["x"].to_numpy(dtype=float).copy())

    def answers(self, frame: pd.DataFrame) -> list[Any]:
        return list(self.predict(frame).tolist())


@dataclass(frozen=True)
class FakeSender:
    """Every request is answered as the model does offline, or by `answer`, unless it fails."""

    model: FakeModel
    answer: Callable[[], float] | None = None
    fails: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def send(self, payload: bytes) -> None:
        self.ask(payload)

    def ask(self, payload: bytes) -> str:
        assert payload
        if self.fails:
            raise ServiceUnavailable("connection refused")
        split = json.loads(payload)["dataframe_split"]
        rows = pd.DataFrame(split["data"], columns=split["columns"])
        return json.dumps({"predictions": [self.answer() for _ in range(len(rows))] if self.answer else self.model.answers(rows)})


@dataclass
class World:
    """
    Healthy unless a test changes it. Time moves when the code under test sleeps; meanwhile users send requests, and `while_time_passes`
    lets a test do something to the world.
    """

    clock: FakeClock = field(default_factory=FakeClock)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    evidence: FakeEvidence = field(default_factory=FakeEvidence)
    files: FakeFiles = field(default_factory=FakeFiles)
    journal: FakeJournal = field(default_factory=FakeJournal)
    artifact: ArtifactReading = HEALTHY_ARTIFACT
    models: dict[str, FakeModel] = field(default_factory=lambda: {"1": FakeModel(), "2": FakeModel()})
    drawn_drift: list[str] = field(default_factory=list)
    candidate_prediction: float = 0.3
    candidate_answer: Callable[[], float] | None = None  # to the gates, as long as nobody uses it; None: as its model does offline
    incumbent_answer: Callable[[], float] | None = None
    trial_failure: str | None = None  # why no server on trial starts
    trials: list[Trial] = field(default_factory=list)
    failing_sender: int = 0  # counted as the gates open them: candidate and incumbent for latency, for memory, both again
    has_users: bool = True
    while_time_passes: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.traffic = FakeTraffic(self.clock, INCUMBENT)
        self.registry.add("late", "1", "Production")
        self.registry.add("late", "2", "Staging")
        self.registry.champions["late"] = "1"
        self.clock.on_sleep = self._pass_time
        self._request_count = self._opened_senders = 0
        self._owed_requests = self._owed_to_candidate = self._live_requests = self._seen_seconds = 0.0

    def services(self) -> Services:
        return Services(
            traffic=self.traffic,
            registry=self.registry,
            evidence=self.evidence,
            files=self.files,
            clock=self.clock,
            open_journal=self._open_journal,
            read_rows=lambda _: _rows(),
            read_training_rows=lambda name, version: _rows(),
            load_model=lambda directory: self.models[directory.name[0]],
            read_artifact=self._read_artifact,
            draw_drift=lambda release_id: lambda *_: self.drawn_drift.append(release_id),
            open_sender=self._open_sender,
            start_trial=self._start_trial,
            page_url="http://page",
            allowed_profiles=("short", "hopeless"),
        )

    def session(self, profile: str = "short") -> ReleaseSession:
        """A release that holds the plane, its candidate loaded."""
        loaded = read_test_profile(profile)
        token = self.traffic.begin("late-2", lease_seconds=120)
        self.traffic.load_candidate(CANDIDATE, server="interlock", thread_count=1, limits=LIMITS, token=token)
        release = Release("late-2", CANDIDATE, INCUMBENT, loaded.profile.name, loaded.digest, token)
        services = self.services()
        outputs = PairedOutputs(self.files.outputs["2"], self.files.outputs["1"])
        directories = (self.files.directory(CANDIDATE), self.files.directory(INCUMBENT))
        return ReleaseSession(services, release, loaded, *directories, outputs, opened_plane=self.traffic.observe())

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Evidence records of one kind, of all releases."""
        return [record for records in self.evidence.records.values() for record in records if record["kind"] == kind]

    def _read_artifact(self, directory: Path, *, hold: Callable[[], None]) -> ArtifactReading:
        """Of the candidate what a test wants, of files that are there what they hold."""
        hold()
        return reading_of(directory, {}) if directory.is_dir() else self.artifact

    def _open_journal(self) -> FakeJournal:
        self.journal.waiting.clear()
        return self.journal

    def _open_sender(self, port: int) -> FakeSender:
        assert port
        self._opened_senders += 1
        fails = self._opened_senders == self.failing_sender
        if port == TRIAL_PORT:
            return FakeSender(self.models[self.trials[-1].version.version], self.candidate_answer, fails)
        if port == CANDIDATE_PORT:
            return FakeSender(self.models["2"], self.candidate_answer, fails)
        return FakeSender(self.models["1"], self.incumbent_answer, fails)

    @contextmanager
    def _start_trial(self, trial: Trial) -> Iterator[TrialServer]:
        self.trials.append(trial)
        if self.trial_failure:
            raise ArtifactError(self.trial_failure)
        yield TrialServer(TRIAL_PORT, 1.0)

    def _pass_time(self, seconds: float) -> None:
        self.while_time_passes()
        self._seen_seconds += seconds
        if self.has_users:
            self._live_requests += seconds * REQUESTS_PER_SECOND
        seen = LiveTraffic(int(self._live_requests), self._seen_seconds)
        self.traffic.counts = replace(self.traffic.counts, live_requests_count=seen.requests_count, last_hour=seen)
        if not (self.has_users and self.traffic.mirroring and self.traffic.candidate):
            return
        self._owed_requests += seconds * REQUESTS_PER_SECOND
        while self._owed_requests >= 1:
            self._owed_requests -= 1
            self._owed_to_candidate += self.traffic.weight_bps / 10_000
            live_arm = Arm.CANDIDATE if self._owed_to_candidate >= 1 else Arm.INCUMBENT
            self._owed_to_candidate %= 1.0
            self._request_count += 1
            self.journal.waiting += [self._leg(arm, live_arm) for arm in (Arm.INCUMBENT, Arm.CANDIDATE)]

    def _leg(self, arm: Arm, live_arm: Arm) -> Leg:
        prediction = self.candidate_prediction if arm is Arm.CANDIDATE else 0.3
        version = CANDIDATE if arm is Arm.CANDIDATE else INCUMBENT
        return Leg(
            request_id=str(self._request_count),
            arm=arm,
            role=Role.LIVE if arm is live_arm else Role.MIRROR,
            received_at_seconds=self.clock.utc_now().timestamp(),
            status_code=200,
            latency_ms=9.0 + self._request_count % 3,
            input_digest="0" * 16,
            prediction=f'{{"predictions": [{prediction}]}}',
            served_by=version.label,
        )


def _rows() -> Rows:
    x = np.random.default_rng(7).random(400)
    return Rows(pd.DataFrame({"x": x, "label": (x + np.random.default_rng(8).normal(0, 0.3, 400) > 0.5).astype(int)}))
