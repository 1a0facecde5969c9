"""
Errors where the plane cannot mirror: one arm sees each request, chosen by a known random split.

The inverse-probability form. Cumulative two-arm rates are wrong across a weight ramp (A/A with drifting errors: 18 % to 86 % false
halts); weighing each error by its arm's own probability at that moment makes every request's datum unbiased.
"""

from dataclasses import dataclass

import numpy as np

from interlock.errors import PolicyError
from interlock.judge.eprocess import fail_bets, log_mixture_restarting
from interlock.judge.grids import Floats


@dataclass(frozen=True, slots=True)
class UnpairedPolicy:
    """
    The null p_candidate <= incumbent_ratio * p_incumbent + tolerance, and the split's planned range.

    least_share, most_share: the smallest and largest candidate share c of any step of the plan, in (0, 1); they bound the datum.
    """

    tolerance: float
    incumbent_ratio: float
    least_share: float
    most_share: float
    planned_window_count: int

    def __post_init__(self) -> None:
        if not 0 < self.least_share <= self.most_share < 1:
            raise PolicyError(f"unpaired errors: candidate share {self.least_share:g} to {self.most_share:g}, needs to lie inside 0 to 1")


def log_e_unpaired_errors(windows: Floats, shares: Floats, counts: Floats, *, policy: UnpairedPolicy) -> float:
    """
    Log e-value against the null, from phi = A Y / c - r (1 - A) Y / (1 - c) of every request.

    Args:
        windows: shape (w,), strictly increasing.
        shares: shape (w,), the split c that was asked for in that window: one step a window.
        counts: shape (w, 3): errors of candidate requests, errors of incumbent requests, requests without an error.
    Raises:
        PolicyError: a share lies outside the planned range, so the bets could lose more than they have.
    """
    if shares.size and not (policy.least_share <= shares.min() and shares.max() <= policy.most_share):
        raise PolicyError(f"unpaired errors: shares {shares.min():g} to {shares.max():g} lie outside the planned range")
    low, high = -policy.incumbent_ratio / (1 - policy.most_share), 1 / policy.least_share
    bets = fail_bets(policy.tolerance, low=low, high=high)
    points = np.stack([1 / shares, -policy.incumbent_ratio / (1 - shares), np.zeros_like(shares)], axis=1)
    growth = (counts[..., None] * bets.log_factors(points)).sum(axis=1)
    return log_mixture_restarting(growth, windows, bets=bets, planned_window_count=policy.planned_window_count)
