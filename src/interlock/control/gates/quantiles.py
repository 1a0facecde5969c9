"""Latency quantiles of two arms under one load, with bounds that stay honest when slow answers come in bunches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from interlock.model.verdict import Bounds

RESAMPLE_COUNT = 2000
LEAST_BLOCKS = 20  # fewer make bounds that depend on which of them are drawn
_CHUNK = 1_000_000  # pairs that are in memory at a time
_SEED = 20  # the same latencies give the same bounds

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number and where it may lie."""

    value: float
    bounds: Bounds


class PairedQuantiles:
    """
    Quantiles of candidate and incumbent from the latencies of the same pairs of requests, in the order in which they were due.

    A block bootstrap: stretches of the schedule are drawn with replacement, both arms' answers together, so that a stall of the machine
    is in both or in neither, and a bunch of slow answers counts as one event. Pairs are also drawn one by one; the wider bounds count.
    A resampled tail is thinner than a real one. The percentiles are therefore those at which uncorrelated latencies give the exact
    bound by order statistics; where too few requests were sent for that, the bound is infinite.
    """

    def __init__(
        self, candidate: Sequence[float], incumbent: Sequence[float], *, shares: Sequence[float], block_length: int, error: float
    ) -> None:
        values = np.array([candidate, incumbent], dtype=np.float64)
        self._count, self._error = values.shape[1], error
        ranks = [_rank(self._count, share) for share in shares]
        lengths = sorted({1, max(1, min(block_length, self._count // LEAST_BLOCKS))})
        self._found = dict(zip(shares, np.partition(values, ranks, axis=1)[:, ranks].T, strict=True))
        drawn = [_drawn(values, ranks, length) for length in lengths]
        self._drawn = {share: [each[:, :, at] for each in drawn] for at, share in enumerate(shares)}

    def candidate(self, share: float) -> Estimate:
        """The latency that this share of the candidate's answers kept, in ms."""
        return self._estimate(share, lambda ours, _: ours)

    def beyond(self, share: float, *, ratio: float, slack_ms: float) -> Estimate:
        """Candidate less what the incumbent allows, max(incumbent x ratio, incumbent + slack_ms), in ms. Above 0 is too slow."""
        return self._estimate(share, lambda ours, theirs: ours - np.maximum(theirs * ratio, theirs + slack_ms))

    def incumbent_ms(self, share: float) -> float:
        """The latency that this share of the incumbent's answers kept."""
        return float(self._found[share][1])

    def _estimate(self, share: float, combine: Callable[[Values, Values], Values]) -> Estimate:
        value = float(combine(*self._found[share][:, np.newaxis])[0])
        levels = percentiles(self._count, share, self._error)
        spans = [_span(np.sort(combine(*drawn)), *levels) for drawn in self._drawn[share]]
        # The value itself is always inside: a skewed resample may lie on one side of it.
        low, high = np.min([value, *(span[0] for span in spans)]), np.max([value, *(span[1] for span in spans)])  # NaN stays NaN
        return Estimate(value, Bounds(float(low), float(high), 100 * (1 - self._error)))


def percentiles(count: int, share: float, error: float) -> tuple[float, float]:
    """
    At which percentiles (0 to 1) of the resampled quantile its bounds lie; NaN where no latency of the sample is far enough out.

    The order statistic that bounds the quantile with this error is known exactly for uncorrelated latencies, and so is how often a resample
    comes out at or below it.
    """
    lowest = int(binom.ppf(error, count, share))  # P(fewer latencies than this are below the quantile) <= error
    highest = int(binom.ppf(1 - error, count, share)) + 1
    low = math.nan if lowest < 1 else _between(count, share, lowest)
    high = math.nan if highest > count else _between(count, share, highest)
    return low, high


def _between(count: int, share: float, order: int) -> float:
    """Half-way between the shares of resamples whose quantile is below the `order`-th smallest latency, and below the next one."""
    needed = _rank(count, share) + 1
    below, not_above = (float(binom.sf(needed - 1, count, each / count)) for each in (order - 1, order))
    return (below + not_above) / 2


def _rank(count: int, share: float) -> int:
    """Where the quantile stands in a sorted sample, from 0: the smallest latency that at least this share of the answers kept."""
    return max(0, math.ceil(round(count * share, 9)) - 1)


def _span(resampled: Values, low: float, high: float) -> tuple[float, float]:
    last = len(resampled) - 1
    return (
        -math.inf if math.isnan(low) else float(resampled[int(low * last)]),
        math.inf if math.isnan(high) else float(resampled[math.ceil(high * last)]),
    )


def _drawn(values: Values, ranks: Sequence[int], block_length: int) -> Values:
    """Quantiles of resamples, shape (arms, resamples, ranks), from blocks that begin anywhere and go on from the end to the beginning."""
    random, count = np.random.default_rng(_SEED), values.shape[1]
    found = []
    for positions in np.array_split(np.arange(RESAMPLE_COUNT), math.ceil(RESAMPLE_COUNT * count / _CHUNK)):
        starts = random.integers(count, size=(len(positions), math.ceil(count / block_length), 1))
        rows = ((starts + np.arange(block_length)) % count).reshape(len(positions), -1)[:, :count]
        found.append(np.partition(values[:, rows], ranks, axis=2)[:, :, ranks])
    return np.concatenate(found, axis=1)
