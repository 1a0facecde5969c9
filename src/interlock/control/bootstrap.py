"""
The gates of a first version: it has no incumbent to be compared with and no canary to be watched in, so it is judged by itself, and harder.

All of it happens before the plane has heard of the version: its server is on trial, beside the plane, and no user reaches it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interlock.control.comparison import comparison
from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.artifact import judge_artifact
from interlock.control.gates.disagreement import spread
from interlock.control.gates.distances import Divergence
from interlock.control.gates.drift import judge_drift
from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.evaluation import judge_first
from interlock.control.gates.inputs import Dataset, Model, OpenSender, seed_from
from interlock.control.gates.latency import ColdStart, judge_latency
from interlock.control.gates.load import Targets
from interlock.control.gates.parity import Server, judge_parity
from interlock.control.gates.stage import PAYLOAD_COUNT, encode_rows, labelled_rows, one_by_one, reference_rows
from interlock.control.pairing import check_pairing
from interlock.control.records import verdict_values
from interlock.control.session import Services, in_file_name
from interlock.errors import ReleaseError
from interlock.model.redaction import one_line
from interlock.model.release import ModelVersion
from interlock.model.verdict import Outcome, Verdict, inconclusive
from interlock.ports import Trial, TrialServer
from interlock.profile.output import TotalVariation
from interlock.profile.reader import LoadedProfile

ARTIFACT, EVALUATION, DRIFT, PARITY, LATENCY = "artifact", "bootstrap", "drift", "parity", "latency"
ABSOLUTE = ("start_seconds", "failed_request_count", "p50_ms", "p95_ms", "p99_ms")
FROM_USERS = "journal:"  # what users have sent: of a version that nobody has asked yet there is nothing


@dataclass(frozen=True, slots=True)
class FirstVersion:
    """A version that is to become the first incumbent, its files, its policy, and how it will be served."""

    services: Services
    loaded: LoadedProfile
    version: ModelVersion
    directory: Path
    server: str
    thread_count: int

    @property
    def evidence_id(self) -> str:
        """What its evidence is kept under."""
        return f"adoption-{in_file_name(self.version.name)}-{self.version.version}"

    def record(self, kind: str, **payload: object) -> None:
        """Append one evidence record; it is durable when this returns."""
        self.services.evidence.append(self.evidence_id, kind, payload)

    def noted(self, gate: str, rows: Dataset) -> Dataset:
        """Rows for a gate; the evidence knows them by their digest."""
        self.record("data", gate=gate, source=rows.source, digest=rows.digest, row_count=len(rows.frame))
        return rows

    def read_labelled(self, gate: str) -> Dataset:
        """The evaluation data for a gate."""
        return self.noted(gate, labelled_rows(self.services, self.loaded.profile.gates.evaluation))


def judge_first_version(first: FirstVersion) -> Sequence[Verdict]:
    """
    Every gate that a first version has to pass; each verdict is in the evidence when this returns.

    Nothing of the version is loaded, here or in a server, before its files have passed. After that all gates are judged, even after a
    FAIL: whoever adopts wants the whole list in one look.
    """
    artifact = _recorded(first, ARTIFACT, lambda: _judge_artifact(first))
    if artifact.outcome is not Outcome.PASS:
        unseen = "nothing of the version is loaded before its files have passed"
        return [artifact, *(_recorded(first, gate, partial(inconclusive, gate, unseen)) for gate in (EVALUATION, DRIFT, PARITY, LATENCY))]
    offline = [_recorded(first, EVALUATION, lambda: _judge_evaluation(first)), _recorded(first, DRIFT, lambda: _judge_drift(first))]
    return [artifact, *offline, *_judge_served(first)]


def _recorded(first: FirstVersion, gate: str, judge: Callable[[], Verdict]) -> Verdict:
    verdict = judged(gate, judge)
    first.record("gate", **verdict_values(verdict))
    return verdict


def _judge_artifact(first: FirstVersion) -> Verdict:
    reading = first.services.read_artifact(first.directory, hold=lambda: None)  # nobody holds the plane yet
    first.record("manifest", candidate=first.version.label, digest=reading.digest, files=dict(reading.manifest))
    return judge_artifact(first.loaded.profile.gates.artifact, reading, digest=first.version.digest)


def _judge_evaluation(first: FirstVersion) -> Verdict:
    profile, version = first.loaded.profile, first.version
    outputs = (version, first.services.files.read_outputs(version))
    layout = check_pairing(profile.output, candidate=outputs, incumbent=outputs).layout(row_count=1)
    divergence = Divergence(
        comparison(profile.output, layout),
        profile.judge.divergence.tolerance,
        labels_are_classes=isinstance(profile.output, TotalVariation),
    )
    rows = first.read_labelled(EVALUATION)
    return judge_first(profile.gates.evaluation, profile.bootstrap.metrics, rows, candidate=_model(first), divergence=divergence)


def _judge_drift(first: FirstVersion) -> Verdict:
    """As for any candidate; where those are held to what users send, the labelled rows stand for it: nobody has asked anything yet."""
    profile = first.loaded.profile
    policy, services = profile.gates.drift, first.services
    reference = first.noted(DRIFT, reference_rows(services, policy, first.version))
    is_from_users = policy.current.startswith(FROM_USERS)
    current = first.read_labelled(DRIFT) if is_from_users else first.noted(DRIFT, services.read_rows(policy.current))
    return judge_drift(policy, reference, current, answers=PlainAnswers(profile.output, _model(first)), confidence=1 - profile.judge.beta)


def _judge_served(first: FirstVersion) -> list[Verdict]:
    """Parity and latency, in a server on trial. One that does not start has passed neither."""
    profile, services = first.loaded.profile, first.services
    memory_mib = profile.limits.resident_mib
    trial = Trial(first.version, first.server, first.thread_count, profile.serving.start_deadline_seconds, memory_mib)
    judges = {PARITY: _judge_parity, LATENCY: _judge_latency}
    try:
        with services.start_trial(trial) as server, services.open_sender(server.port) as sender:
            return [_recorded(first, gate, partial(judge, first, server, sender)) for gate, judge in judges.items()]
    except ReleaseError as error:
        failed = f"its server could not be asked: {one_line(error)}"
        return [_recorded(first, gate, partial(inconclusive, gate, failed)) for gate in judges]


def _judge_parity(first: FirstVersion, _: TrialServer, sender: OpenSender) -> Verdict:
    gates = first.loaded.profile.gates
    rows = first.read_labelled(PARITY)
    return judge_parity(
        gates.parity,
        rows.frame.drop(columns=[gates.evaluation.label_column], errors="ignore"),
        seed=seed_from(rows.digest),
        candidate=_model(first),
        server=Server(sender.ask, encode_rows, lambda: None, first.services.clock),
    )


def _judge_latency(first: FirstVersion, server: TrialServer, sender: OpenSender) -> Verdict:
    """The absolute limits alone. Its load is what both arms get together; it is both of them, and is compared with nobody."""
    profile = first.loaded.profile
    inputs = first.read_labelled(LATENCY).frame[list(_model(first).input_columns)]
    verdict = judge_latency(
        profile.gates.latency,
        Targets(sender.send, sender.send, first.services.clock),
        payloads=one_by_one(inputs.iloc[spread(len(inputs), PAYLOAD_COUNT)]),
        start=ColdStart(server.start_seconds, profile.serving.start_deadline_seconds),
        error=profile.judge.beta,
    )
    if not verdict.measurements:  # it could not be judged
        return verdict
    return judge_required(LATENCY, [m for m in verdict.measurements if "incumbent" not in m.name], required=ABSOLUTE)


def _model(first: FirstVersion) -> Model:
    return first.services.load_model(first.directory)
