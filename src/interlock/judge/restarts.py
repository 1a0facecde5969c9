"""
Evidence since the start and since every restart, from a count grid: a fault that begins late is seen by the processes that began late.

In keyed analysis a restarted process counts each key's first request since its own beginning, hence every restart has a sum of its own.
"""

import numpy as np

from interlock.judge.counts import CountGrid
from interlock.judge.eprocess import Bets, log_mixture, log_restarting
from interlock.judge.grids import Floats

RECENT_WINDOW_COUNT = 3
RECENT_MIN_COUNT = 20  # fewer pairs make a mean that jumps about


def log_e_over_windows(grid: CountGrid, points: Floats, bets: Bets, *, planned_window_count: int, scale: float = 1.0) -> float:
    """
    Log e-value of the grid's data, most of it since the start and the rest over the restarts; 0 without data.

    Args:
        points: the datum of each cell, shape (cells,).
        scale: what one count weighs.
    """
    cells = grid.held_cells()
    windows, fresh_from, counts = grid.by_window(cells)
    if not windows.size:
        return 0.0
    growth = scale * (counts @ bets.log_factors(points[cells]))
    starts = np.unique(windows)
    from_here = log_mixture(_growth_from(starts, growth, windows, fresh_from), bets)
    return log_restarting(from_here, starts, planned_window_count=planned_window_count)


def recent_mean(grid: CountGrid, points: Floats, *, units: int = 1) -> float | None:
    """The largest mean of the datum over the last one, two or three windows: what a person should see when a fault began late."""
    cells = grid.held_cells()
    windows, _, counts = grid.by_window(cells)
    if not windows.size:
        return None
    latest = [counts[windows > windows.max() - width].sum(axis=0) for width in range(1, RECENT_WINDOW_COUNT + 1)]
    enough = [recent for recent in latest if recent.sum() >= RECENT_MIN_COUNT * units]
    return max((float(recent @ points[cells] / recent.sum()) for recent in enough), default=None)


def _growth_from(starts: Floats, growth: Floats, windows: Floats, fresh_from: Floats) -> Floats:
    """Growth of every bet since each start, shape (starts, bets)."""
    if not fresh_from.any():  # one row a window
        return growth[::-1].cumsum(axis=0)[::-1]
    counts_for = (windows >= starts[:, None]) & (fresh_from <= starts[:, None])
    since: Floats = counts_for.astype(np.float64) @ growth
    return since
