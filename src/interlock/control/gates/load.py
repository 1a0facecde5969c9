"""An open-loop load on two servers in turn: requests leave on schedule, however slow the answers are."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from interlock.control.gates.inputs import Sender
from interlock.model.redaction import one_line
from interlock.ports import Clock

THREADS_PER_ARM = 32  # 25 requests a second with a time-out of about one second; beyond that a request waits, and its wait counts
ENOUGH_FAILURES = 20  # one failure already decides; after so many the rest would only cost time-outs


@dataclass(frozen=True, slots=True)
class ArmReadings:
    """What one arm answered after the warm-up: latencies from the scheduled send time, in milliseconds, and the failures."""

    latencies_ms: tuple[float, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadReadings:
    """Both arms' readings under the same load."""

    candidate: ArmReadings
    incumbent: ArmReadings


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests each arm gets after how many that do not count, and how fast they follow each other, both arms together."""

    request_count: int
    warm_up_request_count: int
    requests_per_second: float


def offer_load(load: Load, *, candidate: Sender, incumbent: Sender, payloads: Sequence[bytes], clock: Clock) -> LoadReadings:
    """
    Send the same payloads to both arms, alternating, and read the latency of each answer.

    A latency starts when the request was due, not when it was sent: a server that stalls also slows the requests behind it, and a
    generator that politely waits for it would hide them (coordinated omission). The order within a pair alternates, so that neither arm
    always comes second. Ends early when an arm has failed 20 times: the rest is then not sent.
    """
    with _Arm(candidate, clock) as ours, _Arm(incumbent, clock) as theirs:
        started_seconds = clock.monotonic()
        for index, (arm, payload) in enumerate(_turns(ours, theirs, load, payloads)):
            if ours.failed_count >= ENOUGH_FAILURES or theirs.failed_count >= ENOUGH_FAILURES:
                break
            due_seconds = started_seconds + index / load.requests_per_second
            if (wait_seconds := due_seconds - clock.monotonic()) > 0:
                clock.sleep(wait_seconds)
            arm.send(payload, due_seconds)
        return LoadReadings(ours.readings(load.warm_up_request_count), theirs.readings(load.warm_up_request_count))


class _Arm:
    """One server under load, with its own threads: a slow arm must not hold up the other one's requests."""

    def __init__(self, sender: Sender, clock: Clock) -> None:
        self._sender, self._clock = sender, clock
        self._threads = ThreadPoolExecutor(THREADS_PER_ARM)
        self._answers: list[Future[float]] = []
        self.failed_count = 0

    def __enter__(self) -> "_Arm":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def send(self, payload: bytes, due_seconds: float) -> None:
        """Hand one request to a thread and return at once."""
        answer = self._threads.submit(self._timed, payload, due_seconds)
        answer.add_done_callback(self._count_failure)
        self._answers.append(answer)

    def readings(self, warm_up_count: int) -> ArmReadings:
        """Wait for all answers and read those after the warm-up."""
        counted = self._answers[warm_up_count:]
        failures = [error for answer in counted if (error := answer.exception()) is not None]
        latencies = [answer.result() for answer in counted if answer.exception() is None]
        return ArmReadings(tuple(latencies), tuple(f"{type(error).__name__}: {one_line(error)}" for error in failures))

    def _timed(self, payload: bytes, due_seconds: float) -> float:
        self._sender(payload)
        return (self._clock.monotonic() - due_seconds) * 1000

    def _count_failure(self, answer: Future[float]) -> None:
        if answer.exception() is not None:
            self.failed_count += 1  # only ever compared with a number far above one: a lost increment costs one request more


def _turns(ours: _Arm, theirs: _Arm, load: Load, payloads: Sequence[bytes]) -> Iterator[tuple[_Arm, bytes]]:
    pairs = itertools.cycle([(ours, theirs), (theirs, ours)])
    bodies = itertools.islice(itertools.cycle(payloads), load.warm_up_request_count + load.request_count)
    for body, pair in zip(bodies, pairs, strict=False):
        yield from ((arm, body) for arm in pair)
