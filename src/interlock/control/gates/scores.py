"""The metrics of the evaluation gate, and the paired bootstrap that says how much worse a candidate may be. Pure numpy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from interlock.profile.schema import Metric

Numbers: TypeAlias = NDArray[np.float64]
WorseBy: TypeAlias = Callable[[Numbers], float]  # row weights (how often a row was drawn) -> how much worse the candidate is

RESAMPLES = 500  # the 95 % quantile of 500 draws stands on its 25 largest; more costs time and moves the bound by < 5 % of itself
CONFIDENCE = 0.95
SMALLEST_PROBABILITY = 1e-15  # what a certain and wrong answer costs in log loss: 34.5, not infinity


def score(name: str, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
    """One metric of one model's predictions. The inputs must have no flaw (`flaw` tells)."""
    if name == "roc_auc":
        return _RankedScores(labels, predictions).auc(np.ones(len(labels)))
    return float(np.mean(_PER_ROW[name](labels, predictions)))


def worse_by_bounds(
    metrics: Sequence[Metric], labels: NDArray[Any], *, candidate: NDArray[Any], incumbent: NDArray[Any], seed: int
) -> Mapping[str, float]:
    """
    By metric: an upper 95 % bound of how much worse the candidate is than the incumbent on these rows (negative: better).

    Paired percentile bootstrap, one-sided: 500 times the rows are drawn with replacement, both models are scored on the same
    draw, and the bound is the 95 % quantile of the differences. The draws follow from `seed` alone. NaN when a draw has no score
    (of one class only): then there are too few rows of the rarer class to say anything.
    """
    statistics = {m.name: _worse_by(m, labels, candidate, incumbent) for m in metrics}
    draws = [[statistic(weights) for statistic in statistics.values()] for weights in _resamples(len(labels), seed)]
    bounds = np.quantile(np.array(draws), CONFIDENCE, axis=0, method="higher")
    return dict(zip(statistics, map(float, bounds), strict=True))


def disagreement(candidate: NDArray[Any], incumbent: NDArray[Any], *, labels_only: bool) -> float:
    """Mean D in [0, 1] as the canary measures it: share of different labels, or mean difference of probabilities."""
    if labels_only:
        return float(np.mean(candidate != incumbent))
    return float(np.mean(np.abs(candidate - incumbent)))


def _resamples(row_count: int, seed: int) -> Iterator[Numbers]:
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(RESAMPLES):
        yield np.bincount(generator.integers(0, row_count, row_count), minlength=row_count).astype(np.float64)


def _worse_by(metric: Metric, labels: NDArray[Any], candidate: NDArray[Any], incumbent: NDArray[Any]) -> WorseBy:
    sign = 1.0 if metric.better == "lower" else -1.0
    if metric.name == "roc_auc":
        theirs, ours = _RankedScores(labels, incumbent), _RankedScores(labels, candidate)
        return lambda weights: sign * (ours.auc(weights) - theirs.auc(weights))
    per_row = _PER_ROW[metric.name]
    differences = sign * (per_row(labels, candidate) - per_row(labels, incumbent))
    return lambda weights: float(weights @ differences) / len(differences)


class _RankedScores:
    """Scores sorted once, so that every resample's area under the ROC curve costs two cumulative sums."""

    def __init__(self, labels: NDArray[Any], scores: Numbers) -> None:
        self._order = np.argsort(scores, kind="stable")
        ranked = scores[self._order]
        self._positive = labels[self._order] == 1
        self._tie_starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])

    def auc(self, weights: Numbers) -> float:
        """The share of (positive, negative) pairs in the right order, ties as one half (Mann-Whitney); NaN without any pair."""
        drawn = weights[self._order]
        positives = np.add.reduceat(drawn * self._positive, self._tie_starts)
        negatives = np.add.reduceat(drawn * ~self._positive, self._tie_starts)
        pairs = positives.sum() * negatives.sum()
        if pairs == 0:
            return float("nan")
        below = np.cumsum(negatives) - negatives
        return float(positives @ (below + 0.5 * negatives) / pairs)


def _log_losses(labels: NDArray[Any], predictions: NDArray[Any]) -> Numbers:
    certain = np.clip(predictions, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    losses: Numbers = -np.where(labels == 1, np.log(certain), np.log1p(-certain))
    return losses


def _hits(labels: NDArray[Any], predictions: NDArray[Any]) -> Numbers:
    """A probability counts as label 1 from one half on, when all labels are 0 or 1; anything else must be equal to the label."""
    if labels.dtype.kind == "f" and predictions.dtype.kind == "f" and _within_unit(predictions) and set(np.unique(labels)) <= {0.0, 1.0}:
        predictions = (predictions >= 0.5).astype(np.float64)
    hits: Numbers = np.asarray(labels == predictions, dtype=np.float64)
    return hits


def _within_unit(values: NDArray[Any]) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


_PER_ROW: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], Numbers]] = {
    "log_loss": _log_losses,
    "brier": lambda labels, predictions: (predictions - labels) ** 2,
    "accuracy": _hits,
    "mean_absolute_error": lambda labels, predictions: np.abs(predictions - labels),
}


def flaw(name: str, labels: NDArray[Any], predictions: NDArray[Any]) -> str | None:
    """Why this metric cannot be computed from these labels and predictions, or None when it can."""
    if name == "accuracy":
        return "all labels are the same" if len(set(labels.tolist())) < 2 else None
    if labels.dtype.kind != "f" or predictions.dtype.kind != "f":
        return f"{name} needs numbers, found text"
    if name == "mean_absolute_error":
        return None
    classes = set(np.unique(labels))
    if classes != {0.0, 1.0}:
        return f"{name} needs labels 0 and 1, found {len(classes)} different labels"
    if name in {"log_loss", "brier"} and not _within_unit(predictions):
        return f"{name} needs probabilities, found predictions outside 0 to 1"
    return None
