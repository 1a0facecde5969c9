"""What the judge may tolerate and how sure it must be. Filled from the release profile; nothing here has a default."""

import math
from dataclasses import dataclass, fields

from interlock.errors import PolicyError

WEIGHT_SUM_SLACK = 1e-9

# The absolute SLO joins the same weighted sum as the four relative signals, so that law 2 (P(ever halting | within tolerance)
# <= alpha) holds over all of them. 2 % moves their halting lines by 0.02 nats; a hard breach needs a handful of samples more.
SLO_WEIGHT = 0.02

SEGMENT_PREFIX = "segment:"
OTHER_SEGMENT = "(other)"  # pairs of no segment that the policy names
MOST_WINDOWS = 20_000  # a day in windows of five seconds; the count table and each look grow with the number of windows
MOST_KEYED_WINDOWS = 64  # in keyed analysis a row is kept for each pair of windows in which a key was seen

_MIN_TOLERANCE = 1e-4  # far above the 2e-6 quantum of the divergence grid, far below any tolerance that traffic can decide


@dataclass(frozen=True, slots=True)
class SignalPolicy:
    """
    One relative signal: its share of the halting sum (`weight`) and its tolerance, in the unit of the signal.

    The weights of all signals of a policy sum to 1. A segment of weight 0 is shown and decides nothing.
    """

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
class StepPlan:
    """One phase as planned: the share of live requests asked for the candidate, in [0, 1], and how long it is held."""

    share: float
    seconds: float


@dataclass(frozen=True, slots=True)
class JudgePolicy:
    """
    The whole policy of one canary.

    alpha: bound on P(ever halting | everything within tolerance), over all signals and looks together. beta: bound on a false PASS.
    window_seconds: how often the late-onset processes restart.
    steps: the phases in the order of their index: shadow, canary steps, and the bake last.
    is_keyed: the unit of analysis is the key (traffic is sticky), not the request.
    divergence_is_binary: every D is 0 or 1 (labels): PASS by the exact binomial. False (scores): PASS by the e-process. It is declared
        here, before the canary, because choosing the test after seeing the data would spend beta twice.
    bias_tolerance: bound on the absolute mean of the signed difference, in (0, 1); None for outputs that are no quantities.
    segments: tolerated divergence of named segments; the weight is 0 for those that are only shown.
    error tolerance: null is p_candidate <= error_incumbent_ratio * p_incumbent + error_tolerance.
    max_missing_share: above this share of lost pairs there is no verdict (exclusive). The slo_* fields are ceilings on the candidate alone.

    Raises:
        PolicyError: a number is not finite, out of its range, or the weights do not sum to 1.
    """

    alpha: float
    beta: float
    window_seconds: float
    steps: tuple[StepPlan, ...]
    is_keyed: bool
    divergence_tolerance: float
    divergence_weight: float
    divergence_is_binary: bool
    bias_tolerance: float | None
    bias_weight: float
    segments: tuple[SignalPolicy, ...]
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
        _check_signals(self)
        _check_windows(self)

    @property
    def divergence(self) -> SignalPolicy:
        """Mean divergence of the pairs, in [0, 1]."""
        return SignalPolicy("divergence", self.divergence_weight, self.divergence_tolerance)

    @property
    def bias(self) -> SignalPolicy | None:
        """Mean signed difference, in [-1, 1]; None when the outputs are no quantities."""
        return None if self.bias_tolerance is None else SignalPolicy("bias", self.bias_weight, self.bias_tolerance)

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
    def relative_signals(self) -> tuple[SignalPolicy, ...]:
        """Every signal that compares the candidate with the incumbent, in the order in which they are shown."""
        bias = (self.bias,) if self.bias is not None else ()
        return (self.divergence, *bias, *self.segments, self.errors, self.p50, self.p99)

    @property
    def segment_names(self) -> tuple[str, ...]:
        """The segments whose pairs are counted apart, without the prefix of their signals."""
        return tuple(segment.name.removeprefix(SEGMENT_PREFIX) for segment in self.segments)

    @property
    def planned_seconds(self) -> float:
        """From the start of the shadow to the end of the bake."""
        return math.fsum(step.seconds for step in self.steps)

    @property
    def planned_window_count(self) -> int:
        """Restart windows in the planned canary, at least 1."""
        return max(1, math.ceil(self.planned_seconds / self.window_seconds))


_NO_NUMBERS = {"steps", "is_keyed", "divergence_is_binary", "bias_tolerance", "segments"}


def _check_numbers(policy: JudgePolicy) -> None:
    for name in ("is_keyed", "divergence_is_binary"):
        if not isinstance(getattr(policy, name), bool):
            raise PolicyError(f"judge policy: {name} is {getattr(policy, name)!r}, needs true or false")
    for name, value in _numbers(policy).items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise PolicyError(f"judge policy: {name} is {value!r}, needs a finite number")
    if not isinstance(policy.slo_min_sample_count, int):
        raise PolicyError(f"judge policy: slo_min_sample_count is {policy.slo_min_sample_count!r}, needs a whole number")


def _numbers(policy: JudgePolicy) -> dict[str, object]:
    named = {field.name: getattr(policy, field.name) for field in fields(policy) if field.name not in _NO_NUMBERS}
    for index, step in enumerate(policy.steps):
        named |= {f"share of step {index}": step.share, f"seconds of step {index}": step.seconds}
    for segment in policy.segments:
        named |= {f"tolerance of {segment.name}": segment.tolerance, f"weight of {segment.name}": segment.weight}
    if policy.bias_tolerance is not None:
        named["bias_tolerance"] = policy.bias_tolerance
    return named


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
    found = [(name, getattr(policy, name), *bounds) for name, bounds in ranges.items()]
    found += [(f"share of step {index}", step.share, 0.0, 1.0) for index, step in enumerate(policy.steps)]
    found += [(f"tolerance of {segment.name}", segment.tolerance, _MIN_TOLERANCE, 0.99) for segment in policy.segments]
    if policy.bias_tolerance is not None:
        found.append(("bias_tolerance", policy.bias_tolerance, _MIN_TOLERANCE, 0.99))
    for name, value, low, high in found:
        if not low <= value <= high:
            raise PolicyError(f"judge policy: {name} is {value:g}, needs {low:g} to {high:g}")


def _check_signals(policy: JudgePolicy) -> None:
    for signal in policy.relative_signals:
        is_shown_only = signal in policy.segments and signal.weight == 0
        if signal.weight <= 0 and not is_shown_only:
            raise PolicyError(f"judge policy: weight of {signal.name} is {signal.weight:g}, needs more than 0, or it can never halt")
    total = math.fsum(signal.weight for signal in policy.relative_signals)
    if abs(total - 1) > WEIGHT_SUM_SLACK:
        raise PolicyError(f"judge policy: the weights sum to {total:.12g}, need 1, or the bound on false halts does not hold")
    if policy.bias_tolerance is None and policy.bias_weight != 0:
        raise PolicyError(f"judge policy: bias has the weight {policy.bias_weight:g} and no tolerance: give both or neither")
    for name, slower in (("p50", policy.p50_slower), ("p99", policy.p99_slower)):
        if slower.ratio == 0 and slower.slack_ms == 0:
            raise PolicyError(f"judge policy: {name} tolerates nothing, so no traffic can prove it; set a ratio or a slack")
    _check_segment_names(policy)


def _check_segment_names(policy: JudgePolicy) -> None:
    if wrong := [segment.name for segment in policy.segments if not segment.name.startswith(SEGMENT_PREFIX)]:
        raise PolicyError(f"judge policy: segment signals are called {SEGMENT_PREFIX}NAME, got {', '.join(wrong)}")
    if OTHER_SEGMENT in policy.segment_names:
        raise PolicyError(f"judge policy: {OTHER_SEGMENT} is the name of all other pairs, it cannot name a segment")
    if len(set(policy.segment_names)) < len(policy.segments):
        raise PolicyError("judge policy: a segment is named twice")


def _check_windows(policy: JudgePolicy) -> None:
    planned, window = policy.planned_seconds, policy.window_seconds
    if planned < window:
        raise PolicyError(f"judge policy: planned {planned:g} s is shorter than one window of {window:g} s")
    most = MOST_KEYED_WINDOWS if policy.is_keyed else MOST_WINDOWS
    if policy.planned_window_count > most:
        why = (
            "keyed analysis keeps a row for each pair of windows" if policy.is_keyed else "each window costs memory and time at every look"
        )
        raise PolicyError(
            f"judge policy: {planned:g} s hold {policy.planned_window_count} windows of {window:g} s, at most {most}, since {why}; "
            f"make them at least {planned / most:.3g} s long"
        )
