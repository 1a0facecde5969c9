"""Is one latency quantile slower than tolerated? The two-histogram e-value, on both sides, from counts in fixed bins."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interlock.judge.eprocess import Bets, fail_bets, log_mixture, log_products_of_counts, pass_bets
from interlock.judge.grids import LATENCY_LOWER_MS, LATENCY_UPPER_MS, Floats, slower_ms
from interlock.judge.policy import LatencyTolerance

_LOG_KEPT = math.log(0.25)  # M = .25 + .75 E: a threshold far from the quantile may not ruin the product of both arms
_LOG_BET = math.log(0.75)


@dataclass(frozen=True, slots=True)
class _Side:
    """Counts at points on the latency axis (ms), points increasing."""

    points: Floats
    counts: Floats


@dataclass(frozen=True, slots=True)
class QuantileTest:
    """
    The test of one quantile in one stratum, prepared so that it can be read for a multiple of its counts as well.

    Log products of each bet at every threshold x, shape (x, k): of `above` against "share exceeding x is at most 1-q", and of `below`
    against "share reaching x is at least 1-q".
    """

    above: Floats
    above_bets: Bets
    below: Floats
    below_bets: Bets

    def log_e(self, growth: float = 1.0) -> float:
        """Log e-value for `growth` times the counts; 0 without data."""
        return float((_log_m(growth * self.above, self.above_bets) + _log_m(growth * self.below, self.below_bets)).min())


def slower_test(candidate: Floats, incumbent: Floats, *, quantile: float, tolerance: LatencyTolerance) -> QuantileTest:
    """
    Tests "the candidate's quantile is within tolerance": the e-value grows when the candidate is slower than g(incumbent).

    The null is Q_C(q) <= g(Q_B(q)). At x = g(Q_B(q)) it says P(Y_C > x) <= 1-q, and always P(g(Y_B) >= x) >= 1-q; both are tested and
    multiplied, and the smallest product over all x is at most the one at that unknown x, hence valid. Candidate latencies are
    rounded down to their bin, incumbent ones up.

    Args:
        candidate, incumbent: counts in the cells of the latency grid, shape (LATENCY_CELLS,).
    """
    above = _side(LATENCY_LOWER_MS, candidate)
    below = _side(slower_ms(LATENCY_UPPER_MS, tolerance), incumbent)
    return _prepare(above, below, 1 - quantile)


def not_slower_test(candidate: Floats, incumbent: Floats, *, quantile: float, tolerance: LatencyTolerance) -> QuantileTest:
    """
    Tests "the candidate is slower than tolerated": the e-value grows when the candidate's quantile is proved below g(incumbent).

    The mirror image of `slower_test`: the null is Q_C(q) >= g(Q_B(q)), candidate latencies are rounded up, incumbent ones down.
    """
    above = _side(slower_ms(LATENCY_LOWER_MS, tolerance), incumbent)
    below = _side(LATENCY_UPPER_MS, candidate)
    return _prepare(above, below, 1 - quantile)


def quantile_ms(counts: Floats, quantile: float) -> float | None:
    """Upper edge of the cell that holds the quantile, in ms; None without data or when it lies above the grid."""
    total = counts.sum()
    if total <= 0:
        return None
    cell = int(np.searchsorted(counts.cumsum(), quantile * total, side="left"))
    value = float(LATENCY_UPPER_MS[min(cell, LATENCY_UPPER_MS.size - 1)])
    return value if math.isfinite(value) else None


def _side(points: Floats, counts: Floats) -> _Side:
    held = counts > 0
    return _Side(points[held], counts[held])


def _prepare(above: _Side, below: _Side, share: float) -> QuantileTest:
    """
    The test of min over x >= 0 of M(#{above > x}; mean <= share) M(#{below >= x}; mean >= share).

    The first factor only steps down, at the points of `above`; between them the second only grows with x. So the minimum is at 0 or
    at a point of `above`, and looking there is exact.
    """
    thresholds = np.concatenate([[0.0], above.points])
    exceeding = _count_from(above, np.searchsorted(above.points, thresholds, side="right"))
    reaching = _count_from(below, np.searchsorted(below.points, thresholds, side="left"))
    above_bets, below_bets = fail_bets(share), pass_bets(share)
    return QuantileTest(
        log_products_of_counts(exceeding, above.counts.sum(), above_bets),
        above_bets,
        log_products_of_counts(reaching, below.counts.sum(), below_bets),
        below_bets,
    )


def _count_from(side: _Side, first: NDArray[np.intp]) -> Floats:
    remaining = np.append(side.counts[::-1].cumsum()[::-1], 0.0)
    return remaining[first]


def _log_m(log_products: Floats, bets: Bets) -> Floats:
    mixed: Floats = np.logaddexp(_LOG_KEPT, _LOG_BET + log_mixture(log_products, bets))
    return mixed
