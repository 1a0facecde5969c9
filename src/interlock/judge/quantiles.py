"""Is one latency quantile slower than tolerated? The two-histogram e-value, on both sides, from counts in fixed bins."""

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from interlock.judge.eprocess import Bets, fail_bets, log_mixture, log_products_of_counts, log_sum, pass_bets
from interlock.judge.grids import LATENCY_LOWER_MS, LATENCY_UPPER_MS, Floats, slower_ms
from interlock.judge.policy import LatencyTolerance

# Of the capital at each threshold: kept, bet on `above`, on `below`, on both at once. Far below the quantile only `above` wins, far over
# it only `below`, and the loser may not ruin the other; near it both win a little, hence the most for both. The kept part bounds what a
# quiet weight step takes from the next, whose e-value is multiplied: at worst ln .05.
_LOG_WEIGHTS: Floats = np.log([0.05, 0.30, 0.25, 0.40])


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
        above, below = log_mixture(growth * self.above, self.above_bets), log_mixture(growth * self.below, self.below_bets)
        return float(log_sum(np.stack([np.zeros_like(above), above, below, above + below], axis=-1) + _LOG_WEIGHTS).min())


def slower_test(candidate: Floats, incumbent: Floats, *, quantile: float, tolerance: LatencyTolerance) -> QuantileTest:
    """
    Tests "the candidate's quantile is within tolerance": the e-value grows when the candidate is slower than g(incumbent).

    The null is Q_C(q) <= g(Q_B(q)). At x = g(Q_B(q)) it says P(Y_C > x) <= 1-q, and always P(g(Y_B) >= x) >= 1-q. A bet on either, and
    a bet on both (the product), is fair or worse there, so their weighted sum is an e-value; the smallest sum over all x is at most
    the one at that unknown x, hence valid. Candidate latencies are rounded down to their bin, incumbent ones up.

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


@lru_cache(maxsize=16)
def exceeding_bets(share: float) -> Bets:
    """
    Bets against "at most `share` exceed the threshold": the stakes of the FAIL bets, weights falling as their cube root.

    A large excess is found in a few requests whatever its weight; a p99 that is just too slow waits thousands for the same logarithm.
    A square root would delay a median half again as slow by a tenth, and a clean p50's PASS by a request.
    """
    bets = fail_bets(share)
    falling = -np.log(bets.stakes) / 3
    return dataclasses.replace(bets, log_weights=falling - log_sum(falling))


def _side(points: Floats, counts: Floats) -> _Side:
    held = counts > 0
    return _Side(points[held], counts[held])


def _prepare(above: _Side, below: _Side, share: float) -> QuantileTest:
    """
    The test of min over x >= 0 of the sum of bets on #{above > x} (mean <= share) and on #{below >= x} (mean >= share).

    Every bet on the first only steps down, at the points of `above`; between them every bet on the second only grows with x. So the
    minimum is at 0 or at a point of `above`, and looking there is exact.
    """
    thresholds = np.concatenate([[0.0], above.points])
    exceeding = _count_from(above, np.searchsorted(above.points, thresholds, side="right"))
    reaching = _count_from(below, np.searchsorted(below.points, thresholds, side="left"))
    above_bets, below_bets = exceeding_bets(share), pass_bets(share)
    return QuantileTest(
        log_products_of_counts(exceeding, above.counts.sum(), above_bets),
        above_bets,
        log_products_of_counts(reaching, below.counts.sum(), below_bets),
        below_bets,
    )


def _count_from(side: _Side, first: NDArray[np.intp]) -> Floats:
    remaining = np.append(side.counts[::-1].cumsum()[::-1], 0.0)
    return remaining[first]
