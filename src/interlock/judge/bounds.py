"""Confidence bounds shown next to a reading. They hold at one look, not at all looks together; no HALT or PASS is drawn from them."""

import math
from collections.abc import Callable

from scipy import special

_BISECTIONS = 40
_LARGEST_GROWTH = 1e4  # beyond ten thousand times the traffic seen so far, "about n more" is no longer an answer


def share_bounds(hits: int, sample_count: int, *, beta: float) -> tuple[float, float] | None:
    """Exact (Clopper-Pearson) bounds of a share, each one-sided at beta; None without data."""
    if sample_count <= 0:
        return None
    low = float(special.betaincinv(hits, sample_count - hits + 1, beta)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, sample_count - hits, 1 - beta)) if hits < sample_count else 1.0
    return low, high


def mean_bounds(mean: float, sample_count: int, *, beta: float, low: float = 0.0, high: float = 1.0) -> tuple[float, float] | None:
    """Bounds of the mean of data in [low, high], each one-sided at beta, by Chernoff's inequality in its KL form; None without data."""
    if sample_count <= 0:
        return None
    scaled = min(1.0, max(0.0, (mean - low) / (high - low)))
    budget = math.log(1 / beta) / sample_count
    below = _bisect(lambda m: _kl(scaled, m) > budget, 0.0, scaled)
    above = _bisect(lambda m: _kl(scaled, m) <= budget, scaled, 1.0)
    return low + below * (high - low), low + above * (high - low)


def quantile_ranks(sample_count: int, quantile: float, *, beta: float) -> tuple[int, int]:
    """
    Ranks r <= s (1-based) whose order statistics bound the quantile from below and above, each at beta.

    r = 0 or s > sample_count mean that there are too few data for that bound.
    """
    below = _count_first(lambda k: float(special.bdtr(k, sample_count, quantile)) > beta, sample_count)
    above = _count_first(lambda k: 1 - float(special.bdtr(k, sample_count, quantile)) <= beta, sample_count)
    return below, above + 1


def rejects_share(hits: int, sample_count: int, *, ceiling: float, beta: float) -> bool:
    """Whether `hits` among `sample_count` reject "the share is at least `ceiling`" at beta: the exact binomial test."""
    return sample_count > 0 and hits < sample_count and float(special.bdtr(hits, sample_count, ceiling)) <= beta


def more_needed(sample_count: int, proves: Callable[[float], bool]) -> int | None:
    """
    About how many more data until the proof, if they go on as those so far; 0 when it stands, None when they lead nowhere.

    Args:
        proves: whether `growth` times the present counts (growth >= 1) would be proof.
    """
    if proves(1.0):
        return 0
    if sample_count <= 0 or not proves(_LARGEST_GROWTH):
        return None
    high = 2.0
    while high < _LARGEST_GROWTH and not proves(high):
        high *= 2
    low = high / 2
    while high / low > 1.1:  # within 10 % of the total is close enough for "about"
        middle = math.sqrt(low * high)
        low, high = (low, middle) if proves(middle) else (middle, high)
    return max(1, math.ceil(sample_count * (high - 1)))


def _kl(a: float, b: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(a) from Bernoulli(b)."""
    first = a * math.log(a / b) if a > 0 and b > 0 else (0.0 if a == 0 else math.inf)
    second = (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 and b < 1 else (0.0 if a == 1 else math.inf)
    return first + second


def _bisect(go_right: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if go_right(middle) else (low, middle)
    return (low + high) / 2


def _count_first(holds: Callable[[int], bool], sample_count: int) -> int:
    """Smallest k in 0..sample_count at which the condition, false and then true, holds."""
    low, high = 0, sample_count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
