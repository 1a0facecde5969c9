"""
How much latency clusters: the design effect of exceeding a quantile, estimated on the incumbent's live answers.

A server that stalls makes the requests behind it slow together; a test that counts each of them as a witness of its own halts good
candidates (11 % at 5 %). The evidence of a latency signal is therefore raised to the power 1 / design effect, which keeps it an e-value.
The estimate begins in the shadow phase, before anything is judged by it, and goes on, since stalls may be rarer than the shadow is long.
"""

import numpy as np

from interlock.judge.grids import Floats
from interlock.judge.tally import Tally

LARGEST = 100.0  # one witness in a hundred: an estimate beyond that says that the windows are too short for the stalls

_WIDTHS = (1, 2, 4)  # windows; stalls are shorter or longer than one window
_LEAST_DIFFERENCES = 10
_LEAST_EXCEEDING = 20  # fewer slow answers than this tell nothing of how they cluster


def design_effect(tally: Tally, quantile: float) -> float | None:
    """
    Variance of the number of answers beyond the quantile over what independent answers would have, at least 1; None: too little seen.

    Each window is compared with the one before it, so that a load which drifts slowly, for both arms alike, does not count as
    clustering. The largest value over several widths is taken.
    """
    cells = tally.steady.held_cells()
    _, _, counts = tally.steady.by_window(cells)
    if not counts.size:
        return None
    held = counts.sum(axis=0).cumsum()
    beyond = counts[:, np.searchsorted(held, quantile * held[-1], side="left") + 1 :].sum(axis=1)
    found = [_at_width(beyond, counts.sum(axis=1), width) for width in _WIDTHS]
    known = [effect for effect in found if effect is not None]
    return float(np.clip(max(known), 1.0, LARGEST)) if known else None


def _at_width(beyond: Floats, total: Floats, width: int) -> float | None:
    groups = beyond.size // width
    hits = beyond[: groups * width].reshape(groups, width).sum(axis=1)
    sizes = total[: groups * width].reshape(groups, width).sum(axis=1)
    share = hits.sum() / sizes.sum() if groups else 0.0
    if groups - 1 < _LEAST_DIFFERENCES or hits.sum() < _LEAST_EXCEEDING or share >= 1:
        return None
    residuals = (hits - share * sizes) / np.sqrt(sizes * share * (1 - share))
    return float(np.mean(np.diff(residuals) ** 2) / 2)
