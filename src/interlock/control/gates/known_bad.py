"""The candidates that the gates must refuse, made of the incumbent's own answers, servers and rows: cheap, and alike in every release."""

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interlock.control.gates.columns import without_category
from interlock.control.gates.inputs import Answerer, Rows, Sender, as_numbers, seed_from
from interlock.model.plane import PlaneState, ServerState
from interlock.ports import Clock
from interlock.profile.gates import CategoryColumn, Drift, Evaluation, Latency, LatencyLimit, NumberColumn

LEAST_ROW_COUNT = 2000  # of the labelled rows: enough to prove what is as wrong as this
RARE_ROW_COUNT = 50  # of each label, when there are as many
CLASS_COUNT = 100  # with more labels than this, they are quantities or texts
SLOWER_BY_MS = 200.0
FAR = 10.0  # standard deviations: beyond every season, and beyond every range
UNSEEN = "a category that nobody has ever seen"
# A pickle that would run a command; nothing here loads it.
HOSTILE_PICKLE = b"cos\nsystem\n(S'true'\ntR."


@dataclass(frozen=True, slots=True)
class SomeRows:
    """Rows of a data set, with the digest of the whole."""

    frame: pd.DataFrame
    digest: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A model version with other answers than its own."""

    model: Answerer
    change: Callable[[Sequence[Any]], Sequence[Any]]
    input_columns: tuple[str, ...]

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        """The changed answers."""
        return self.change(self.model.answers(frame))


def unlike(answers: Sequence[Any]) -> Sequence[Any]:
    """Answers that no server gives."""
    return [["not", answer] for answer in answers]


def some_labelled(rows: Rows, policy: Evaluation) -> SomeRows:
    """
    As few of the labelled rows as the gate accepts, drawn with a seed from the data's digest: a step could meet every second class only.

    Of a rare label there are more than its share, up to `RARE_ROW_COUNT`: without any, there would be nothing to measure.
    """
    frame, generator = rows.frame, np.random.Generator(np.random.PCG64(seed_from(rows.digest)))
    drawn = generator.permutation(len(frame))
    labels = frame[policy.label_column].iloc[drawn].astype(str)
    chosen = np.arange(len(frame)) < max(policy.min_row_count, LEAST_ROW_COUNT)
    if labels.nunique() <= CLASS_COUNT:
        chosen |= labels.groupby(labels).cumcount().to_numpy() < RARE_ROW_COUNT
    return SomeRows(frame.iloc[np.sort(drawn[chosen])], rows.digest)


def short_drift(policy: Drift, frame: pd.DataFrame) -> Drift:
    """The gate's policy for these rows: the first column that they have, and no more rows than there are."""
    first = next((column for column in policy.columns if column.name in frame.columns), policy.columns[0])
    return policy.model_copy(update={"columns": (first,), "min_row_count": min(policy.min_row_count, len(frame))})


def moved(frame: pd.DataFrame, column: NumberColumn | CategoryColumn) -> pd.DataFrame:
    """The rows with this one column far away from where it was; as they are when they lack it, which is as bad."""
    if column.name not in frame.columns:
        return frame
    if isinstance(column, CategoryColumn):
        return frame.assign(**{column.name: pd.Series([UNSEEN] * len(frame), index=frame.index, dtype=object)})
    read = as_numbers(without_category(frame[column.name]))
    numbers = np.zeros(len(frame)) if read is None else read  # what holds no numbers fails by its kind, before and after
    finite = numbers[np.isfinite(numbers)]
    spread = (float(finite.std()) if len(finite) else 0.0) or 1.0
    return frame.assign(**{column.name: numbers + FAR * spread + (column.maximum - column.minimum)})


def short_load(policy: Latency, request_count: int) -> Latency:
    """The gate's policy with so few requests, all of them counted."""
    return policy.model_copy(update={"request_count": request_count, "warm_up_request_count": 0})


def too_slow_ms(limits: Sequence[LatencyLimit]) -> float:
    """By how much an answer must be late to break one of the limits for certain, and 200 ms at least."""
    return max(SLOWER_BY_MS, 1.5 * min(limit.max_ms for limit in limits))


class LateClock:
    """
    A clock by which every answer to `late` comes so much later than it does; nobody waits for it.

    A delay beyond the profile's limits can be seconds long, and waiting for it in every release would prove no more.
    """

    def __init__(self, clock: Clock, delay_ms: float) -> None:
        self._clock, self._delay_seconds, self._own = clock, delay_ms / 1000, threading.local()

    def late(self, send: Sender) -> Sender:
        """The same server, answering late."""

        def answer(payload: bytes) -> None:
            send(payload)
            self._own.seconds = self._delay_seconds

        return answer

    def monotonic(self) -> float:
        """Later in a thread that has just had such an answer; its next one sets the same again."""
        return self._clock.monotonic() + float(getattr(self._own, "seconds", 0.0))

    def utc_now(self) -> datetime:
        """The wall clock as it is."""
        return self._clock.utc_now()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._clock.sleep(seconds)


def leaking(observe: Callable[[], PlaneState], mib_per_look: float) -> Callable[[], PlaneState]:
    """The plane, with a candidate that is the incumbent and holds so much more at every look."""
    looks = [0]

    def look() -> PlaneState:
        state = observe()
        looks[0] += 1
        return replace(state, candidate=_grown(state.incumbent, looks[0] * mib_per_look))

    return look


def useless(_: bytes) -> str:
    """A server that answers nothing usable."""
    return json.dumps({"predictions": [None]})


@contextmanager
def hostile_files() -> Iterator[Path]:
    """A version whose pickle runs a command when it is loaded, which nothing here does."""
    with tempfile.TemporaryDirectory(prefix="known-bad-") as directory:
        (Path(directory) / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}\n", encoding="utf-8")
        (Path(directory) / "model.pkl").write_bytes(HOSTILE_PICKLE)
        yield Path(directory)


def _grown(state: ServerState | None, mib: float) -> ServerState | None:
    if state is None:
        return None
    peak = state.peak_resident_mib
    return replace(state, resident_mib=state.resident_mib + mib, peak_resident_mib=None if peak is None else peak + mib)
