"""Integer counts by window, step and cell, in one growing array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from interlock.judge.grids import Floats, Ints

_FIRST_ROWS = 16


class CountGrid:
    """A table with one row for each (window, step) that holds data, and a fixed number of cells."""

    def __init__(self, cell_count: int) -> None:
        self._counts: Ints = np.zeros((_FIRST_ROWS, cell_count), dtype=np.int64)
        self._rows: dict[tuple[int, int], int] = {}

    @property
    def cell_count(self) -> int:
        """Cells in a row."""
        return int(self._counts.shape[1])

    def add(self, windows: Ints, step: int, cells: Ints, amounts: Ints) -> None:
        """Add `amounts[i]` to cell `cells[i]` of the row (`windows[i]`, step). All arrays have shape (n,)."""
        distinct, position = np.unique(windows, return_inverse=True)
        rows = np.array([self._row(int(window), step) for window in distinct], dtype=np.int64)
        np.add.at(self._counts, (rows[position], cells), amounts)

    def add_grid(self, other: "CountGrid") -> None:
        """Add every count of the other grid to this one."""
        for (window, step), row in other._rows.items():
            mine = self._row(window, step)
            self._counts[mine] += other._counts[row]

    def totals(self) -> Ints:
        """Counts of every cell over all windows and steps, shape (cells,)."""
        totals: Ints = self._counts.sum(axis=0)
        return totals

    def by_window(self, cells: Ints) -> tuple[Floats, Floats]:
        """Windows with data, increasing, shape (w,), and their counts in the chosen cells over all steps, shape (w, len(cells))."""
        if not self._rows:
            return np.zeros(0), np.zeros((0, cells.size))
        keys = sorted(self._rows)
        rows = np.array([self._rows[key] for key in keys], dtype=np.int64)
        windows = np.array([window for window, _ in keys], dtype=np.float64)
        counts = self._counts[np.ix_(rows, cells)].astype(np.float64)
        starts = np.flatnonzero(np.diff(windows, prepend=-1.0))
        return windows[starts], np.add.reduceat(counts, starts, axis=0)

    def to_list(self) -> list[list[Any]]:
        """Rows as [window, step, sparse counts], in the order of their keys."""
        return [[window, step, write_counts(self._counts[self._rows[window, step]])] for window, step in sorted(self._rows)]

    def read_list(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows written by `to_list`. Raises ValueError or TypeError when they are not."""
        for window, step, counts in rows:
            self._counts[self._row(whole(window), whole(step))] += read_counts(counts, self.cell_count)

    def _row(self, window: int, step: int) -> int:
        row = self._rows.get((window, step))
        if row is None:
            row = self._rows[window, step] = len(self._rows)
            if row >= self._counts.shape[0]:
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        return row


def write_counts(counts: Ints) -> list[list[int]]:
    """Sparse form: [[cell, count], ...] of the cells that are not 0."""
    return [[int(cell), int(counts[cell])] for cell in np.flatnonzero(counts)]


def read_counts(pairs: Sequence[Sequence[Any]], cell_count: int) -> Ints:
    """The counts written by `write_counts`. Raises ValueError for a cell outside the grid or anything but whole numbers >= 0."""
    counts = np.zeros(cell_count, dtype=np.int64)
    for cell, count in pairs:
        if whole(cell) >= cell_count:
            raise ValueError(f"cell {cell} lies outside a grid of {cell_count}")
        counts[cell] += whole(count)
    return counts


def whole(value: Any) -> int:
    """The value as a count. Raises ValueError for anything but an integer >= 0, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
