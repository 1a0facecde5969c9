"""The disagreement gate: how much the two versions differ, beside how much the incumbent differs from itself, before a user is exposed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import Asker
from interlock.errors import NoSamples, ServiceError
from interlock.judge.bounds import mean_bounds
from interlock.judge.comparators import Compare
from interlock.model.redaction import one_line
from interlock.model.verdict import Measurement, Verdict
from interlock.ports import Clock
from interlock.profile.schema import ReleaseProfile

GATE = "disagreement"
REQUIRED = ("disagreement_at_least",)
ANSWER_SECONDS = 1.0  # on the average of all answers: users wait for each of these models, and the plane is held meanwhile
ENOUGH_FAILURES = 5  # of one server: a dead process refuses at once, a hanging one costs a time-out each


@dataclass(frozen=True, slots=True)
class DisagreementPolicy:
    """
    The limits of the gate.

    request_count: payloads, each a row of its own. tolerance: the mean D that the canary will tolerate.
    beta: each bound holds with probability 1 - beta.
    """

    request_count: int
    tolerance: float
    beta: float

    @property
    def deadline_seconds(self) -> float:
        """For all answers together: three to each payload."""
        return 3 * self.request_count * ANSWER_SECONDS


@dataclass(frozen=True, slots=True)
class Servers:
    """
    Whom the gate asks.

    hold: called before each question, to keep the plane; what it raises is the plane's failure, not a server's, and ends the gate.
    """

    ask_candidate: Asker
    ask_incumbent: Asker
    hold: Callable[[], None]
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Mean:
    """The mean of D over `count` payloads, and its bounds; NaN without any."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class _Answers:
    """What each server answered to each payload; None where it did not."""

    candidate: tuple[str | None, ...]
    incumbent: tuple[str | None, ...]
    again: tuple[str | None, ...]
    failures: tuple[str, ...]


def disagreement_policy(profile: ReleaseProfile) -> DisagreementPolicy:
    """The gate's limits out of a release profile: tolerance and beta are the canary's."""
    return DisagreementPolicy(profile.gates.disagreement.request_count, profile.judge.divergence.tolerance, profile.judge.beta)


def judge_disagreement(policy: DisagreementPolicy, *, compare: Compare, servers: Servers, payloads: Sequence[bytes]) -> Verdict:
    """
    Do the two versions differ no more than the canary will tolerate, and could the canary see it at all?

    `disagreement_at_least` is the lower bound of the mean D of the candidate against the incumbent: beyond the tolerance it is FAIL. Within
    it nothing is proved yet: that is the canary's to do. The incumbent answers every payload a second time, after all others;
    where it differs from itself by the tolerance or more (`noise_floor`), no canary could tell a good candidate from a bad one, and
    there is no limit: INCONCLUSIVE. So it is when the incumbent left a payload without a usable answer. A candidate's answer that is
    missing or unusable is D = 1. When the answers take longer than the policy's deadline it is INCONCLUSIVE as well.
    """
    return judged(GATE, lambda: _judge(policy, compare, servers, payloads))


def spread(total_count: int, count: int) -> list[int]:
    """So many positions, each once, from the whole of a sequence of `total_count`; all of them when there are fewer."""
    return [index * total_count // count for index in range(count)] if total_count >= count else list(range(total_count))


def _judge(policy: DisagreementPolicy, compare: Compare, servers: Servers, payloads: Sequence[bytes]) -> Verdict:
    if len(payloads) < policy.request_count:
        raise NoSamples(f"there are {len(payloads)} payloads, needs {policy.request_count}: add rows to the evaluation data")
    chosen = [payloads[position] for position in spread(len(payloads), policy.request_count)]
    answers = _answers(chosen, servers, policy.deadline_seconds)
    floor = _mean(_distances(compare, answers.incumbent, answers.again), policy.beta)
    between = _mean(_distances(compare, answers.incumbent, answers.candidate), policy.beta)
    lost_count = len(answers.incumbent) - floor.count
    is_judgeable = floor.value < policy.tolerance and not lost_count  # False for NaN
    measurements = _measurements(policy, floor, between, limit=policy.tolerance if is_judgeable else math.nan)
    remarks = [*_remarks(policy, floor, between), *answers.failures]
    if lost_count:
        remarks.append(
            f"the incumbent left {lost_count} of {len(answers.incumbent)} payloads without a usable answer "
            f"(each is one row, and so must be its answer)"
        )
    return judge_required(GATE, measurements, required=REQUIRED, remarks=remarks)


def _measurements(policy: DisagreementPolicy, floor: _Mean, between: _Mean, *, limit: float) -> tuple[Measurement, ...]:
    """The one that decides, and beside it the four that it comes from, without a limit: none of them is held to one."""

    needed = policy.request_count

    def measured(name: str, value: float, of: _Mean, limit: float = math.nan, needed_count: int = needed) -> Measurement:
        return Measurement(name, value if math.isfinite(value) else None, limit, "lower", "", of.count, needed_count)

    # A bound beyond the tolerance is proof, however few payloads it took.
    enough = 1 if between.low > policy.tolerance else needed
    return (
        measured("disagreement_at_least", between.low, between, limit, enough),
        measured("mean_disagreement", between.value, between),
        measured("disagreement_at_most", between.high, between),
        measured("noise_floor", floor.value, floor),
        measured("noise_floor_at_most", floor.high, floor),
    )


def _remarks(policy: DisagreementPolicy, floor: _Mean, between: _Mean) -> Iterator[str]:
    if floor.value >= policy.tolerance:
        yield (
            f"the incumbent differs from itself by {floor.value:.4g} on the same inputs, the tolerance is {policy.tolerance:g}: the canary "
            f"cannot be judged; make its answers repeatable, or choose a comparator or a tolerance that its own noise does not reach"
        )
    elif between.low > policy.tolerance:
        yield (
            f"candidate and incumbent differ by {between.value:.4g} on {between.count} inputs (at least {between.low:.4g}), the tolerance "
            f"is {policy.tolerance:g} and the incumbent's own noise {floor.value:.4g}: no user was exposed"
        )


def _answers(payloads: Sequence[bytes], servers: Servers, deadline_seconds: float) -> _Answers:
    """Both servers in turn, then the incumbent once more; a server that has failed often enough ends it. NoSamples after the deadline."""

    def ready() -> None:
        if clock.monotonic() - started > deadline_seconds:
            count = sum(map(len, (candidate, incumbent, again)))
            raise NoSamples(
                f"only {count} of {3 * len(payloads)} answers came within {deadline_seconds:g} s: the models are too slow for it"
            )
        servers.hold()

    clock, started = servers.clock, servers.clock.monotonic()
    ours, theirs = _Server("candidate", servers.ask_candidate, ready), _Server("incumbent", servers.ask_incumbent, ready)
    candidate, incumbent, again = list[str | None](), list[str | None](), list[str | None]()
    for payload in payloads:
        if ours.is_broken or theirs.is_broken:
            break
        incumbent.append(theirs.ask(payload))
        candidate.append(ours.ask(payload))
    for payload in payloads[: len(incumbent)]:
        if theirs.is_broken:
            break
        again.append(theirs.ask(payload))
    return _Answers(tuple(candidate), tuple(incumbent), tuple(again), (*ours.failures[:1], *theirs.failures[:1]))


class _Server:
    """One server's answers, None for those it did not give; remembers what went wrong."""

    def __init__(self, who: str, ask: Asker, ready: Callable[[], None]) -> None:
        self._who, self._ask, self._ready = who, ask, ready
        self.failures: list[str] = []

    @property
    def is_broken(self) -> bool:
        return len(self.failures) >= ENOUGH_FAILURES

    def ask(self, payload: bytes) -> str | None:
        self._ready()
        try:
            return self._ask(payload)
        except ServiceError as error:
            self.failures.append(f"first failure of the {self._who}: {type(error).__name__}: {one_line(error)}")
            return None


def _distances(compare: Compare, incumbent: Sequence[str | None], other: Sequence[str | None]) -> list[float]:
    """D of each payload that the incumbent answered usably."""
    found = [compare(one, two) for one, two in zip(incumbent, other, strict=False)]
    return [difference.divergence for difference in found if difference is not None]


def _mean(distances: Sequence[float], beta: float) -> _Mean:
    mean = math.fsum(distances) / len(distances) if distances else math.nan
    bounds = mean_bounds(mean, len(distances), beta=beta)
    return _Mean(mean, *(bounds or (math.nan, math.nan)), len(distances))
