"""How fast resident memory grows with the requests answered, with bounds that allow for memory that wanders."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

from interlock.control.gates.quantiles import Estimate
from interlock.model.verdict import Bounds

WARM_UP_SHARE = 0.2  # of the requests: caches fill, the allocator takes its first arenas. A leak does not stop there
BLOCK_COUNT = 16  # readings next to each other say nearly the same; their mean says it once
LEAST_READING_COUNT = 8  # after the warm-up
_STRONGEST_CORRELATION = 0.9  # of 16 blocks no more can be told

Values = NDArray[np.float64]


def growth_per_1000_requests(requests: Sequence[float], mib: Sequence[float], *, request_count: int, error: float) -> Estimate | None:
    """
    The median of the slopes between any two blocks of readings (Theil-Sen), in MiB per 1,000 requests, or None from too few readings.

    What is left out as warm-up is a fixed share of the requests, not what looks like it: a leak would look like it too. Neighbouring
    blocks that lie on the same side of the line are fewer observations than they seem; the bounds are then those of so many fewer.
    """
    kept = [(at, value) for at, value in zip(requests, mib, strict=True) if at >= request_count * WARM_UP_SHARE]
    if len(kept) < LEAST_READING_COUNT or not all(math.isfinite(value) for _, value in kept):
        return None
    thousands, values = _block_means(np.array(kept, dtype=np.float64))
    if len(np.unique(thousands)) < 2:
        return None
    slope, intercept, low, high = (float(each) for each in theilslopes(values, thousands, alpha=1 - 2 * error))
    wider = _inflation(values - slope * thousands - intercept)
    from_end_to_end = (values[-1] - values[0]) / (thousands[-1] - thousands[0])  # a median is blind to a few large steps
    highest = max(slope + wider * max(0.0, high - slope), float(from_end_to_end))
    bounds = Bounds(slope - wider * max(0.0, slope - low), highest, 100 * (1 - error))
    return Estimate(slope, bounds)


def _block_means(readings: Values) -> tuple[Values, Values]:
    """Thousands of requests and MiB, each the mean of neighbouring readings."""
    blocks = np.array_split(readings, min(BLOCK_COUNT, len(readings)))
    means = np.array([block.mean(axis=0) for block in blocks])
    return means[:, 0] / 1000, means[:, 1]


def _inflation(residuals: Values) -> float:
    """How many times as wide the bounds are when neighbours are alike: the square root of how many observations count for one."""
    spread = float(residuals @ residuals)
    if spread == 0:
        return 1.0
    centred = residuals - residuals.mean()
    seen = float(centred[1:] @ centred[:-1]) / max(float(centred @ centred), 1e-12)
    unbiased = seen + (1 + 4 * seen) / len(residuals)  # a line fitted to so few points takes some of the correlation away
    correlation = min(max(unbiased, 0.0), _STRONGEST_CORRELATION)
    return math.sqrt((1 + correlation) / (1 - correlation))
