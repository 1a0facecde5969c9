"""The readiness gate: may this release begin at all? The incumbent could take everything back, and these files have not failed before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from interlock.control.failures import FormerFailures
from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import Asker
from interlock.errors import ReleaseError, ServiceError
from interlock.model.plane import ServerState
from interlock.model.redaction import one_line, redacted
from interlock.model.release import ModelVersion
from interlock.model.verdict import Measurement, Outcome, Verdict

GATE = "readiness"
UNHEALTHY = "INCUMBENT_UNHEALTHY"
FAILED_BEFORE = "releases_that_failed_with_this_digest"
REQUIRED = ("incumbent_servers_ready", "incumbent_servers_steady", "incumbent_rows_answered", FAILED_BEFORE)
SERVER_COUNT = 2  # the incumbent's own and its spare: see docs/decisions/0011-takeover-and-spare.md
ANSWER_COUNT = 5  # real rows to each: this is a yes or no, the load gates measure


@dataclass(frozen=True, slots=True)
class Answered:
    """How many rows were answered before the first that was not, and what that one said."""

    count: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ServerLook:
    """What was seen of one of the incumbent's servers. `troubles` say what is missing, for people."""

    is_ready: bool = False
    is_steady: bool = False
    answered_count: int = 0
    troubles: tuple[str, ...] = ()


def judge_readiness(looks: Sequence[ServerLook], read_failures: Callable[[], FormerFailures]) -> Verdict:
    """
    Is the incumbent healthy and warm, and is this the first time that these files are released under this profile?

    Both of its servers are ready, were not started again since the release was opened, and answer real rows now; else it is INCONCLUSIVE,
    INCUMBENT_UNHEALTHY: nothing is wrong with the candidate, and neither rollback nor adoption asks this gate. A former release of the
    same digest that was Rejected or RolledBack under the same profile is FAIL. Evidence that cannot be read is INCONCLUSIVE.
    """
    return judged(GATE, lambda: _judge(looks, read_failures))


def look_at_server(
    name: str, version: ModelVersion, *, opened: ServerState | None, now: ServerState | None, ask: Callable[[int], Answered]
) -> ServerLook:
    """
    One of the incumbent's servers as it is now, beside the moment when the release was opened.

    `ask` sends five rows to a port. A spare that was not there yet when the release was opened is steady: it belongs to an incumbent that
    has just been promoted.
    """
    if now is None:
        return ServerLook(troubles=(f"the {name} is gone",))
    if now.version != version:
        return ServerLook(troubles=(f"the {name} has {now.version.label}, and the release is beside {version.label}",))
    answered = ask(now.port)
    is_steady = opened is None or (opened.pid, opened.restart_count) == (now.pid, now.restart_count)
    troubles = [
        *([] if now.ready else [f"the {name} is not ready"]),
        *([] if is_steady else [f"the {name} was started again since the release was opened (restart {now.restart_count})"]),
        *(
            [f"the {name} left row {answered.count + 1} of {ANSWER_COUNT} without an answer, {answered.failure}"]
            if answered.failure
            else []
        ),
    ]
    return ServerLook(now.ready, is_steady, answered.count, tuple(troubles))


def ask_rows(ask: Asker, payloads: Sequence[bytes]) -> Answered:
    """Send these rows one after the other, up to the first that is not answered: a server that hangs costs one time-out."""
    for count, payload in enumerate(payloads):
        try:
            ask(payload)
        except ServiceError as error:
            return Answered(count, f"{type(error).__name__}: {one_line(error)}")
    return Answered(len(payloads))


def _judge(looks: Sequence[ServerLook], read_failures: Callable[[], FormerFailures]) -> Verdict:
    former, remarks = None, list[str]()
    try:
        former = read_failures()
        remarks += _former_remarks(former)
    except ReleaseError as error:
        remarks.append(f"former releases cannot be known: {one_line(error)}; mend that evidence, or move it to where evidence is kept")
    troubles = [trouble for look in looks for trouble in look.troubles]
    verdict = judge_required(GATE, tuple(_measurements(looks, former)), required=REQUIRED, remarks=[*remarks, *troubles])
    if verdict.outcome is Outcome.INCONCLUSIVE and troubles:  # its name first: it is what people search for
        return replace(verdict, reason=f"{GATE}: {UNHEALTHY}: {verdict.reason.removeprefix(f'{GATE}: ')}")
    return verdict


def _measurements(looks: Sequence[ServerLook], former: FormerFailures | None) -> Iterator[Measurement]:
    """What is missing to the incumbent is missing to the samples: INCONCLUSIVE, and never the candidate's FAIL."""
    for name, count, needed, unit in (
        ("incumbent_servers_ready", sum(look.is_ready for look in looks), SERVER_COUNT, "servers"),
        ("incumbent_servers_steady", sum(look.is_steady for look in looks), SERVER_COUNT, "servers"),
        ("incumbent_rows_answered", sum(look.answered_count for look in looks), SERVER_COUNT * ANSWER_COUNT, "rows"),
    ):
        yield Measurement(name, float(count), float(needed), "higher", unit, count, needed)
    failed_count = None if former is None else float(len(former.failed))
    known_count = 0 if former is None else former.looked_at_count + 1  # this release is one of them
    yield Measurement(FAILED_BEFORE, failed_count, 0.0, "lower", "releases", known_count, 1)


def _former_remarks(former: FormerFailures) -> Iterator[str]:
    if former.failed:
        first = former.failed[0]  # those after it may have failed for this very reason
        yield (
            f"the same files were {first.decision} as {first.candidate} in {first.release_id} at {first.at} under the same profile "
            f"({redacted(first.reason)}): log a new version, or have a change of the profile reviewed"
        )
