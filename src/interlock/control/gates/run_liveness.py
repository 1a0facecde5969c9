"""The liveness gate with its real inputs: every gate as the release will ask it, on a candidate that it must refuse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from interlock.control.comparison import comparison
from interlock.control.failures import FormerFailures
from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.artifact import judge_artifact
from interlock.control.gates.disagreement import Servers, disagreement_policy, judge_disagreement, spread
from interlock.control.gates.drift import judge_drift, sample
from interlock.control.gates.evaluation import judge_evaluation
from interlock.control.gates.inputs import Model, OpenSender
from interlock.control.gates.known_bad import (
    Changed,
    LateClock,
    SomeRows,
    hostile_files,
    leaking,
    moved,
    short_drift,
    short_load,
    some_labelled,
    too_slow_ms,
    unlike,
    useless,
)
from interlock.control.gates.latency import ColdStart, judge_latency
from interlock.control.gates.liveness import KnownBad, judge_liveness
from interlock.control.gates.load import Targets
from interlock.control.gates.memory import judge_memory
from interlock.control.gates.parity import Server, judge_parity
from interlock.control.gates.readiness import SERVER_COUNT, ServerLook, judge_readiness
from interlock.control.gates.run import divergence_of
from interlock.control.gates.stage import (
    encode_rows,
    holding,
    judged_and_recorded,
    one_by_one,
    read_incumbent,
    read_labelled_rows,
)
from interlock.control.gates.traffic import judge_traffic
from interlock.control.gates.wrong_answers import Contradicting
from interlock.control.policy import judge_policy
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Outcome, Verdict

LATENCY_REQUEST_COUNT = 20  # all of them late: no more are needed to prove it
MEMORY_REQUEST_COUNT = 60
MEMORY_RATE = 200.0  # both arms together
LEAKS_TIMES = 20.0  # as much as the profile allows
PARITY_ROW_COUNT = 20
DISAGREEMENT_COUNT = 50
HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Incumbent:
    """Who plays the known-bad candidates: the incumbent, its server, and its payloads."""

    session: ReleaseSession
    model: Model
    sender: OpenSender
    payloads: Sequence[bytes]
    hold: Callable[[], None]


def run_liveness(session: ReleaseSession) -> Verdict:
    """Every gate of this release on a candidate made for it, before any gate sees the real one. It costs some seconds."""

    def judge() -> Verdict:
        server = read_incumbent(session)
        model = session.services.load_model(session.incumbent_directory)
        rows = read_labelled_rows(session).frame[list(model.input_columns)]
        payloads = one_by_one(rows.iloc[spread(len(rows), DISAGREEMENT_COUNT)])
        with session.services.open_sender(server.port) as sender:
            it = _Incumbent(session, model, sender, payloads, holding(session))
            return judge_liveness(_known_bad(it), clock=session.services.clock, hold=it.hold)

    return judged_and_recorded(session, "liveness", judge)


def _known_bad(it: _Incumbent) -> list[KnownBad]:
    def bad(gate: str, defect: str, judge: Callable[[_Incumbent], Verdict], refusal: Outcome = Outcome.FAIL) -> KnownBad:
        return KnownBad(gate, defect, refusal, lambda: judge(it))

    return [
        bad("artifact", "a pickle that runs a command", _artifact),
        bad("readiness", "an incumbent that does not answer", _readiness, Outcome.INCONCLUSIVE),
        bad("traffic", "no traffic", _traffic, Outcome.INCONCLUSIVE),
        bad("evaluation", "answers that contradict every label", _evaluation),
        bad("parity", "a server that answers otherwise than the model", _parity),
        bad("latency", "answers that come too late", _latency),
        bad("memory", "a leak", _memory),
        bad("disagreement", "answers of no use", _disagreement),
        bad("drift", "a column far from where it was", _drift),
    ]


def _artifact(it: _Incumbent) -> Verdict:
    with hostile_files() as directory:
        reading = it.session.services.read_artifact(directory, hold=it.hold)
    return judge_artifact(it.session.profile.gates.artifact, reading, digest=reading.digest)


def _readiness(_: _Incumbent) -> Verdict:
    return judge_readiness([ServerLook()] * SERVER_COUNT, lambda: FormerFailures(0, ()))


def _traffic(it: _Incumbent) -> Verdict:
    return judge_traffic(judge_policy(it.session.profile), requests_per_second=0.0, seen_seconds=HOUR_SECONDS)


def _evaluation(it: _Incumbent) -> Verdict:
    policy = it.session.profile.gates.evaluation
    rows = some_labelled(read_labelled_rows(it.session), policy)
    divergence = divergence_of(it.session)
    bad = Contradicting(it.model, rows.frame[policy.label_column].tolist(), it.session.profile.output, divergence)
    return judge_evaluation(policy, rows, candidate=bad, incumbent=it.model, divergence=divergence)


def _parity(it: _Incumbent) -> Verdict:
    policy = it.session.profile.gates.parity.model_copy(update={"row_count": PARITY_ROW_COUNT, "batch_row_count": PARITY_ROW_COUNT // 2})
    rows = read_labelled_rows(it.session).frame.head(PARITY_ROW_COUNT)
    server = Server(it.sender.ask, encode_rows, it.hold, it.session.services.clock)
    return judge_parity(policy, rows, seed=0, candidate=Changed(it.model, unlike, it.model.input_columns), server=server)


def _latency(it: _Incumbent) -> Verdict:
    policy = it.session.profile.gates.latency
    clock = LateClock(it.session.services.clock, too_slow_ms([policy.p50, policy.p95, policy.p99]))
    targets = Targets(clock.late(it.sender.send), it.sender.send, clock, it.hold, lambda: None)
    start = ColdStart(0.0, it.session.profile.serving.start_deadline_seconds)
    short = short_load(policy, LATENCY_REQUEST_COUNT)
    return judge_latency(short, targets, payloads=it.payloads, start=start, error=it.session.profile.judge.beta)


def _memory(it: _Incumbent) -> Verdict:
    services, policy = it.session.services, it.session.profile.gates.memory
    short = policy.model_copy(
        update={"request_count": MEMORY_REQUEST_COUNT, "requests_per_second": max(MEMORY_RATE, policy.requests_per_second)}
    )
    allowed_mib = max(policy.max_growth_mib_per_1000_requests, policy.max_growth_above_incumbent_mib_per_1000_requests)
    observe = leaking(services.traffic.observe, LEAKS_TIMES * allowed_mib / 1000)  # it looks at every request
    targets = Targets(it.sender.send, it.sender.send, services.clock, it.hold, lambda: None)
    return judge_memory(short, targets, observe=observe, payloads=it.payloads, error=it.session.profile.judge.beta)


def _disagreement(it: _Incumbent) -> Verdict:
    profile, outputs = it.session.profile, it.session.outputs
    policy = replace(disagreement_policy(profile), request_count=min(DISAGREEMENT_COUNT, len(it.payloads)))
    compare = comparison(profile.output, outputs.layout(row_count=1))
    servers = Servers(useless, it.sender.ask, it.hold, it.session.services.clock)
    return judge_disagreement(policy, compare=compare, servers=servers, payloads=it.payloads)


def _drift(it: _Incumbent) -> Verdict:
    """On the evaluation data, which has the model's inputs: the reference may be whatever file the candidate names."""
    labelled = read_labelled_rows(it.session)
    few = sample(labelled, max(it.session.profile.gates.drift.min_row_count, PARITY_ROW_COUNT))
    policy = short_drift(it.session.profile.gates.drift, few)
    answers = PlainAnswers(it.session.profile.output, it.model)
    before, now = SomeRows(few, labelled.digest), SomeRows(moved(few, policy.columns[0]), labelled.digest)
    return judge_drift(policy, before, now, answers=answers, confidence=1 - it.session.profile.judge.beta)
