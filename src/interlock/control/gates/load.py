"""An open-loop load on two servers in turn: requests leave on schedule, however slow the answers are."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from interlock.control.gates.inputs import Sender
from interlock.errors import ServiceError
from interlock.model.redaction import one_line, redacted
from interlock.ports import Clock

THREADS_PER_ARM = 32  # 25 requests a second with a time-out of about one second; beyond that a request waits, and its wait counts
ENOUGH_FAILURES = 20  # one failure already decides; after so many the rest would only cost time-outs


@dataclass(frozen=True, slots=True)
class ArmReadings:
    """
    What one arm answered, in the order in which it was due: latencies from the scheduled send time, in milliseconds, infinite where a
    request failed. `failures` are of the warm-up too.
    """

    latencies_ms: tuple[float, ...]
    failures: tuple[str, ...] = ()
    warm_up_ms: tuple[float, ...] = ()

    @property
    def answered_count(self) -> int:
        """How many requests after the warm-up were answered well."""
        return sum(math.isfinite(ms) for ms in self.latencies_ms)


@dataclass(frozen=True, slots=True)
class LoadReadings:
    """Both arms' readings under the same load."""

    candidate: ArmReadings
    incumbent: ArmReadings

    def by_name(self) -> tuple[tuple[str, ArmReadings], ...]:
        """Each arm with its name."""
        return ("candidate", self.candidate), ("incumbent", self.incumbent)

    def followed_by(self, later: "LoadReadings") -> "LoadReadings":
        """Both loads as one."""
        return LoadReadings(_joined(self.candidate, later.candidate), _joined(self.incumbent, later.incumbent))


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests each arm gets after how many that do not count, and how fast they follow each other, both arms together."""

    request_count: int
    warm_up_request_count: int
    requests_per_second: float


@dataclass(frozen=True, slots=True)
class Targets:
    """
    Who gets the load, and by which clock.

    hold: called after each pair of requests: a long load must not lose the plane. candidate_failure: why the candidate's server ended, if
    it did.
    """

    candidate: Sender
    incumbent: Sender
    clock: Clock
    hold: Callable[[], None] = lambda: None
    candidate_failure: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Pause:
    """After every so many pairs, when both arms have answered all of them, `call` is told how many requests each arm got so far."""

    every_pairs: int
    call: Callable[[int], None]


def offer_load(load: Load, targets: Targets, *, payloads: Sequence[bytes], pause: Pause | None = None) -> LoadReadings:
    """
    Send the same payloads to both arms, alternating, and read the latency of each answer.

    A latency starts when the request was due, not when it was sent: a server that stalls also slows the requests behind it, and a
    generator that politely waits for it would hide them (coordinated omission). The order within a pair alternates, so that neither arm
    always comes second. Ends early when an arm has failed 20 times: the rest is then not sent. A pause delays what is due meanwhile:
    latencies of a load with pauses say little.
    """
    with _Arm(targets.candidate, targets.clock) as ours, _Arm(targets.incumbent, targets.clock) as theirs:
        started_seconds = targets.clock.monotonic()
        for index, (arm, payload) in enumerate(_turns(ours, theirs, load, payloads)):
            if ours.failed_count >= ENOUGH_FAILURES or theirs.failed_count >= ENOUGH_FAILURES:
                ours.give_up()
                theirs.give_up()
                break
            due_seconds = started_seconds + index / load.requests_per_second
            if (wait_seconds := due_seconds - targets.clock.monotonic()) > 0:
                targets.clock.sleep(wait_seconds)
            arm.send(payload, due_seconds)
            if index % 2:
                targets.hold()
                _pause(pause, ours, theirs, pair_count=index // 2 + 1)
        return LoadReadings(ours.readings(load.warm_up_request_count), theirs.readings(load.warm_up_request_count))


def told_failures(readings: LoadReadings, targets: Targets) -> list[str]:
    """What the first failed request of each arm said, and the last words of a candidate's server that ended."""
    told = [f"first failure of the {who}: {arm.failures[0]}" for who, arm in readings.by_name() if arm.failures]
    if readings.candidate.failures:
        with contextlib.suppress(ServiceError):  # the failures are proof enough
            if (failure := targets.candidate_failure()) is not None:
                told.append(redacted(failure))
    return told


def _joined(first: ArmReadings, second: ArmReadings) -> ArmReadings:
    return ArmReadings(first.latencies_ms + second.latencies_ms, first.failures + second.failures, first.warm_up_ms + second.warm_up_ms)


class _Arm:
    """One server under load, with its own threads: a slow arm must not hold up the other one's requests."""

    def __init__(self, sender: Sender, clock: Clock) -> None:
        self._sender, self._clock = sender, clock
        self._threads = ThreadPoolExecutor(THREADS_PER_ARM)
        self._answers: list[Future[float]] = []
        self.failed_count = self._settled_count = 0

    def __enter__(self) -> "_Arm":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def send(self, payload: bytes, due_seconds: float) -> None:
        """Hand one request to a thread and return at once."""
        answer = self._threads.submit(self._timed, payload, due_seconds)
        answer.add_done_callback(self._count_failure)
        self._answers.append(answer)

    def give_up(self) -> None:
        """What waits for a thread is not sent any more: behind a server that hangs that would cost a time-out each."""
        self._answers = [answer for answer in self._answers if not answer.cancel()]

    def settle(self) -> None:
        """Wait until everything that was sent is answered."""
        wait(self._answers[self._settled_count :])
        self._settled_count = len(self._answers)

    def readings(self, warm_up_count: int) -> ArmReadings:
        """Wait for all answers and read them."""
        errors = [error for answer in self._answers if (error := answer.exception()) is not None]
        latencies = [math.inf if answer.exception() else answer.result() for answer in self._answers]
        failures = tuple(f"{type(error).__name__}: {one_line(error)}" for error in errors)
        return ArmReadings(tuple(latencies[warm_up_count:]), failures, tuple(latencies[:warm_up_count]))

    def _timed(self, payload: bytes, due_seconds: float) -> float:
        self._sender(payload)
        return (self._clock.monotonic() - due_seconds) * 1000

    def _count_failure(self, answer: Future[float]) -> None:
        if not answer.cancelled() and answer.exception() is not None:
            self.failed_count += 1  # only ever compared with a number far above one: a lost increment costs one request more


def _pause(pause: Pause | None, ours: _Arm, theirs: _Arm, *, pair_count: int) -> None:
    if pause is not None and pair_count % pause.every_pairs == 0:
        ours.settle()
        theirs.settle()
        pause.call(pair_count)


def _turns(ours: _Arm, theirs: _Arm, load: Load, payloads: Sequence[bytes]) -> Iterator[tuple[_Arm, bytes]]:
    pairs = itertools.cycle([(ours, theirs), (theirs, ours)])
    bodies = itertools.islice(itertools.cycle(payloads), load.warm_up_request_count + load.request_count)
    for body, pair in zip(bodies, pairs, strict=False):
        yield from ((arm, body) for arm in pair)
