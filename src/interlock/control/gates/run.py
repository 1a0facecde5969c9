"""Each gate with its real inputs: the rows and limits of the profile, both models, both running servers."""

from dataclasses import replace

from interlock.control.comparison import comparison
from interlock.control.failures import FormerFailures, former_failures
from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.artifact import judge_artifact
from interlock.control.gates.disagreement import Servers, disagreement_policy, judge_disagreement, spread
from interlock.control.gates.distances import Divergence
from interlock.control.gates.drift import judge_drift
from interlock.control.gates.drift_page import draw_page
from interlock.control.gates.evaluation import judge_evaluation
from interlock.control.gates.inputs import seed_from
from interlock.control.gates.latency import ColdStart, judge_latency
from interlock.control.gates.memory import judge_memory
from interlock.control.gates.parity import Server, judge_parity
from interlock.control.gates.readiness import ANSWER_COUNT, Answered, ServerLook, ask_rows, judge_readiness, look_at_server
from interlock.control.gates.stage import (
    encode_rows,
    holding,
    judged_and_recorded,
    load_targets,
    one_by_one,
    read_labelled_rows,
    read_payloads,
    read_reference_rows,
    read_servers,
    read_start_seconds,
)
from interlock.control.gates.traffic import judge_traffic
from interlock.control.live_traffic import read_last_hour
from interlock.control.policy import judge_policy
from interlock.control.session import ReleaseSession
from interlock.errors import EvidenceError
from interlock.model.verdict import Verdict
from interlock.profile.output import TotalVariation


def run_artifact(session: ReleaseSession) -> Verdict:
    """The candidate's files before anything of them is loaded. It needs no server. Every file's SHA-256 goes into the evidence."""
    candidate = session.release.candidate

    def judge() -> Verdict:
        reading = session.services.read_artifact(session.candidate_directory, hold=holding(session))
        session.record("manifest", candidate=candidate.label, digest=reading.digest, files=dict(reading.manifest))
        return judge_artifact(session.profile.gates.artifact, reading, digest=candidate.digest)

    return judged_and_recorded(session, "artifact", judge)


def run_readiness(session: ReleaseSession) -> Verdict:
    """The incumbent's two servers as they are now, and what the evidence knows of the candidate's files."""

    def judge() -> Verdict:
        return judge_readiness(_look_at_incumbent(session), lambda: _read_failures(session))

    return judged_and_recorded(session, "readiness", judge)


def _look_at_incumbent(session: ReleaseSession) -> list[ServerLook]:
    services, version = session.services, session.release.incumbent
    opened, now = session.opened_plane, services.traffic.observe()
    if opened is None:
        raise EvidenceError("nobody has looked at the plane when the release was opened: release the version again")
    rows = read_labelled_rows(session).frame[list(services.load_model(session.incumbent_directory).input_columns)]
    payloads = one_by_one(rows.iloc[spread(len(rows), ANSWER_COUNT)])

    def ask(port: int) -> Answered:
        with services.open_sender(port) as sender:
            return ask_rows(sender.ask, payloads)

    return [
        look_at_server("incumbent's server", version, opened=opened.incumbent, now=now.incumbent, ask=ask),
        look_at_server("incumbent's spare", version, opened=opened.spare, now=now.spare, ask=ask),
    ]


def _read_failures(session: ReleaseSession) -> FormerFailures:
    release = session.release
    return former_failures(
        session.services.evidence,
        digest=release.candidate.digest,
        profile_digest=release.profile_digest,
        besides=release.release_id,
    )


def run_evaluation(session: ReleaseSession) -> Verdict:
    """The candidate's metrics on the labelled rows, absolute and beside the incumbent's on the same rows."""
    policy = session.profile.gates.evaluation

    def judge() -> Verdict:
        rows = read_labelled_rows(session)
        session.record("data", gate="evaluation", source=rows.source, digest=rows.digest, row_count=len(rows.frame))
        candidate = session.services.load_model(session.candidate_directory)
        incumbent = session.services.load_model(session.incumbent_directory)
        return judge_evaluation(policy, rows, candidate=candidate, incumbent=incumbent, divergence=divergence_of(session))

    return judged_and_recorded(session, "evaluation", judge)


def divergence_of(session: ReleaseSession) -> Divergence:
    """How the canary will compare the answers to one row, and what it will tolerate."""
    output = session.profile.output
    return Divergence(
        comparison(output, session.outputs.layout(row_count=1)),
        session.profile.judge.divergence.tolerance,
        labels_are_classes=isinstance(output, TotalVariation),
    )


def run_parity(session: ReleaseSession) -> Verdict:
    """The candidate's server and the candidate in this process, on the same rows of the evaluation data."""
    policy = session.profile.gates

    def judge() -> Verdict:
        candidate, _ = read_servers(session)
        rows = read_labelled_rows(session)
        session.record("data", gate="parity", source=rows.source, digest=rows.digest, row_count=len(rows.frame))
        with session.services.open_sender(candidate.port) as sender:
            return judge_parity(
                policy.parity,
                rows.frame.drop(columns=[policy.evaluation.label_column], errors="ignore"),
                seed=seed_from(rows.digest),
                candidate=session.services.load_model(session.candidate_directory),
                server=Server(sender.ask, encode_rows, holding(session), session.services.clock),
            )

    return judged_and_recorded(session, "parity", judge)


def run_latency(session: ReleaseSession) -> Verdict:
    """Both servers under the same load at the same time, and how long the candidate's took to start."""

    def judge() -> Verdict:
        candidate, incumbent = read_servers(session)
        with session.services.open_sender(candidate.port) as ours, session.services.open_sender(incumbent.port) as theirs:
            return judge_latency(
                session.profile.gates.latency,
                load_targets(session, ours, theirs),
                payloads=read_payloads(session),
                start=ColdStart(read_start_seconds(session), session.profile.serving.start_deadline_seconds),
                error=session.profile.judge.beta,
            )

    return judged_and_recorded(session, "latency", judge)


def run_memory(session: ReleaseSession) -> Verdict:
    """Resident memory of both servers while they work at a rate."""

    def judge() -> Verdict:
        candidate, incumbent = read_servers(session)
        with session.services.open_sender(candidate.port) as ours, session.services.open_sender(incumbent.port) as theirs:
            return judge_memory(
                session.profile.gates.memory,
                load_targets(session, ours, theirs),
                observe=session.services.traffic.observe,
                payloads=read_payloads(session),
                error=session.profile.judge.beta,
            )

    return judged_and_recorded(session, "memory", judge)


def run_disagreement(session: ReleaseSession) -> Verdict:
    """The answers of both servers to the same rows, compared as the canary will compare them, before a user is exposed."""

    def judge() -> Verdict:
        candidate, incumbent = read_servers(session)
        with session.services.open_sender(candidate.port) as ours, session.services.open_sender(incumbent.port) as theirs:
            return judge_disagreement(
                disagreement_policy(session.profile),
                compare=comparison(session.profile.output, session.outputs.layout(row_count=1)),  # of each payload
                servers=Servers(ours.ask, theirs.ask, holding(session), session.services.clock),
                payloads=read_payloads(session),
            )

    return judged_and_recorded(session, "disagreement", judge)


def run_traffic(session: ReleaseSession) -> Verdict:
    """The live traffic of the last hour, or of what the plane has seen of it, against what the plan needs of it."""

    def judge() -> Verdict:
        seen = read_last_hour(session.services.traffic, session.services.clock)
        rate = seen.requests_count / seen.seen_seconds
        return judge_traffic(judge_policy(session.profile), requests_per_second=rate, seen_seconds=seen.seen_seconds)

    return judged_and_recorded(session, "traffic", judge)


def run_drift(session: ReleaseSession) -> Verdict:
    """Inputs and the candidate's answers, reference rows against current rows; then Evidently's page about them."""
    policy = session.profile.gates.drift

    def judge() -> Verdict:
        reference, current = read_reference_rows(session), session.services.read_rows(policy.current)
        for rows in (reference, current):
            session.record("data", gate="drift", source=rows.source, digest=rows.digest, row_count=len(rows.frame))
        answers = PlainAnswers(session.profile.output, session.services.load_model(session.candidate_directory))
        verdict = judge_drift(policy, reference, current, answers=answers, confidence=1 - session.profile.judge.beta)
        draw = session.services.draw_drift(session.release.release_id)
        if (missing := draw_page(verdict, policy, reference, current, draw=draw)) is not None:
            return replace(verdict, reason=f"{verdict.reason}; {missing}")
        session.record("page", gate="drift", name="drift.html")
        return verdict

    return judged_and_recorded(session, "drift", judge)
