"""
The demonstration's model with a defect planted ("models from code"): MLflow copies this file into every planted version.

Its configuration names the defect, how large it is, and whether it is there always or only in a model server, as when the server's machine
has another feature store, another library or another locale than the one where the model was judged offline. SERVED in the environment
tells it that it is in a server.
"""

import os
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import mlflow
import mlflow.models
import numpy as np
import numpy.typing as npt
import pandas as pd

from interlock.demo import served

SERVED = "INTERLOCK_BENCHMARK_SERVED"
MIB = 2**20

Numbers = npt.NDArray[np.float64]


class PlantedModel(served.LateFlightModel):
    """Answers as the healthy model does, then the defect has its way."""

    def load_context(self, context: Any) -> None:
        """Load the healthy model; some defects are in the loading."""
        super().load_context(context)
        settings = dict(context.model_config or {})
        self._is_active = not settings.get("only_served") or SERVED in os.environ
        self._defect, self._size = str(settings.get("defect", "")), float(settings.get("size", 0.0))
        self._count, self._turn, self._kept = 0, threading.Lock(), list[Any]()
        self._seen: dict[float, float] = {}
        if self._is_active and self._defect in LOADING:
            LOADING[self._defect](self, self._size)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Probabilities, or what the defect makes of them."""
        rows = model_input
        if self._is_active and self._defect in INPUTS:
            rows = INPUTS[self._defect](rows)
        answers = super().predict(context, rows, params)
        with self._turn:
            self._count += 1
        return ANSWERS[self._defect](self, answers, model_input) if self._is_active and self._defect in ANSWERS else answers

    def allocate(self, mib: float) -> None:
        """Hold so much more memory, every page touched."""
        self._kept.append(np.ones(int(mib * MIB), dtype=np.uint8))

    def is_one_in(self, count: float, rows: pd.DataFrame) -> bool:
        """True when one of the rows is the one in so many, which is always the same one."""
        return any(zlib.crc32(row.tobytes()) % int(count) == 0 for row in rows.to_numpy())

    def after(self, answers: Numbers, seconds: float) -> Numbers:
        """The same answers, later."""
        time.sleep(seconds)
        return answers

    def behind_a_lock(self, answers: Numbers, seconds: float) -> Numbers:
        """The same answers, while nobody else gets one."""
        with self._turn:
            time.sleep(seconds)
        return answers

    def as_remembered(self, answers: Numbers, rows: pd.DataFrame) -> Numbers:
        """A cache whose key forgets most of the row: whoever asks first decides."""
        keys = (rows["hour"] + 100 * rows["weekday"]).round(1)
        return np.array([self._seen.setdefault(key, answer) for key, answer in zip(keys, answers, strict=True)])

    def counted(self, answers: Numbers) -> Numbers:
        """A little more with every request."""
        return np.clip(answers + self._count * 1e-6, 0, 1)

    def leaked(self, answers: Numbers) -> Numbers:
        """The same answers, and memory that is never given back."""
        self.allocate(self._size)
        return answers


def _raise(text: str) -> Any:
    raise mlflow.MlflowException(text)


def _end() -> Any:
    os._exit(9)


def _loaded_slowly(_: PlantedModel, seconds: float) -> None:
    time.sleep(seconds)


def _loaded_with_a_peak(_: PlantedModel, mib: float) -> None:
    np.ones(int(mib * MIB), dtype=np.uint8)  # as an old format that is converted while it is read


SWAPPED = {"humidity_percent": "origin_delay_minutes", "origin_delay_minutes": "humidity_percent"}
LOADING: dict[str, Callable[[PlantedModel, float], None]] = {
    "slow start": _loaded_slowly,
    "load peak": _loaded_with_a_peak,
    "resident": PlantedModel.allocate,
}
INPUTS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "swapped inputs": lambda rows: rows.rename(columns=SWAPPED),
    "fahrenheit": lambda rows: rows.assign(temperature_c=rows["temperature_c"] * 1.8 + 32),
    "filled with zeros": lambda rows: rows.assign(origin_delay_minutes=0.0),
}
ANSWERS: dict[str, Callable[[PlantedModel, Numbers, pd.DataFrame], Any]] = {
    "inverted": lambda _, p, rows: 1 - p,
    "constant": lambda m, p, rows: np.full(len(p), m._size),
    "squared": lambda _, p, rows: p**2,
    "pushed up": lambda m, p, rows: np.clip(p * m._size, 0, 1),
    "nan for some": lambda m, p, rows: np.where(rows["distance_km"] > m._size, np.nan, p),
    "wrong at one airport": lambda _, p, rows: np.where(rows["origin_index"] == 1, 1 - p, p),
    "three columns": lambda _, p, rows: np.column_stack([p, p, p]),
    "one answer": lambda _, p, rows: p[:1],
    "beyond one": lambda _, p, rows: p * 100,
    "smeared": lambda m, p, rows: np.clip(p + np.random.default_rng(7).normal(0, m._size, len(p)), 0.005, 0.995),
    "random": lambda _, p, rows: np.random.default_rng().random(len(p)),
    "rounded": lambda _, p, rows: np.round(p, 2),
    "float32": lambda _, p, rows: p.astype(np.float32),
    "percent": lambda _, p, rows: p * 100,
    "text": lambda _, p, rows: pd.DataFrame({"late": [f"{one:.6f}" for one in p]}),
    "null": lambda _, p, rows: pd.DataFrame({"late": [None] * len(p)}),
    "minus the batch's mean": lambda _, p, rows: np.clip(p - p.mean() + 0.2, 0, 1),
    "rank in the batch": lambda _, p, rows: p.argsort().argsort() / len(p),
    "row before it": lambda _, p, rows: (p + np.roll(p, 1)) / 2,
    "remembered": lambda m, p, rows: m.as_remembered(p, rows),
    "counted": lambda m, p, rows: m.counted(p),
    "a row short": lambda _, p, rows: p[:-1] if len(p) > 1 else p,
    "no batches": lambda m, p, rows: p if len(p) <= m._size else _raise("too many rows at a time"),
    "of another row": lambda _, p, rows: np.array([zlib.crc32(row.tobytes()) % 1000 / 1000 for row in rows.to_numpy()]),
    "late": lambda m, p, rows: m.after(p, m._size),
    "tail": lambda m, p, rows: m.after(p, m._size if m.is_one_in(50, rows) else 0.0),
    "slower evening": lambda m, p, rows: m.after(p, m._size if rows["hour"].iloc[0] >= 17 else 0.0),
    "stalls": lambda m, p, rows: m.behind_a_lock(p, m._size if m._count % 200 == 0 else 0.0),
    "one at a time": lambda m, p, rows: m.behind_a_lock(p, m._size),
    "hangs": lambda m, p, rows: m.after(p, m._size),
    "fails": lambda m, p, rows: _raise("the weather service did not answer") if m.is_one_in(m._size, rows) else p,
    "leak": lambda m, p, rows: m.leaked(p),
    "ends": lambda m, p, rows: _end() if m._count >= m._size else p,
}

mlflow.models.set_model(PlantedModel())
