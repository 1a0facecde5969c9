"""The memory gate: what the candidate's server holds resident after it has worked."""

import itertools
import math
from collections.abc import Sequence

from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import MemoryReader, Sender
from interlock.errors import NoSamples, ServiceError
from interlock.model.redaction import one_line
from interlock.model.verdict import Measurement, Verdict
from interlock.profile.schema import Memory

GATE = "memory"
REQUIRED = ("failed_request_count", "resident_mib", "resident_next_to_incumbent_mib")
ENOUGH_FAILURES = 5  # a dead process refuses at once, a hanging one costs a time-out each


def judge_memory(
    policy: Memory,
    *,
    read_candidate_mib: MemoryReader,
    read_incumbent_mib: MemoryReader,
    send_candidate: Sender,
    payloads: Sequence[bytes],
) -> Verdict:
    """
    Does the candidate's server stay within its memory, absolutely and beside the incumbent's, after `request_count` requests?

    Memory is read once, after the last request. A reading that is unknown, not finite or not above zero is None: INCONCLUSIVE.
    A server that does not answer the requests has not done the work that was to be weighed: FAIL.
    """
    return judged(
        GATE,
        lambda: _judge(
            policy,
            read_candidate_mib=read_candidate_mib,
            read_incumbent_mib=read_incumbent_mib,
            send_candidate=send_candidate,
            payloads=payloads,
        ),
    )


def _judge(
    policy: Memory,
    *,
    read_candidate_mib: MemoryReader,
    read_incumbent_mib: MemoryReader,
    send_candidate: Sender,
    payloads: Sequence[bytes],
) -> Verdict:
    if not payloads:
        raise NoSamples("there is no payload to send: the memory gate needs at least one row")
    answered_count, failures = _work(policy, send_candidate, payloads)
    candidate, incumbent = _usable(read_candidate_mib()), _usable(read_incumbent_mib())
    beside = math.nan if incumbent is None else incumbent * policy.max_ratio_to_incumbent
    needed = policy.request_count
    measurements = (
        # One failure is proof, however few requests were sent.
        Measurement(REQUIRED[0], float(len(failures)), 0.0, "lower", "requests", answered_count + len(failures), 1 if failures else needed),
        Measurement(REQUIRED[1], candidate, policy.max_resident_mib, "lower", "MiB", answered_count, needed),
        Measurement(REQUIRED[2], candidate, beside, "lower", "MiB", answered_count, needed),
    )
    remarks = [f"first failure of the candidate: {text}" for text in failures[:1]]
    remarks += [
        f"the {who}'s resident memory cannot be read" for who, v in (("candidate", candidate), ("incumbent", incumbent)) if v is None
    ]
    return judge_required(GATE, measurements, required=REQUIRED, remarks=remarks)


def _work(policy: Memory, send: Sender, payloads: Sequence[bytes]) -> tuple[int, list[str]]:
    """Send the requests one after the other: how many were answered, and what the failures said."""
    answered_count, failures = 0, list[str]()
    for payload in itertools.islice(itertools.cycle(payloads), policy.request_count):
        try:
            send(payload)
            answered_count += 1
        except ServiceError as error:
            failures.append(f"{type(error).__name__}: {one_line(error)}")
        if len(failures) >= ENOUGH_FAILURES:
            break
    return answered_count, failures


def _usable(reading_mib: float | None) -> float | None:
    return reading_mib if reading_mib is not None and math.isfinite(reading_mib) and reading_mib > 0 else None
