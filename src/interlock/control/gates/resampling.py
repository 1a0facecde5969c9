"""
How far an offline metric, and the difference of two models in it, can be from what these rows say: bounds by the paired bootstrap.

scikit-learn takes 10 ms for one area under the curve of 27,000 rows; a thousand of them need other code. Each metric is written here as
sums over the rows, weighted by how often each was drawn; with every row drawn once it is scikit-learn's value, which a test asserts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from interlock.control.gates.metrics import CALIBRATION_BIN_COUNT, DISTANCE, RANKED, Numbers, Side, calibration_bins, clipped, decided, hits
from interlock.judge.bounds import mean_bounds, share_bounds
from interlock.model.verdict import Bounds
from interlock.profile.gates import MetricName

Statistic: TypeAlias = Callable[[Numbers], Numbers]  # weights, one draw a row of shape (d, n) -> the metric in each draw, (d,)

RESAMPLES = 500  # the 95 % quantile of 500 draws stands on its 25 largest; more costs time and moves the bound by < 5 % of itself
CONFIDENCE_PERCENT = 95.0
BETA = 1 - CONFIDENCE_PERCENT / 100
_BLOCK_WEIGHTS = 2_000_000  # at a time: 16 MB, whatever the number of rows
_BETA_DISCORDANT = 0.005  # of the 5 %, what the number of discordant rows may be wrong by; the rest is for which model they favour


class Pair(NamedTuple):
    """One metric of both models, on some of the rows: `rows` are their positions in the draws, None for all."""

    name: MetricName
    candidate: Side
    incumbent: Side
    rows: NDArray[np.intp] | None


def resample(pairs: Sequence[Pair], *, row_count: int, seed: int) -> Sequence[tuple[Numbers, Numbers]]:
    """
    For each pair the candidate's and the incumbent's metric in 500 draws of all rows with replacement, each draw the same for all pairs.

    The draws follow from `seed` alone. NaN where a metric is not defined on a draw.
    """
    statistics = [(statistic(pair.name, pair.candidate), statistic(pair.name, pair.incumbent), pair.rows) for pair in pairs]
    found: list[list[tuple[Numbers, Numbers]]] = [[] for _ in pairs]
    for weights in _draws(row_count, seed):
        for results, (ours, theirs, rows) in zip(found, statistics, strict=True):
            drawn = weights if rows is None else weights[:, rows]
            results.append((ours(drawn), theirs(drawn)))
    return [tuple(np.concatenate(side) for side in zip(*results, strict=True)) for results in found]  # type: ignore[misc]


def value_bounds(name: MetricName, side: Side, value: float, draws: Numbers) -> Bounds:
    """
    Of one model's metric: exact for shares (Clopper-Pearson), else by the draws.

    Draws of few rows show no error that these rows do not: what lies between 0 and 1 is known no better than a mean of so many such values.
    """
    if name in _SHARES:
        hit_count, of_count = _SHARES[name](side)
        exact = share_bounds(round(hit_count), round(of_count), beta=BETA) or (math.nan, math.nan)
        low, high = map(_OF_SHARE.get(name, float), exact)
        return Bounds(low, high, CONFIDENCE_PERCENT)
    bounds = spread_of(value, draws)
    if name in _WITHIN_UNIT and (known := mean_bounds(value, len(side.labels), beta=BETA)):
        return _wider(bounds, *known)
    return bounds


def worse_by_bounds(pair: Pair, value: float, draws: Numbers) -> Bounds:
    """
    Of how much worse the candidate is: McNemar's for accuracy and recall, else by the draws of the difference.

    The two models' precisions stand on different rows: the wider of the draws and McNemar's on what either of them calls 1. Draws that do
    not vary are believed of models that answer alike; of others they say that too few rows tell: no bounds.
    """
    if (rows := _discordant_rows(pair)) is not None:
        exact = discordant_bounds(hits(pair.candidate)[rows], hits(pair.incumbent)[rows])
        return exact if pair.name != "precision" else _wider(spread_of(value, draws), exact.low, exact.high)
    bounds = spread_of(value, draws)
    if bounds.low == bounds.high and not _answer_alike(pair):
        return Bounds(math.nan, math.nan, CONFIDENCE_PERCENT)
    return bounds


def _answer_alike(pair: Pair) -> bool:
    """Whether no row can tell the two models apart: a metric of ranks sees nothing but ranks."""
    ours, theirs = pair.candidate.answers, pair.incumbent.answers
    if pair.name in RANKED:
        ours, theirs = stats.rankdata(ours), stats.rankdata(theirs)
    return bool(ours.tolist() == theirs.tolist())


def _discordant_rows(pair: Pair) -> NDArray[np.bool_] | None:
    """The rows on which one model loses what the other wins, for metrics that count such; None for the rest."""
    if pair.name == "accuracy":
        return np.ones(len(pair.candidate.labels), dtype=np.bool_)
    if pair.name == "recall":
        return np.asarray(pair.candidate.labels == 1)
    if pair.name == "precision":
        return np.asarray((decided(pair.candidate) == 1) | (decided(pair.incumbent) == 1))
    return None


def _wider(bounds: Bounds, low: float, high: float) -> Bounds:
    """NaN stays NaN: a draw without a value leaves no bound."""
    return Bounds(float(np.minimum(bounds.low, low)), float(np.maximum(bounds.high, high)), bounds.confidence_percent)


def spread_of(value: float, draws: Numbers) -> Bounds:
    """
    The wider of the percentile and the basic bootstrap on each side, each one-sided at 95 %; NaN when a draw is.

    They are the same for a symmetric spread. Where draws are biased (a calibration error grows by noise of either sign) the percentiles
    alone may not even hold the value itself.
    """
    low = float(np.quantile(draws, BETA, method="lower"))
    high = float(np.quantile(draws, 1 - BETA, method="higher"))
    return Bounds(min(low, 2 * value - high), max(high, 2 * value - low), CONFIDENCE_PERCENT)


def discordant_bounds(candidate_hits: Numbers, incumbent_hits: Numbers) -> Bounds:
    """
    Of accuracy lost, from the rows that only one of the two has right (McNemar, exact).

    Which model such a row favours is a coin of unknown bias, and how many such rows there are is a share of all: exact bounds of both,
    4.5 % and 0.5 %, together 95 %. No discordant row at all is no certainty.
    """
    lost, won = int((candidate_hits < incumbent_hits).sum()), int((candidate_hits > incumbent_hits).sum())
    unbounded = (-1.0, 1.0)
    few, many = share_bounds(lost + won, len(candidate_hits), beta=_BETA_DISCORDANT) or unbounded
    least, most = share_bounds(lost, lost + won, beta=BETA - _BETA_DISCORDANT) or (0.0, 1.0)

    def largest(tilt: float) -> float:
        return tilt * (many if tilt > 0 else few)

    return Bounds(-largest(1 - 2 * least), largest(2 * most - 1), CONFIDENCE_PERCENT)


def _draws(row_count: int, seed: int) -> Iterator[Numbers]:
    generator = np.random.Generator(np.random.PCG64(seed))
    block_count = max(1, _BLOCK_WEIGHTS // row_count)
    for start in range(0, RESAMPLES, block_count):
        count = min(block_count, RESAMPLES - start)
        drawn = (np.bincount(generator.integers(0, row_count, row_count), minlength=row_count) for _ in range(count))
        yield np.stack(list(drawn)).astype(np.float64)


def statistic(name: MetricName, side: Side) -> Statistic:
    """The metric of one model as a function of the rows' weights."""
    if name in RANKED:
        ranked = _Ranked(side.labels, side.answers)
        of_draw = ranked.roc_auc if name == "roc_auc" else ranked.average_precision
        return lambda weights: np.array([of_draw(drawn) for drawn in weights])
    side = clipped(name, side)
    columns, combine = np.column_stack(_COLUMNS[name](side)), _COMBINE.get(name, _mean)

    def of_weights(weights: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw without any label 1 has no recall: NaN
            return combine(weights @ columns, weights.sum(axis=1))

    return of_weights


class _Ranked:
    """Scores sorted once, the highest first, so that every draw costs one or two cumulative sums and a look at each positive."""

    def __init__(self, labels: Numbers, scores: Numbers) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._positives = np.flatnonzero(labels[self._order] == 1)
        self._negative = (labels[self._order] != 1).astype(np.float64)
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        tie = np.searchsorted(starts, self._positives, side="right")
        self._tie_start, self._tie_end = starts[tie - 1], np.r_[starts, len(ranked)][tie]  # end: exclusive
        self._last_in_tie = np.searchsorted(self._positives, self._tie_end) - 1

    def roc_auc(self, weights: Numbers) -> float:
        """The share of (positive, negative) pairs in the right order, ties as one half (Mann-Whitney); NaN without any pair."""
        drawn = weights[self._order]
        negatives = _running(drawn * self._negative)
        positive = drawn[self._positives]
        pairs = positive.sum() * negatives[-1]
        above = 0.5 * (negatives[self._tie_start] + negatives[self._tie_end])
        return 1 - float((positive * above).sum() / pairs) if pairs else math.nan

    def average_precision(self, weights: Numbers) -> float:
        """The precision at each score, weighted by the recall that it adds; NaN without any positive."""
        drawn = weights[self._order]
        positive = drawn[self._positives]
        found, asked = np.cumsum(positive)[self._last_in_tie], _running(drawn)[self._tie_end]
        total = positive.sum()
        return float((positive * found / np.maximum(asked, 1)).sum() / total) if total else math.nan


def _running(values: Numbers) -> Numbers:
    """Sums of all values before each position, and of all."""
    sums = np.empty(len(values) + 1)
    sums[0] = 0.0
    np.cumsum(values, out=sums[1:])
    return sums


def _log_losses(side: Side) -> list[Numbers]:
    smallest = np.finfo(np.float64).eps  # what a certain and wrong answer costs is 36, not infinity: scikit-learn's number
    certain = np.clip(side.answers, smallest, 1 - smallest)
    return [-np.where(side.labels == 1, np.log(certain), np.log1p(-certain))]


def _squares(side: Side) -> list[Numbers]:
    return [(side.answers - side.labels) ** 2]


def _explained(side: Side) -> list[Numbers]:
    centred = side.labels - side.labels.mean()  # the sum of squares below loses its digits otherwise
    return [*_squares(side), centred, centred**2]


def _gaps(side: Side) -> list[Numbers]:
    """The candidate's bins stay those of all rows in every draw."""
    bins, gap = calibration_bins(side.answers), side.answers - side.labels
    return [np.where(bins == number, gap, 0.0) for number in range(CALIBRATION_BIN_COUNT)]


def _counts(side: Side) -> tuple[Numbers, Numbers, Numbers]:
    """1 for: rightly said 1; said 1; label 1."""
    said = decided(side)
    return said * side.labels, said, side.labels


_COLUMNS: Mapping[str, Callable[[Side], Sequence[Numbers]]] = {
    "log_loss": _log_losses,
    "brier": _squares,
    "calibration_error": _gaps,
    "accuracy": lambda side: [hits(side)],
    "precision": _counts,
    "recall": _counts,
    "f1": _counts,
    "mean_absolute_error": lambda side: [np.abs(side.answers - side.labels)],
    "root_mean_squared_error": _squares,
    "r2": _explained,
    DISTANCE: lambda side: [side.distances],
}


def _mean(sums: Numbers, weight: Numbers) -> Numbers:
    return np.asarray(sums[:, 0] / weight)


_COMBINE: Mapping[str, Callable[[Numbers, Numbers], Numbers]] = {
    "calibration_error": lambda sums, weight: np.abs(sums).sum(axis=1) / weight,
    "precision": lambda sums, _: sums[:, 0] / sums[:, 1],
    "recall": lambda sums, _: sums[:, 0] / sums[:, 2],
    "f1": lambda sums, _: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]),
    "root_mean_squared_error": lambda sums, weight: np.sqrt(sums[:, 0] / weight),
    "r2": lambda sums, weight: 1 - sums[:, 0] / (sums[:, 2] - sums[:, 1] ** 2 / weight),
}

_WITHIN_UNIT = frozenset({"brier", "calibration_error", DISTANCE})


def _found_of_concerned(side: Side) -> tuple[float, float]:
    """Of the rows that have label 1 or are called 1, those with both."""
    both, said, labels = (float(count.sum()) for count in _counts(side))
    return both, said + labels - both


_SHARES: Mapping[str, Callable[[Side], tuple[float, float]]] = {
    "accuracy": lambda side: (float(hits(side).sum()), float(len(side.labels))),
    "precision": lambda side: (float(_counts(side)[0].sum()), float(_counts(side)[1].sum())),
    "recall": lambda side: (float(_counts(side)[0].sum()), float(_counts(side)[2].sum())),
    "f1": _found_of_concerned,
}
_OF_SHARE: Mapping[str, Callable[[float], float]] = {"f1": lambda share: 2 * share / (1 + share)}  # grows with the share
