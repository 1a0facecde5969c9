"""What the judge may tolerate and how sure it must be. Filled from the release profile; nothing here has a default."""

import math
from dataclasses import dataclass, fields

from interlock.errors import PolicyError

WEIGHT_SUM_SLACK = 1e-9

# The absolute SLO joins the same weighted sum as the four relative signals, so that law 2 (P(ever halting | within tolerance)
# <= alpha) holds over all of them. 2 % moves their halting lines by 0.02 nats; a hard breach needs a handful of samples more.
SLO_WEIGHT = 0.02

_MIN_TOLERANCE = 1e-4  # far above the 2e-6 quantum of the divergence grid, far below any tolerance that traffic can decide


@dataclass(frozen=True, slots=True)
class SignalPolicy:
    """One relative signal: its share of the halting sum (`weight`, the four sum to 1) and its tolerance, in the unit of the signal."""

    name: str
    weight: float
    tolerance: float

    @property
    def sum_weight(self) -> float:
        """The weight in the halting sum, after the absolute SLO took its share."""
        return self.weight * (1 - SLO_WEIGHT)


@dataclass(frozen=True, slots=True)
class LatencyTolerance:
    """How much slower the candidate's quantile may be: g(y) = max((1 + ratio) y, y + slack_ms), increasing in y."""

    ratio: float
    slack_ms: float


@dataclass(frozen=True, slots=True)
class JudgePolicy:
    """
    The whole policy of one canary.

    alpha: bound on P(ever halting | everything within tolerance), over all signals and looks together. beta: bound on a false PASS.
    window_seconds: how often the late-onset processes restart. planned_seconds: planned length of the canary, for spreading the restarts.
    divergence_is_binary: every D is 0 or 1 (labels): PASS by the exact binomial. False (scores): PASS by the e-process. It is declared
        here, before the canary, because choosing the test after seeing the data would spend beta twice.
    error tolerance: null is p_candidate <= error_incumbent_ratio * p_incumbent + error_tolerance.
    max_missing_share: above this share of lost pairs there is no verdict (exclusive). The slo_* fields are ceilings on the candidate alone.

    Raises:
        PolicyError: a number is not finite, out of its range, or the weights do not sum to 1.
    """

    alpha: float
    beta: float
    window_seconds: float
    planned_seconds: float
    divergence_tolerance: float
    divergence_weight: float
    divergence_is_binary: bool
    error_tolerance: float
    error_incumbent_ratio: float
    error_weight: float
    p50_tolerance_ratio: float
    p50_slack_ms: float
    p50_weight: float
    p99_tolerance_ratio: float
    p99_slack_ms: float
    p99_weight: float
    max_missing_share: float
    slo_max_error_share: float
    slo_max_p99_ms: float
    slo_min_sample_count: int

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_ranges(self)
        _check_together(self)

    @property
    def divergence(self) -> SignalPolicy:
        """Mean divergence of the pairs, in [0, 1]."""
        return SignalPolicy("divergence", self.divergence_weight, self.divergence_tolerance)

    @property
    def errors(self) -> SignalPolicy:
        """Paired excess error share."""
        return SignalPolicy("errors", self.error_weight, self.error_tolerance)

    @property
    def p50(self) -> SignalPolicy:
        """Median latency."""
        return SignalPolicy("p50", self.p50_weight, self.p50_tolerance_ratio)

    @property
    def p99(self) -> SignalPolicy:
        """99th percentile of latency."""
        return SignalPolicy("p99", self.p99_weight, self.p99_tolerance_ratio)

    @property
    def p50_slower(self) -> LatencyTolerance:
        """How much slower the median may be."""
        return LatencyTolerance(self.p50_tolerance_ratio, self.p50_slack_ms)

    @property
    def p99_slower(self) -> LatencyTolerance:
        """How much slower the 99th percentile may be."""
        return LatencyTolerance(self.p99_tolerance_ratio, self.p99_slack_ms)

    @property
    def planned_window_count(self) -> int:
        """Restart windows in the planned canary, at least 1."""
        return max(1, math.ceil(self.planned_seconds / self.window_seconds))


def _check_numbers(policy: JudgePolicy) -> None:
    for field in fields(policy):
        value = getattr(policy, field.name)
        if field.name == "divergence_is_binary":
            if not isinstance(value, bool):
                raise PolicyError(f"judge policy: divergence_is_binary is {value!r}, needs true or false")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise PolicyError(f"judge policy: {field.name} is {value!r}, needs a finite number")
    if not isinstance(policy.slo_min_sample_count, int):
        raise PolicyError(f"judge policy: slo_min_sample_count is {policy.slo_min_sample_count!r}, needs a whole number")


def _check_ranges(policy: JudgePolicy) -> None:
    ranges = {  # inclusive bounds
        "alpha": (1e-9, 0.5),
        "beta": (1e-9, 0.5),
        "window_seconds": (0.1, 86_400.0),
        "planned_seconds": (0.1, 366 * 86_400.0),
        "divergence_tolerance": (_MIN_TOLERANCE, 0.99),
        "error_tolerance": (_MIN_TOLERANCE, 0.99),
        "error_incumbent_ratio": (0.0, 10.0),
        "p50_tolerance_ratio": (0.0, 100.0),
        "p50_slack_ms": (0.0, 1e6),
        "p99_tolerance_ratio": (0.0, 100.0),
        "p99_slack_ms": (0.0, 1e6),
        "max_missing_share": (0.0, 0.99),
        "slo_max_error_share": (_MIN_TOLERANCE, 0.99),
        "slo_max_p99_ms": (0.1, 9e5),  # the latency grid ends at 1e6 ms
        "slo_min_sample_count": (1, 10**9),
    }
    for name, (low, high) in ranges.items():
        value = getattr(policy, name)
        if not low <= value <= high:
            raise PolicyError(f"judge policy: {name} is {value:g}, needs {low:g} to {high:g}")


def _check_together(policy: JudgePolicy) -> None:
    signals = (policy.divergence, policy.errors, policy.p50, policy.p99)
    for signal in signals:
        if signal.weight <= 0:
            raise PolicyError(f"judge policy: weight of {signal.name} is {signal.weight:g}, needs more than 0, or it can never halt")
    total = math.fsum(signal.weight for signal in signals)
    if abs(total - 1) > WEIGHT_SUM_SLACK:
        raise PolicyError(f"judge policy: the weights sum to {total:.12g}, need 1, or the bound on false halts does not hold")
    if policy.planned_seconds < policy.window_seconds:
        raise PolicyError(f"judge policy: planned {policy.planned_seconds:g} s is shorter than one window of {policy.window_seconds:g} s")
    for name, slower in (("p50", policy.p50_slower), ("p99", policy.p99_slower)):
        if slower.ratio == 0 and slower.slack_ms == 0:
            raise PolicyError(f"judge policy: {name} tolerates nothing, so no traffic can prove it; set a ratio or a slack")
