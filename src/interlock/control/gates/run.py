"""Each gate with its real inputs: the rows and limits of the profile, both models, both running servers."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from interlock.control.comparison import comparison
from interlock.control.gates.disagreement import Servers, disagreement_policy, judge_disagreement, spread
from interlock.control.gates.drift import judge_drift
from interlock.control.gates.edge import judged
from interlock.control.gates.evaluation import judge_evaluation
from interlock.control.gates.latency import judge_latency
from interlock.control.gates.memory import judge_memory
from interlock.control.gates.traffic import judge_traffic
from interlock.control.policy import judge_policy
from interlock.control.records import verdict_values
from interlock.control.session import GATES_LEASE_SECONDS, ReleaseSession
from interlock.errors import ServiceUnavailable
from interlock.model.plane import ServerState
from interlock.model.verdict import Verdict

PAYLOAD_COUNT = 500  # distinct rows that the load goes through in a circle
LEAST_RATE_SECONDS = 5.0  # a rate read over less is a matter of luck; the gates before this one take longer


def run_evaluation(session: ReleaseSession) -> Verdict:
    """The candidate's metrics on the labelled rows, absolute and beside the incumbent's on the same rows."""
    policy = session.profile.gates.evaluation

    def judge() -> Verdict:
        rows = session.services.read_rows(policy.data)
        session.record("data", gate="evaluation", source=rows.source, digest=rows.digest, row_count=len(rows.frame))
        candidate = session.services.load_model(session.candidate_directory)
        incumbent = session.services.load_model(session.incumbent_directory)
        return judge_evaluation(policy, rows, candidate=candidate, incumbent=incumbent)

    return _judged(session, "evaluation", judge)


def run_latency(session: ReleaseSession) -> Verdict:
    """Both servers under the same load at the same time."""

    def judge() -> Verdict:
        candidate, incumbent = _servers(session)
        with session.services.open_sender(candidate.port) as ours, session.services.open_sender(incumbent.port) as theirs:
            return judge_latency(
                session.profile.gates.latency,
                send_candidate=ours.send,
                send_incumbent=theirs.send,
                payloads=_payloads(session),
                clock=session.services.clock,
            )

    return _judged(session, "latency", judge)


def run_memory(session: ReleaseSession) -> Verdict:
    """Resident memory of the candidate's server after work, beside the incumbent's."""

    def judge() -> Verdict:
        candidate, _ = _servers(session)
        with session.services.open_sender(candidate.port) as ours:
            return judge_memory(
                session.profile.gates.memory,
                read_candidate_mib=lambda: _servers(session)[0].resident_mib,
                read_incumbent_mib=lambda: _servers(session)[1].resident_mib,
                send_candidate=ours.send,
                payloads=_payloads(session),
            )

    return _judged(session, "memory", judge)


def run_disagreement(session: ReleaseSession) -> Verdict:
    """The answers of both servers to the same rows, compared as the canary will compare them, before a user is exposed."""

    def judge() -> Verdict:
        candidate, incumbent = _servers(session)
        with session.services.open_sender(candidate.port) as ours, session.services.open_sender(incumbent.port) as theirs:
            return judge_disagreement(
                disagreement_policy(session.profile),
                compare=comparison(session.profile.output, session.outputs.layout(row_count=1)),  # of each payload
                servers=Servers(ours.ask, theirs.ask, _holding(session), session.services.clock),
                payloads=_payloads(session),
            )

    return _judged(session, "disagreement", judge)


def run_traffic(session: ReleaseSession) -> Verdict:
    """The live traffic since the release was opened, against what the plan needs of it."""

    def judge() -> Verdict:
        clock, opened = session.services.clock, session.opened
        clock.sleep(max(0.0, opened.at_seconds + LEAST_RATE_SECONDS - clock.monotonic()))
        now = session.read_live()
        rate = max(0, now.count - opened.count) / (now.at_seconds - opened.at_seconds)  # a restarted Envoy counts from 0: too few
        return judge_traffic(judge_policy(session.profile), requests_per_second=rate)

    return _judged(session, "traffic", judge)


def run_drift(session: ReleaseSession) -> Verdict:
    """Inputs and the candidate's predictions, reference rows against current rows, measured by Evidently."""
    policy = session.profile.gates.drift

    def judge() -> Verdict:
        reference, current = session.services.read_rows(policy.reference), session.services.read_rows(policy.current)
        for rows in (reference, current):
            session.record("data", gate="drift", source=rows.source, digest=rows.digest, row_count=len(rows.frame))
        candidate = session.services.load_model(session.candidate_directory)
        return judge_drift(policy, reference, current, candidate=candidate, measure=session.services.measure_drift)

    return _judged(session, "drift", judge)


def _judged(session: ReleaseSession, gate: str, judge: Callable[[], Verdict]) -> Verdict:
    """The verdict, after it was written into the evidence."""
    session.hold_plane()
    verdict = judged(gate, judge)
    session.record("gate", **verdict_values(verdict))
    return verdict


def _holding(session: ReleaseSession) -> Callable[[], None]:
    """Holds the plane now and then: hundreds of slow answers, one after the other, last longer than one lease."""

    def hold() -> None:
        if session.services.clock.monotonic() - held_at[0] > GATES_LEASE_SECONDS / 4:
            session.hold_plane()
            held_at[0] = session.services.clock.monotonic()

    held_at = [session.services.clock.monotonic()]
    return hold


def _servers(session: ReleaseSession) -> tuple[ServerState, ServerState]:
    state = session.services.traffic.observe()
    if state.candidate is None or state.incumbent is None:
        raise ServiceUnavailable("a model server has gone while the gates were judged: see its log in the state directory")
    return state.candidate, state.incumbent


def _payloads(session: ReleaseSession) -> Sequence[bytes]:
    policy = session.profile.gates.evaluation
    rows = session.services.read_rows(policy.data).frame.drop(columns=[policy.label_column], errors="ignore")
    columns = list(session.services.load_model(session.candidate_directory).input_columns)
    positions = spread(len(rows), PAYLOAD_COUNT)  # over the whole file: it may be sorted
    return [_payload(rows.iloc[[position]][columns]) for position in positions]


def _payload(row: pd.DataFrame) -> bytes:
    split: dict[str, Any] = row.to_dict(orient="split", index=False)
    return json.dumps({"dataframe_split": split}).encode()
