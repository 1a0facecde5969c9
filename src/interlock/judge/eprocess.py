"""
The primitive of the judge: a fixed-bet mixture e-process for a bounded mean.

    E_n(m) = sum_k w_k prod_i (1 + s lam_k (x_i - m)),   x in [lo, hi];   s = +1: FAIL side, s = -1: PASS side

Each bet is constant in time and log is concave, hence prod(1 + lam (mu_i - m)) <= (1 + lam (mean of mu - m))^n, and
P(exists n: E_n >= 1/alpha while the running mean of conditional means is within the null) <= alpha. Nothing is assumed about
independence, identical distribution or the size of n. Everything is kept as logarithms.
Source: Robbins 1970 (mixtures); Ville 1939 (the bound).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from interlock.judge.grids import Floats

BET_COUNT = 16
MAX_LOG_E = 690.0  # exp(690) = 1e299: an e-value shown or summed stays finite

# Of the capital, what watches from the start; the rest is spread over the restarts. A fault that was there from the start pays ln(1/.8)
# = .2 of the ln(1/alpha) for that; one that begins late pays ln(1/.2) = 1.6 on top of the ln(number of windows) of any restart.
SINCE_START_WEIGHT = 0.8

_LARGEST_STAKE = 0.98  # of the ruinous stake: no single observation can take more than 98 % of a bet's capital
# Where the weights of the FAIL bets are even: from the bet that is best for 1.5 times the tolerance (for labels, stake .5 m of the ruinous
# one). Weight kept below delays every larger fault and gains nothing in a canary's few thousand pairs, so it falls with the stake; it is
# not 0, for a fault of 1.1 times the tolerance is to be found in the end. At most .1: what is worth finding does not grow with m.
_EVEN_FROM_SHARE_OF_MEAN = 0.5
_EVEN_FROM_AT_MOST = 0.1
_TAIL = 0.1  # of the restarts' weight, kept for windows after the plan, so that a bake that runs long still sees a late onset


@dataclass(frozen=True, slots=True)
class Bets:
    """Stakes `lam_k` with log weights `log w_k` (both shape (k,)), against the mean `m`, on the side `sign`."""

    stakes: Floats
    log_weights: Floats
    mean: float
    sign: int

    def log_factors(self, points: Floats) -> Floats:
        """Log growth of every bet at every point: shape points.shape + (k,)."""
        return np.log1p(self.sign * self.stakes * (points[..., None] - self.mean))


@lru_cache(maxsize=128)
def fail_bets(mean: float, *, low: float = 0.0, high: float = 1.0) -> Bets:
    """Bets against "the mean is at most `mean`", for data in [low, high]: they grow when it is larger."""
    relative = (mean - low) / (high - low)
    shares = np.geomspace(min(0.02, max(5e-4, 0.1 * relative)), _LARGEST_STAKE, BET_COUNT)
    weights = np.minimum(1.0, shares / min(_EVEN_FROM_AT_MOST, _EVEN_FROM_SHARE_OF_MEAN * relative))
    return Bets(shares / (mean - low), np.log(weights / weights.sum()), mean, 1)


@lru_cache(maxsize=128)
def pass_bets(mean: float, *, high: float = 1.0) -> Bets:
    """Bets against "the mean is at least `mean`", for data not above `high`: they grow when it is smaller."""
    shares = np.geomspace(0.03, _LARGEST_STAKE, BET_COUNT)
    return Bets(shares / (high - mean), np.log(shares / shares.sum()), mean, -1)


def planned_pass_bets(mean: float, *, high: float, sample_count: float, beta: float) -> Bets:
    """
    PASS-side bets for one declared look at `sample_count` data: half the weight around the stake that is best for that horizon.

    The stake sqrt(2 ln(1/beta) / (n var)) uses the variance of a 0/1 datum at the edge of the tolerance, mean (1 - mean): a number of
    the policy, since a variance taken from the data would void the test. The other half are the `pass_bets`, for a noisier incumbent.
    """
    variance = mean * (1 - mean)
    best = math.sqrt(2 * math.log(1 / beta) / (max(sample_count, 1.0) * variance))
    planned = np.minimum(best * np.geomspace(0.5, 2.0, 5), _LARGEST_STAKE / (high - mean))
    general = pass_bets(mean, high=high)
    log_half = math.log(0.5)
    log_weights = np.concatenate([np.full(5, log_half - math.log(5)), general.log_weights + log_half])
    return Bets(np.concatenate([planned, general.stakes]), log_weights, mean, -1)


def log_mixture(log_products: Floats, bets: Bets) -> Floats:
    """Log of the mixture from the log product of each bet, over the last axis. No data (all zero) gives 0, i.e. E = 1."""
    return log_sum(log_products + bets.log_weights)


def log_mixture_restarting(growth: Floats, windows: Floats, *, bets: Bets, planned_window_count: int) -> float:
    """
    Log e-value with most of the weight on the process since the start, the rest spread over restarts at each window's beginning.

    Restart j begins at window j (1, 2, ...) with a weight fixed beforehand: 90 % evenly over the planned windows, 10 % over the
    windows after the plan, falling as 1/(i (i + 1)). All weights sum to 1, a restart not begun counts as E = 1, so the total is an
    e-value: law 2 holds. Restarts in windows without data share the value of the next window with data, so the cost is linear in
    the windows that hold data, whatever the clock did.

    Args:
        growth: shape (w, k), log growth of each bet in each window that holds data.
        windows: shape (w,), strictly increasing window indices >= 0.
    """
    if growth.shape[0] == 0:
        return 0.0
    return log_restarting(log_mixture(growth[::-1].cumsum(axis=0)[::-1], bets), windows, planned_window_count=planned_window_count)


def log_restarting(from_here: Floats, windows: Floats, *, planned_window_count: int) -> float:
    """
    The same from the log e-values of the processes that begin at each window (shape (w,), w >= 1), the first of them being the one
    since the start.
    """
    begun = restart_weight_begun(windows, planned_window_count)
    with np.errstate(divide="ignore"):  # a weight of 0 is a log of -inf, which adds nothing
        restarts = np.append(np.diff(begun, prepend=0.0), 1 - begun[-1])
        weights = np.log(np.concatenate([[SINCE_START_WEIGHT], (1 - SINCE_START_WEIGHT) * restarts]))
    return float(log_sum(weights + np.concatenate([from_here[:1], from_here, [0.0]])))


def restart_weight_begun(windows: Floats, planned_window_count: int) -> Floats:
    """Total weight, in [0, 1], of the restarts that have begun by each window (inclusive)."""
    after_plan = np.maximum(windows - planned_window_count, 0.0)
    return (1 - _TAIL) * np.minimum(windows / planned_window_count, 1.0) + _TAIL * (1 - 1 / (after_plan + 1))


def log_products_of_counts(hits: Floats, sample_count: float, bets: Bets) -> Floats:
    """Log product of each bet for 0/1 data with `hits` ones among `sample_count`: shape hits.shape + (k,)."""
    at_zero, at_one = bets.log_factors(np.array([0.0, 1.0]))
    products: Floats = hits[..., None] * at_one + (sample_count - hits)[..., None] * at_zero
    return products


def log_sum(logs: Floats) -> Floats:
    """Log of the sum of exponentials over the last axis, without overflow. At least one entry must be finite."""
    top = logs.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(logs - top).sum(axis=-1)) + top[..., 0]
    return total


def e_value(log_e: float) -> float:
    """The e-value as a number, capped at 1e299. NaN stays NaN, for the caller to refuse."""
    return math.exp(min(log_e, MAX_LOG_E)) if not math.isnan(log_e) else math.nan
