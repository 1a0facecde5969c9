"""
What the user of the demonstration got: every answer with the moment it came, and the question from when on all came from one version.

Written by the traffic's thread, read by any other. Moments are monotonic seconds (`time.monotonic`).
"""

import itertools
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

KEPT_RESPONSE_COUNT = 100_000  # 27 minutes at 60 requests a second, about 15 MB
# The evidence asked for before traffic counts as converged. At the canary's first step of 10 %, 150 answers of the incumbent in a row come
# about by chance once in ten million; 3 s are longer than the candidate's deadline of 2 s, so nothing it was asked earlier is outstanding.
MIN_RESPONSE_COUNT = 150
MIN_OBSERVED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Response:
    """
    One request as its user saw it.

    served_by, arm: as the plane stamps them, `name/version` and `incumbent` or `candidate`; "" when it did not, or nothing came back.
    latency_ms:     from the moment the request was due, so a client that is late does not flatter the server.
    failure:        why it is no usable answer, or "".
    """

    received_at: float
    latency_ms: float
    served_by: str
    arm: str
    failure: str


@dataclass(frozen=True, slots=True)
class Second:
    """One second of traffic, counted from its start: answers by `served_by`, failed ones apart."""

    after_seconds: int
    served_by: Mapping[str, int]
    failed_count: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Traffic so far. Of the `total_count` requests sent, `in_flight_count` have no answer yet and `failed_count` none that is usable."""

    total_count: int
    failed_count: int
    in_flight_count: int
    failures: Mapping[str, int]
    seconds: tuple[Second, ...]
    recent: tuple[Response, ...]


@dataclass(slots=True)
class _Tally:
    served_by: Counter[str] = field(default_factory=Counter)
    failed_count: int = 0


class History:
    """Counts and keeps responses; safe to read while it is written."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._lock = threading.Lock()
        self._sent_count = 0
        self._failures: Counter[str] = Counter()
        self._answered_count = 0
        self._tallies: dict[int, _Tally] = {}
        self._responses: deque[Response] = deque(maxlen=KEPT_RESPONSE_COUNT)

    def record_sent(self) -> None:
        """One more request is under way."""
        with self._lock:
            self._sent_count += 1

    def record(self, response: Response) -> None:
        """One request has ended, well or not. Called in the order of `received_at`."""
        with self._lock:
            tally = self._tallies.setdefault(int(response.received_at - self._started_at), _Tally())
            if response.failure:
                self._failures[response.failure] += 1
                tally.failed_count += 1
            else:
                self._answered_count += 1
                tally.served_by[response.served_by] += 1
            self._responses.append(response)

    def snapshot(self, recent_count: int) -> Snapshot:
        """Everything counted so far, with the last `recent_count` responses, oldest first."""
        with self._lock:
            failed_count = self._failures.total()
            seconds = (Second(after, dict(tally.served_by), tally.failed_count) for after, tally in sorted(self._tallies.items()))
            return Snapshot(
                total_count=self._sent_count,
                failed_count=failed_count,
                in_flight_count=self._sent_count - self._answered_count - failed_count,
                failures=dict(self._failures),
                seconds=tuple(seconds),
                recent=tuple(itertools.islice(reversed(self._responses), recent_count))[::-1],
            )

    def responses_since(self, since: float) -> tuple[Response, ...]:
        """The kept responses that were received at `since` or later, oldest first."""
        with self._lock:
            newest_first = itertools.takewhile(lambda response: response.received_at >= since, reversed(self._responses))
            return tuple(newest_first)[::-1]


def first_moment_all_from(
    label: str,
    responses: Iterable[Response],
    *,
    min_response_count: int = MIN_RESPONSE_COUNT,
    min_observed_seconds: float = MIN_OBSERVED_SECONDS,
) -> float | None:
    """
    When the first answer of `label` came after which nothing else did, to the end of `responses`; None while that is not proved.

    A failed response, or one without a stamp, is not from `label`. The run must hold at least `min_response_count` responses and
    `min_observed_seconds`: a short run of the incumbent's answers is common while a canary has a small share.
    """
    run: list[float] = []
    for response in responses:
        if response.failure or response.served_by != label:
            run.clear()
        else:
            run.append(response.received_at)
    proved = len(run) >= min_response_count and run[-1] - run[0] >= min_observed_seconds
    return run[0] if proved else None
