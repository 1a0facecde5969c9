"""How much candidate and incumbent differ on the labelled rows: the envelope that the canary's tolerance is derived from. Never judged."""

import math
from collections.abc import Sequence

import numpy as np

from interlock.control.gates.metrics import Numbers
from interlock.control.gates.offline import worst_of
from interlock.control.gates.resampling import BETA, CONFIDENCE_PERCENT
from interlock.control.gates.slices import Part
from interlock.judge.bounds import mean_bounds
from interlock.model.verdict import Bounds, Measurement

LARGEST = "largest_segment_disagreement"


def measure_envelope(between: Numbers, parts: Sequence[Part]) -> Sequence[Measurement]:
    """
    The mean D of all rows, of each part, and the largest of these, with bounds (Chernoff); no limit.

    between: D of each row, NaN where it cannot be told; a part with such a row has no value.
    """
    whole = _mean("mean_disagreement", between)
    each = [_mean(f"disagreement of {part.name}", between[part.rows]) for part in parts if len(part.rows)]
    return (whole, *each, worst_of(LARGEST, [whole, *each], min_sample_count=1))


def envelope_remark(measurements: Sequence[Measurement], tolerance: float) -> str | None:
    """What to say when the canary would see more than it tolerates."""
    largest = next((m.value for m in measurements if m.name == LARGEST), None)
    if largest is None or largest <= tolerance:
        return None
    where = next(m.name for m in measurements if m.value == largest)
    return (
        f"candidate and incumbent differ by {largest:.4g} ({where}), the canary tolerates {tolerance:g}: it would halt this candidate; "
        f"find out why they differ, or derive judge.divergence.tolerance from this number"
    )


def _mean(name: str, between: Numbers) -> Measurement:
    value = float(np.mean(between))
    bounds = mean_bounds(value, len(between), beta=BETA) if math.isfinite(value) else None
    shown = Bounds(*bounds, CONFIDENCE_PERCENT) if bounds else None
    return Measurement(name, value if shown else None, math.nan, "lower", "", len(between), 1, shown)
