"""What is wrong with rows before any distance is taken: columns absent, not numbers, empty, infinite, stuck on one value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.control.gates.inputs import as_numbers
from interlock.errors import EvidenceError, NoSamples


@dataclass(frozen=True, slots=True)
class Column:
    """One column of one data set, counted."""

    name: str
    dataset: str
    row_count: int
    null_count: int
    infinite_count: int
    distinct_count: int
    only_value: float | None

    @property
    def null_percent(self) -> float:
        """Rows without a value (null, NaN), in percent of the rows."""
        return 100.0 * self.null_count / self.row_count


def read_columns(frame: pd.DataFrame, names: Sequence[str], *, dataset: str) -> Mapping[str, Column]:
    """
    Every named column, counted. `dataset` is "reference" or "current", for the messages.

    Raises:
        NoSamples: there are no rows.
        EvidenceError: a column is absent, or does not hold numbers; the message names all of them.
    """
    if frame.empty:
        raise NoSamples(f"the {dataset} data has no rows: check the query that writes it")
    if absent := [name for name in names if list(frame.columns).count(name) != 1]:
        raise EvidenceError(f"the {dataset} data does not have exactly one column {', '.join(absent)}: the profile wants it compared")
    numbers = {name: as_numbers(frame[name]) for name in names}
    if text := [name for name, values in numbers.items() if values is None]:
        raise EvidenceError(f"the {dataset} data has no numbers in column {', '.join(text)}: this gate compares numbers only")
    return {name: _count(name, dataset, values) for name, values in numbers.items() if values is not None}


def stuck(reference: Mapping[str, Column], current: Mapping[str, Column]) -> tuple[str, ...]:
    """Columns that vary in the reference and now hold one value: a feed that died, which a distance of about one hides."""
    return tuple(name for name in reference if reference[name].distinct_count > 1 and current[name].distinct_count <= 1)


def left_their_constant(reference: Mapping[str, Column], current: Mapping[str, Column]) -> tuple[str, ...]:
    """Columns with one value in the reference and another now. There is no spread to norm a distance with: they count as drifted."""
    constant = (name for name in reference if reference[name].distinct_count == 1)
    return tuple(name for name in constant if current[name].only_value != reference[name].only_value)


def every(*datasets: Mapping[str, Column]) -> Iterator[Column]:
    """The columns of all data sets."""
    for dataset in datasets:
        yield from dataset.values()


def _count(name: str, dataset: str, values: NDArray[np.float64]) -> Column:
    finite = values[np.isfinite(values)]
    distinct = np.unique(finite)
    return Column(
        name=name,
        dataset=dataset,
        row_count=len(values),
        null_count=int(np.isnan(values).sum()),
        infinite_count=int(np.isinf(values).sum()),
        distinct_count=len(distinct),
        only_value=float(distinct[0]) if len(distinct) == 1 else None,
    )
