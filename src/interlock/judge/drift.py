"""
Distances between two samples of one quantity: the numbers that Evidently computes, and how much of each is chance.

The formulas and replacements of zeros are Evidently's, whose own functions need minutes for a million rows; a contract test holds the two
equal. Bins and norm are not, on purpose, so that one odd row cannot blind them. Evidently's bins span both samples: one row far out leaves
all others in one bin. Here they are equally filled by the reference, the outer ones open. Evidently norms the Wasserstein distance by the
standard deviation and by at least 0.001; here the norm is the quartiles' where that is smaller, and may be as tiny as the numbers are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from interlock.model.verdict import Bounds

Floats: TypeAlias = NDArray[np.float64]
Gradients: TypeAlias = tuple[Floats, Floats]

CATEGORY_METHODS = ("jensenshannon", "psi", "hellinger", "kl_div")
FEW_VALUES = 20  # Evidently compares up to so many distinct numbers value by value, and more in bins
QUARTILES_TO_DEVIATION = 1.35  # of a normal distribution
POTENTIAL_POINTS = 4096  # of each sample, evenly by rank: a standard error to one per cent does not need more


@dataclass(frozen=True, slots=True)
class Distance:
    """
    How far two samples lie apart.

    by_chance: what two samples of these sizes from one population would show on average. standard_error: of the value, when every row
    is independent of the others. adds_squared: chance and true distance add by their squares, as for all but PSI and divergence.
    """

    value: float
    by_chance: float
    standard_error: float
    adds_squared: bool

    def bounds(self, confidence: float) -> Bounds:
        """
        Where the distance of the populations lies, each side with this confidence.

        A sample inflates a distance, never the other way, so that chance is taken off the lower bound only.
        """
        reach = NormalDist().inv_cdf(confidence) * self.standard_error
        power = 2 if self.adds_squared else 1
        proved = max(0.0, self.value**power - self.by_chance**power) ** (1 / power)
        return Bounds(max(0.0, proved - reach), self.value + reach, 100.0 * confidence)


def number_distance(method: str, reference: Floats, current: Floats) -> Distance | None:
    """
    The distance of two sorted samples of finite numbers.

    None where there is none: a sample is empty, or the reference is constant and the current sample is not the same constant, so that
    there is no spread to measure with.
    """
    if not len(reference) or not len(current):
        return None
    if reference[0] == reference[-1]:
        return Distance(0.0, 0.0, 0.0, adds_squared=True) if reference[0] == current[0] and current[0] == current[-1] else None
    if method == "wasserstein":
        return _wasserstein(reference, current)
    return category_distance(method, *_counted(reference, current))


def category_distance(method: str, reference: Floats, current: Floats) -> Distance | None:
    """The distance of two samples given as counts of the same categories, one of `CATEGORY_METHODS`; None when a sample is empty."""
    row_counts = float(reference.sum()), float(current.sum())
    if not all(row_counts):
        return None
    before, now = reference / row_counts[0], current / row_counts[1]
    value, gradients = _FORMULAS[method](before, now)
    chance = (np.count_nonzero(before + now) - 1) * (1 / row_counts[0] + 1 / row_counts[1]) * _CHANCE[method]
    adds_squared = method in {"jensenshannon", "hellinger"}
    error = math.sqrt(sum(_variance(g, shares) / n for g, shares, n in zip(gradients, (before, now), row_counts, strict=True)))
    return _finite(Distance(value, math.sqrt(chance) if adds_squared else chance, error, adds_squared))


def _finite(found: Distance) -> Distance | None:
    return found if all(math.isfinite(number) for number in (found.value, found.by_chance, found.standard_error)) else None


def _wasserstein(reference: Floats, current: Floats) -> Distance | None:
    spread, of_spread = _spread(reference)
    merged = np.concatenate([reference, current])
    merged.sort(kind="stable")  # two sorted runs: merged, not sorted anew
    gaps = np.diff(merged)
    difference = np.searchsorted(reference, merged[:-1], "right") / len(reference)
    difference -= np.searchsorted(current, merged[:-1], "right") / len(current)
    value = float(np.abs(difference) @ gaps) / spread
    both = np.arange(1, len(merged)) / len(merged)
    scale = math.sqrt(2 / math.pi * (1 / len(reference) + 1 / len(current))) / spread
    by_chance = scale * float(np.sqrt(both * (1 - both)) @ gaps)
    potential = np.concatenate([[0.0], np.cumsum(np.sign(difference) * gaps)]) / spread
    before, now = _thinned(reference), _thinned(current)
    variance = float(np.var(potential[np.searchsorted(merged, before)] + value * of_spread)) / len(reference)
    variance += float(np.var(potential[np.searchsorted(merged, now)])) / len(current)
    return _finite(Distance(value, by_chance, math.sqrt(variance), adds_squared=True))


def _thinned(ordered: Floats) -> Floats:
    return ordered[:: max(1, len(ordered) // POTENTIAL_POINTS)]


def _spread(ordered: Floats) -> tuple[float, Floats]:
    """
    The smaller of standard deviation and scaled quartile distance, unless that is 0; one row far out moves the first only.

    Beside it what each of the thinned numbers adds to it, as a share of it and but for a constant: the norm is an estimate as well.
    """
    deviation, numbers = float(np.std(ordered)), _thinned(ordered)
    before_low, low, after_low, before_high, high, after_high = _at(ordered, np.array([0.2, 0.25, 0.3, 0.7, 0.75, 0.8]))
    if not 0 < (high - low) / QUARTILES_TO_DEVIATION < deviation:
        return deviation, ((numbers - ordered.mean()) / deviation) ** 2 / 2
    of_low, of_high = (numbers <= low) * (after_low - before_low), (numbers <= high) * (after_high - before_high)  # 0.1 / density
    return float(high - low) / QUARTILES_TO_DEVIATION, (of_low - of_high) / 0.1 / (high - low)


def _at(ordered: Floats, shares: Floats) -> Floats:
    return ordered[(shares * (len(ordered) - 1)).astype(np.intp)]


def _counted(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    if np.count_nonzero(np.diff(reference)) < FEW_VALUES:
        edges = np.unique(np.concatenate([np.unique(reference), np.unique(current)]))[1:]
    else:
        edges = _edges(reference, bin_count=math.ceil(math.log2(len(reference) + len(current))) + 1)
    return _in_bins(reference, edges), _in_bins(current, edges)


def _edges(ordered: Floats, *, bin_count: int) -> Floats:
    """Between bins that hold equally many of the numbers; a number that would fill one by itself has its own, between the others."""
    shares = np.arange(1, bin_count) / bin_count
    equal = _at(ordered, shares)
    common = np.unique(equal[1:][np.diff(equal) == 0])
    others = ordered[~np.isin(ordered, common)] if len(common) else ordered
    return np.unique(np.concatenate([common, np.nextafter(common, math.inf), _at(others, shares)]))


def _in_bins(ordered: Floats, edges: Floats) -> Floats:
    """How many lie in each bin: its lower edge belongs to it, the upper one to the next; the first and the last are open."""
    inner = np.searchsorted(ordered, edges, "left")
    return np.diff(np.concatenate([[0], inner, [len(ordered)]])).astype(np.float64)


def _variance(gradient: Floats, shares: Floats) -> float:
    seen = shares > 0
    mean = float(gradient[seen] @ shares[seen])
    return max(0.0, float(gradient[seen] ** 2 @ shares[seen]) - mean**2)


def _psi(before: Floats, now: Floats) -> tuple[float, Gradients]:
    p, q = _filled(before), _filled(now)
    ratio = np.log(p / q)
    return float(np.sum((p - q) * ratio)), (ratio + 1 - q / p, 1 - ratio - p / q)


def _kl_div(before: Floats, now: Floats) -> tuple[float, Gradients]:
    p, q = _filled(before), _filled(now)
    return float(special.rel_entr(p / p.sum(), q / q.sum()).sum()), (np.log(p / q), -p / q)


def _jensenshannon(before: Floats, now: Floats) -> tuple[float, Gradients]:
    middle = (before + now) / 2
    value = math.sqrt(float(special.rel_entr(before, middle).sum() + special.rel_entr(now, middle).sum()) / 2)
    return value, (_log_ratio(before, middle) / (4 * value or 1.0), _log_ratio(now, middle) / (4 * value or 1.0))


def _hellinger(before: Floats, now: Floats) -> tuple[float, Gradients]:
    value = math.sqrt(1 - min(1.0, float(np.sqrt(before * now).sum())))
    ratio = np.exp(_log_ratio(now, before) / 2) * (now > 0)
    back = np.exp(_log_ratio(before, now) / 2) * (before > 0)
    return value, (ratio / (-4 * value or 1.0), back / (-4 * value or 1.0))


def _log_ratio(shares: Floats, others: Floats) -> Floats:
    """log(shares / others) where neither is zero, else 0: a category without rows has no part in the error."""
    seen = (shares > 0) & (others > 0)
    return np.where(seen, np.log(np.where(seen, shares, 1.0) / np.where(seen, others, 1.0)), 0.0)


def _filled(shares: Floats) -> Floats:
    """Evidently's replacement of zeros, without which a ratio would be infinite."""
    least = float(shares[shares > 0].min())
    return np.where(shares == 0, least / 10**6 if least <= 0.0001 else 0.0001, shares)


_FORMULAS: dict[str, Callable[[Floats, Floats], tuple[float, Gradients]]] = {
    "psi": _psi,
    "kl_div": _kl_div,
    "jensenshannon": _jensenshannon,
    "hellinger": _hellinger,
}
_CHANCE = {"psi": 1.0, "kl_div": 1 / 2, "jensenshannon": 1 / 8, "hellinger": 1 / 8}  # times (categories - 1) (1/n + 1/m)
