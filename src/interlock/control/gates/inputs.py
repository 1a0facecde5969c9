"""What the gates are given, as Protocols: the adapters' data classes fit them without knowing this module."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.model.artifact import ArtifactReading
from interlock.profile.gates import CategoryColumn, NumberColumn

# Draws the page about the drift of these columns, which both frames have, and keeps it beside the evidence.
DrawDrift: TypeAlias = Callable[[pd.DataFrame, pd.DataFrame, Sequence[NumberColumn | CategoryColumn]], object]
Sender: TypeAlias = Callable[[bytes], None]  # sends one payload; returns when it was answered well, raises when it was not
Asker: TypeAlias = Callable[[bytes], str]  # sends one payload; returns the body of the answer, raises when it was not answered well


class Rows(Protocol):
    """A data set as read: the frame, and the SHA-256 of the bytes it came from."""

    @property
    def frame(self) -> pd.DataFrame:
        """The rows."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        ...


class Predictor(Protocol):
    """A model version that answers rows."""

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        """One answer a row, shape (n,): numbers, or labels."""
        ...


class Dataset(Rows, Protocol):
    """Rows that know where they came from."""

    @property
    def source(self) -> str:
        """File or object they were read from."""
        ...


class Answerer(Protocol):
    """A model version that answers rows as its server does."""

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        """One JSON value a row, exactly as its server would put them into `predictions`."""
        ...


class Model(Predictor, Answerer, Protocol):
    """A model version loaded in this process."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Names of the columns it wants."""
        ...


class OpenSender(Protocol):
    """Connections to one model server, given back at the end of the `with` block."""

    def __enter__(self) -> Self:
        """Itself."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the connections back."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one payload; return when it was answered well, raise when it was not."""
        ...

    def ask(self, payload: bytes) -> str:
        """Send one payload; return the body of the answer, raise when it was not answered well."""
        ...


class ReadArtifact(Protocol):
    """Reads a version's files without loading any of them."""

    def __call__(self, directory: Path, *, hold: Callable[[], None]) -> ArtifactReading:
        """Everything the artifact gate judges; `hold` is called every few seconds."""
        ...


def plain(series: "pd.Series[Any]") -> "pd.Series[Any]":
    """The values of a categorical column as a column of their own type; any other column as it is."""
    return series.astype(object).infer_objects() if isinstance(series.dtype, pd.CategoricalDtype) else series


def as_numbers(values: "pd.Series[Any] | NDArray[Any]") -> NDArray[np.float64] | None:
    """The values as floats, missing ones as NaN; None when they are not numbers (text that looks like a number is text)."""
    series = plain(pd.Series(values))
    if series.map(lambda value: isinstance(value, str | bytes)).any() if series.dtype == object else _is_text_or_time(series):
        return None
    try:
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return None


def _is_text_or_time(series: "pd.Series[Any]") -> bool:
    kinds = pd.api.types
    return not (kinds.is_bool_dtype(series.dtype) or kinds.is_numeric_dtype(series.dtype)) or kinds.is_complex_dtype(series.dtype)


def seed_from(digest: str) -> int:
    """A seed that depends on the data and on nothing else, so that judging the same file twice gives the same numbers."""
    return int.from_bytes(digest.encode()[-16:], "big")
