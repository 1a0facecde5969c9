"""The parity gate: the candidate in its model server answers as it does offline, whatever else is in the request."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from interlock.control.gates.disagreement import ANSWER_SECONDS, ENOUGH_FAILURES, spread
from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import Asker
from interlock.errors import ArtifactError, NoSamples, ServiceError
from interlock.model.redaction import one_line
from interlock.model.verdict import Measurement, Verdict
from interlock.ports import Clock
from interlock.profile.gates import Parity

GATE = "parity"
ALONE, IN_BATCHES, SHUFFLED = "alone", "in_batches", "shuffled"
WAYS = (ALONE, IN_BATCHES, SHUFFLED)
UNANSWERED = "unanswered_request_count"
REQUIRED = (UNANSWERED, *(f"rows_that_differ_{way}" for way in WAYS))
SHOWN_CHARACTERS = 80  # of a value in a remark: a row of a document model may be a page


class Answerer(Protocol):
    """A model version loaded in this process."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Names of the columns it wants."""
        ...

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        """One JSON value a row."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """
    The candidate's server.

    encode: rows as a request body. hold: called before each question, to keep the plane; what it raises ends the gate.
    """

    ask: Asker
    encode: Callable[[pd.DataFrame], bytes]
    hold: Callable[[], None]
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Different:
    """One row that was answered otherwise than offline. `position`: in the file."""

    position: int
    offline: Any
    served: Any


@dataclass(frozen=True, slots=True)
class _Asked:
    """One way of asking all rows: its requests, how many rows were answered, which of them differ and by how much, what failed."""

    request_count: int
    answered_count: int
    different: tuple[_Different, ...]
    largest: float
    failures: tuple[str, ...]


def judge_parity(policy: Parity, rows: pd.DataFrame, *, seed: int, candidate: Answerer, server: Server) -> Verdict:
    """
    Does the served candidate answer `row_count` of these rows, spread over all, as the same version does in this process?

    Each row is asked alone, in batches in the file's order, and in batches of another order, which `seed` draws. Every
    answer is compared with the offline one, where all rows were one frame: so a model that looks at its neighbours, at their order or
    at what it was asked before differs, as does a server that prepares its inputs otherwise. A request without a usable answer, or with
    another number of predictions than rows, is FAIL; a model that cannot answer offline is INCONCLUSIVE.
    """
    return judged(GATE, lambda: _judge(policy, rows, seed, candidate, server))


def difference(one: Any, other: Any) -> float:
    """
    How far two JSON values are apart: by the largest difference of their numbers, or infinitely where anything else is unlike.

    Of two numbers: their distance, divided by the larger one where that is above one. NaN equals NaN; true is no number.
    """
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if _is_number(one) and _is_number(other):
        return _distance(one, other)
    return 0.0 if type(one) is type(other) and one == other else math.inf


def _judge(policy: Parity, rows: pd.DataFrame, seed: int, candidate: Answerer, server: Server) -> Verdict:
    if len(rows) < policy.row_count:
        raise NoSamples(f"there are {len(rows)} rows, needs {policy.row_count}: add rows to the evaluation data")
    positions = spread(len(rows), policy.row_count)
    chosen = rows.iloc[positions]
    offline = candidate.answers(chosen.copy())
    if len(offline) != len(chosen):
        raise ArtifactError(f"the candidate gave {len(offline)} answers for {len(chosen)} rows offline: it must give one for each")
    questions = _Questions(server, chosen[list(candidate.input_columns)], positions, offline, policy.max_difference)
    asked = {way: questions.ask(batches) for way, batches in _ways(policy, seed).items()}
    return judge_required(GATE, tuple(_measurements(policy, asked)), required=REQUIRED, remarks=_remarks(asked))


def _ways(policy: Parity, seed: int) -> Mapping[str, list[list[int]]]:
    """The batches of each way of asking, as places among the chosen rows."""
    order = list(range(policy.row_count))
    mixed = np.random.Generator(np.random.PCG64(seed)).permutation(policy.row_count).tolist()
    size = policy.batch_row_count
    return {ALONE: [[place] for place in order], IN_BATCHES: _batches(order, size), SHUFFLED: _batches(mixed, size)}


def _batches(places: list[int], size: int) -> list[list[int]]:
    return [places[begin : begin + size] for begin in range(0, len(places), size)]


class _Questions:
    """Asks the server and compares. A server that has failed often enough is asked no more; one that is too slow ends the gate."""

    def __init__(
        self, server: Server, frame: pd.DataFrame, positions: Sequence[int], offline: Sequence[Any], max_difference: float
    ) -> None:
        self._server, self._frame, self._positions, self._offline = server, frame, positions, offline
        self._max_difference = max_difference

    def ask(self, batches: list[list[int]]) -> _Asked:
        """All the batches of one way of asking."""
        clock, started = self._server.clock, self._server.clock.monotonic()
        answered_count, largest, different, failures = 0, 0.0, list[_Different](), list[str]()
        for batch in batches:
            if len(failures) >= ENOUGH_FAILURES:
                break
            if clock.monotonic() - started > len(self._frame) * ANSWER_SECONDS:
                raise NoSamples(
                    f"only {answered_count} of {len(self._frame)} rows were answered within {len(self._frame) * ANSWER_SECONDS:g} s: "
                    "the candidate's server is too slow to be compared"
                )
            self._server.hold()
            try:
                served = _rows_of(self._server.ask(self._server.encode(self._frame.iloc[batch])), len(batch))
            except ServiceError as error:
                failures.append(f"{type(error).__name__}: {one_line(error)}")
                continue
            answered_count += len(batch)
            for place, answer in zip(batch, served, strict=True):
                apart = difference(self._offline[place], answer)
                largest = max(largest, apart)
                if apart > self._max_difference:
                    different.append(_Different(self._positions[place], self._offline[place], answer))
        return _Asked(len(batches), answered_count, tuple(different), largest, tuple(failures))


def _rows_of(body: str, row_count: int) -> list[Any]:
    """One value a row out of an answer; ServiceError when there are not as many. Columns of lists become records, as offline."""
    try:
        predictions = json.loads(body)["predictions"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ServiceError(f"the answer holds no predictions ({type(error).__name__})") from error
    if isinstance(predictions, dict) and predictions and all(isinstance(c, list) and len(c) == row_count for c in predictions.values()):
        return [dict(zip(predictions, row, strict=True)) for row in zip(*predictions.values(), strict=True)]
    if not isinstance(predictions, list):
        raise ServiceError(f"the answer to {row_count} rows is one {type(predictions).__name__}: it must be one prediction for each")
    if len(predictions) != row_count:
        raise ServiceError(f"the answer to {row_count} rows holds {len(predictions)} predictions: it must be one for each")
    return predictions


def _measurements(policy: Parity, asked: Mapping[str, _Asked]) -> Iterator[Measurement]:
    failed, requests = sum(len(found.failures) for found in asked.values()), sum(found.request_count for found in asked.values())
    needed, rows = policy.row_count, min(found.answered_count for found in asked.values())
    yield Measurement(UNANSWERED, float(failed), 0.0, "lower", "requests", requests, requests)
    for way, found in asked.items():  # one row that differs is proof, however few were answered
        count = len(found.different)
        yield Measurement(f"rows_that_differ_{way}", float(count), 0.0, "lower", "rows", found.answered_count, 1 if count else needed)
    largest = max(found.largest for found in asked.values())
    yield Measurement("largest_difference", largest if math.isfinite(largest) else None, math.nan, "lower", "", rows, needed)


def _remarks(asked: Mapping[str, _Asked]) -> Iterator[str]:
    for way, found in asked.items():
        if found.different:
            first = found.different[0]
            yield (
                f"{way.replace('_', ' ')}, row {first.position} of the data is the first that differs: offline {_shown(first.offline)}, "
                f"served {_shown(first.served)}"
            )
    alone, mixed = asked[ALONE], (asked[IN_BATCHES], asked[SHUFFLED])
    if not alone.different and any(found.different for found in mixed):
        yield "alone every row is answered as offline: the model answers a row by what else is in the request"
    if failure := next((text for found in asked.values() for text in found.failures), None):
        yield f"first failure of the candidate: {failure}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distance(one: float, other: float) -> float:
    if one == other:
        return 0.0
    try:
        if math.isnan(one) and math.isnan(other):
            return 0.0
        apart = abs(one - other) / max(1.0, abs(one), abs(other))
    except OverflowError:  # a whole number beyond every float
        return math.inf
    return apart if math.isfinite(apart) else math.inf
