"""Integer counts by window and cell, in one growing array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from interlock.judge.grids import Floats, Ints

_FIRST_ROWS = 16
_MOST_WINDOWS = 2**31  # two windows share one 64-bit key; windows of a tenth of a second reach it in six years


class CountGrid:
    """
    A table with one row for each (window, fresh_from) that holds data, and a fixed number of cells.

    fresh_from: the first window whose restarted process may count the datum, at most the window itself. 0: nobody has seen its unit
    before, so every process counts it. It is above 0 in keyed analysis only, for a key that came before.
    """

    def __init__(self, cell_count: int) -> None:
        self._counts: Ints = np.zeros((_FIRST_ROWS, cell_count), dtype=np.int64)
        self._rows: dict[tuple[int, int], int] = {}

    @property
    def cell_count(self) -> int:
        """Cells in a row."""
        return int(self._counts.shape[1])

    def add(self, windows: Ints, fresh_from: Ints, cells: Ints, amounts: Ints) -> None:
        """Add `amounts[i]` to cell `cells[i]` of the row (`windows[i]`, `fresh_from[i]`). All arrays have shape (n,)."""
        keys, position = np.unique(windows * _MOST_WINDOWS + fresh_from, return_inverse=True)
        rows = np.array([self._row(*divmod(int(key), _MOST_WINDOWS)) for key in keys], dtype=np.int64)
        np.add.at(self._counts, (rows[position], cells), amounts)

    def add_grid(self, other: "CountGrid") -> None:
        """Add every count of the other grid to this one."""
        for key, row in other._rows.items():
            mine = self._row(*key)
            self._counts[mine] += other._counts[row]

    def totals(self) -> Ints:
        """Counts of every cell over all windows, of units seen for the first time, shape (cells,)."""
        fresh = [row for (_, fresh_from), row in self._rows.items() if fresh_from == 0]
        totals: Ints = self._counts[fresh].sum(axis=0)
        return totals

    def by_window(self, cells: Ints) -> tuple[Floats, Floats, Floats]:
        """
        Every row's window (shape (w,), not decreasing), the window it is fresh from, and its counts in the chosen cells (shape (w, c)).

        Outside keyed analysis the windows increase strictly and all are fresh from 0.
        """
        keys = sorted(self._rows)
        rows = np.array([self._rows[key] for key in keys], dtype=np.int64)
        windows, fresh_from = np.array(keys, dtype=np.float64).reshape(-1, 2).T
        return windows, fresh_from, self._counts[np.ix_(rows, cells)].astype(np.float64)

    def held_cells(self) -> Ints:
        """Cells with a count in any row, increasing."""
        return np.flatnonzero(self._counts.any(axis=0)).astype(np.int64)

    def to_list(self) -> list[list[Any]]:
        """Rows as [window, fresh_from, sparse counts], in the order of their keys."""
        return [[*key, write_counts(self._counts[self._rows[key]])] for key in sorted(self._rows)]

    def read_list(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows written by `to_list`. Raises ValueError or TypeError when they are not."""
        for window, fresh_from, counts in rows:
            if whole(fresh_from) > whole(window):
                raise ValueError(f"window {window} cannot be fresh from {fresh_from} on only")
            row = self._row(window, fresh_from)
            self._counts[row] += read_counts(counts, self.cell_count)

    def _row(self, window: int, fresh_from: int) -> int:
        row = self._rows.get((window, fresh_from))
        if row is None:
            row = self._rows[window, fresh_from] = len(self._rows)
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
