"""What every gate of a release needs: the edge, the plane held, the two servers, real rows to send."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pandas as pd

from interlock.control.gates.disagreement import spread
from interlock.control.gates.edge import judged
from interlock.control.gates.inputs import Dataset, OpenSender
from interlock.control.gates.load import Targets
from interlock.control.records import verdict_values
from interlock.control.session import GATES_LEASE_SECONDS, ReleaseSession, Services
from interlock.errors import EvidenceError, ReleaseError, ServiceUnavailable
from interlock.model.plane import ServerState
from interlock.model.release import ModelVersion
from interlock.model.verdict import Verdict
from interlock.profile.gates import Drift, Evaluation

OWN_TRAINING = "candidate:training"
HOLD_SECONDS = GATES_LEASE_SECONDS / 4
LONGEST_GATE_SECONDS = 3600.0
PAYLOAD_COUNT = 500  # distinct rows that the load goes through in a circle


def judged_and_recorded(session: ReleaseSession, gate: str, judge: Callable[[], Verdict]) -> Verdict:
    """
    The verdict of `judge`, after it was written into the evidence. The plane is held meanwhile.

    Raises:
        ConcurrencyError: the plane was lost; what was judged after that is nobody's fault, and is not written down.
    """
    session.hold_plane()
    with _held(session):
        verdict = judged(gate, judge)
    session.hold_plane()
    session.record("gate", **verdict_values(verdict))
    return verdict


@contextmanager
def _held(session: ReleaseSession) -> Iterator[None]:
    """
    Hold the plane from a thread of its own while a gate computes: a slow model answers for minutes. A gate that hangs for an hour loses it.

    Nobody is on the candidate at the gates. Whatever the thread cannot renew is found by the next step that asks.
    """
    over = threading.Event()

    def hold() -> None:
        for _ in range(math.ceil(LONGEST_GATE_SECONDS / HOLD_SECONDS)):
            if over.wait(HOLD_SECONDS):
                return
            with suppress(ReleaseError):
                session.hold_plane()

    thread = threading.Thread(target=hold, name="hold-plane", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def holding(session: ReleaseSession) -> Callable[[], None]:
    """Holds the plane now and then: hundreds of slow answers, one after the other, last longer than one lease."""

    def hold() -> None:
        if session.services.clock.monotonic() - held_at[0] > GATES_LEASE_SECONDS / 4:
            session.hold_plane()
            held_at[0] = session.services.clock.monotonic()

    held_at = [session.services.clock.monotonic()]
    return hold


def read_servers(session: ReleaseSession) -> tuple[ServerState, ServerState]:
    """Candidate and incumbent as the plane has them now. ServiceUnavailable when one has gone."""
    state = session.services.traffic.observe()
    if state.candidate is None or state.incumbent is None:
        raise ServiceUnavailable("a model server has gone while the gates were judged: see its log in the state directory")
    return state.candidate, state.incumbent


def read_incumbent(session: ReleaseSession) -> ServerState:
    """The incumbent's server as the plane has it now. ServiceUnavailable when it has gone."""
    incumbent = session.services.traffic.observe().incumbent
    if incumbent is None:
        raise ServiceUnavailable("the incumbent's server has gone while the gates were judged: see its log in the state directory")
    return incumbent


def load_targets(session: ReleaseSession, candidate: OpenSender, incumbent: OpenSender) -> Targets:
    """Both servers as the load gates want them."""
    services = session.services
    return Targets(candidate.send, incumbent.send, services.clock, holding(session), services.traffic.candidate_failure)


def read_start_seconds(session: ReleaseSession) -> float | None:
    """How long the candidate's server took to its first answer, as it was recorded when it was loaded; None when it was not."""
    records = session.services.evidence.read(session.release.release_id)
    seconds = [each.get("start_seconds") for each in records if each["kind"] == "loaded"]
    return float(seconds[-1]) if seconds and isinstance(seconds[-1], int | float) else None


def read_labelled_rows(session: ReleaseSession) -> Dataset:
    """The evaluation data, as `labelled_rows` reads it."""
    return labelled_rows(session.services, session.profile.gates.evaluation)


def labelled_rows(services: Services, policy: Evaluation) -> Dataset:
    """The evaluation data, if it is the very bytes that the profile names. Raises EvidenceError, and what reading raises."""
    rows = services.read_rows(policy.data)
    if rows.digest != policy.data_sha256:
        raise EvidenceError(
            f"the bytes of {rows.source} have SHA-256 {rows.digest}, the profile wants {policy.data_sha256}: "
            f"put the reviewed file back, or have gates.evaluation.data_sha256 changed in a review"
        )
    return rows


def read_reference_rows(session: ReleaseSession) -> Dataset:
    """What the candidate was trained on."""
    return reference_rows(session.services, session.profile.gates.drift, session.release.candidate)


def reference_rows(services: Services, policy: Drift, candidate: ModelVersion) -> Dataset:
    """What this version was trained on, by the drift gate's `reference`: an address, or the dataset that its own run logged."""
    if policy.reference != OWN_TRAINING:
        return services.read_rows(policy.reference)
    return services.read_training_rows(candidate.name, candidate.version)


def read_payloads(session: ReleaseSession) -> Sequence[bytes]:
    """Real rows of the evaluation data as request bodies, one row each, at most 500 of them from the whole file."""
    policy = session.profile.gates.evaluation
    rows = read_labelled_rows(session).frame.drop(columns=[policy.label_column], errors="ignore")
    columns = list(session.services.load_model(session.candidate_directory).input_columns)
    return one_by_one(rows.iloc[spread(len(rows), PAYLOAD_COUNT)][columns])  # over the whole file: it may be sorted


def one_by_one(rows: pd.DataFrame) -> list[bytes]:
    """Each row as the body of a request of its own."""
    split: dict[str, Any] = rows.to_dict(orient="split", index=False)
    return [json.dumps({"dataframe_split": {**split, "data": [row]}}).encode() for row in split["data"]]


def encode_rows(rows: pd.DataFrame) -> bytes:
    """Rows as the body of one request."""
    split: dict[str, Any] = rows.to_dict(orient="split", index=False)
    return json.dumps({"dataframe_split": split}).encode()
