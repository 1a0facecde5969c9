"""
The release profile: every number that changes a decision, typed and without defaults.

A profile is read in one screen: no inheritance, no includes. A looser number is a reviewed change of a file in profiles/.
"""

import itertools
import math
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from interlock.model.plane import ALL_TRAFFIC_BPS, CandidateLimits
from interlock.profile.gates import Bootstrap, Gates
from interlock.profile.output import Output
from interlock.profile.strict import Name, NonNegativeFloat, Percent, PositiveFloat, PositiveInt, Share, refuse_twins
from interlock.profile.strict import Strict as _Strict

LATENCY_LOOK_COUNT = 2  # the latency gate may look twice; each look has half of judge.beta, so that two err no more often than one


class Serving(_Strict):
    """How a model version is served. Deadlines of requests are the plane's: `plane/envoy_settings.py`."""

    server: Literal["interlock", "mlflow"]
    thread_count: PositiveInt
    start_deadline_seconds: PositiveFloat


class Step(_Strict):
    """One canary step: the candidate's share of live requests in basis points, and how long it is observed there."""

    weight_bps: Annotated[int, Field(gt=0, lt=ALL_TRAFFIC_BPS)]
    bake_seconds: PositiveFloat


class Divergence(_Strict):
    """How much the candidate's answers may differ from the incumbent's on the same inputs (mean D in [0, 1])."""

    tolerance: Share
    weight: Share


class Bias(_Strict):
    """How far the candidate's answers may lie above or below the incumbent's on average, as a share of the output's scale."""

    tolerance: Share
    weight: Share


class Segment(_Strict):
    """
    A part of the traffic that clients name in the header `interlock-segment`, and how much its answers may differ.

    With a weight of 0 it is shown and decides nothing; otherwise it halts, and a PASS needs proof for it as well.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    tolerance: Share
    weight: Annotated[FiniteFloat, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _can_arrive_in_a_header(self) -> Self:
        if self.name != self.name.strip() or len(self.name.encode()) > 64:
            raise ValueError(f"segment {self.name!r} can never match: no space at its ends, and at most 64 bytes of UTF-8")
        return self


class Errors(_Strict):
    """Candidate error share <= `incumbent_ratio` x incumbent error share + `tolerance`."""

    tolerance: Share
    incumbent_ratio: Annotated[FiniteFloat, Field(ge=1)]
    weight: Share


class Quantile(_Strict):
    """Candidate quantile <= max((1 + tolerance_ratio) x incumbent quantile, incumbent quantile + slack_ms)."""

    tolerance_ratio: NonNegativeFloat
    slack_ms: NonNegativeFloat
    weight: Share


class Slo(_Strict):
    """Hard ceilings on the candidate alone, whatever the incumbent does."""

    max_error_percent: Percent
    max_p99_ms: PositiveFloat
    min_sample_count: PositiveInt


class Judge(_Strict):
    """
    The judge's error budget and tolerances. The weights share alpha and must sum to 1.

    unit: what is randomised, and so what is counted: each request, or each key of the header `interlock-key` where
        a router in front of this plane keeps a customer on one arm (the plane itself draws anew for each request).
    """

    alpha: Annotated[FiniteFloat, Field(gt=0, le=0.1)]
    beta: Annotated[FiniteFloat, Field(gt=0, le=0.2)]
    restart_window_seconds: PositiveFloat
    pair_deadline_seconds: PositiveFloat
    max_missing_percent: Percent
    unit: Literal["request", "key"]
    divergence: Divergence
    bias: Bias | None  # a number for regression, null for any other output
    segments: tuple[Segment, ...]
    errors: Errors
    p50: Quantile
    p99: Quantile
    slo: Slo

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        named = (self.divergence, self.errors, self.p50, self.p99, *((self.bias,) if self.bias else ()), *self.segments)
        total = math.fsum(signal.weight for signal in named)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the weights of divergence, errors, p50, p99, bias and segments sum to {total:g}, must sum to 1")
        refuse_twins("segment", [segment.name for segment in self.segments])
        return self


class Canary(_Strict):
    """Shadow, then weight steps that climb, then the bake at all traffic; the lease on the candidate's share."""

    shadow_seconds: PositiveFloat
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=10)]
    bake_seconds: PositiveFloat
    lease_seconds: Annotated[FiniteFloat, Field(ge=3, le=60)]
    max_evidence_gap_seconds: PositiveFloat

    @model_validator(mode="after")
    def _weights_climb(self) -> Self:
        weights = [step.weight_bps for step in self.steps]
        if any(later <= earlier for earlier, later in itertools.pairwise(weights)):
            raise ValueError(f"canary weights must climb strictly, got {weights} basis points")
        return self


class Limits(_Strict):
    """
    What the fuse enforces by itself on the candidate, over 5 s of its answers: the last resort, coarser than the judge in everything.

    error_percent counts only requests that the incumbent can answer; resident_mib is the whole session of the candidate's server.
    """

    error_percent: Annotated[FiniteFloat, Field(gt=0, lt=100)]
    p99_ms: PositiveFloat
    min_sample_count: PositiveInt
    resident_mib: PositiveFloat

    def for_plane(self) -> CandidateLimits:
        """The same as the traffic plane takes it."""
        return CandidateLimits(self.error_percent, self.p99_ms, self.min_sample_count, self.resident_mib)


class ReleaseProfile(_Strict):
    """One release policy, whole."""

    schema_version: Literal["release-profile/v1"]
    name: Name
    description: Annotated[str, Field(min_length=10)]
    output: Output
    serving: Serving
    gates: Gates
    bootstrap: Bootstrap
    canary: Canary
    judge: Judge
    limits: Limits
    recovery_time_objective_seconds: Annotated[FiniteFloat, Field(gt=0, le=300)]

    @model_validator(mode="after")
    def _bias_is_for_quantities(self) -> Self:
        if (self.output.type == "regression") != (self.judge.bias is not None):
            raise ValueError(f"judge.bias is {self.judge.bias}: give a tolerance for output type regression, null for any other")
        return self

    @model_validator(mode="after")
    def _probabilities_are_calibrated(self) -> Self:
        if self.output.type == "probability" and all(metric.name != "calibration_error" for metric in self.gates.evaluation.metrics):
            raise ValueError("gates.evaluation.metrics has no calibration_error: who serves probabilities has to limit it")
        return self

    @model_validator(mode="after")
    def _p99_can_be_bounded(self) -> Self:
        beta, count = self.judge.beta, self.gates.latency.request_count
        fewest = math.ceil(math.log(beta / LATENCY_LOOK_COUNT) / math.log(0.99))  # below it not even the slowest answer is a bound
        if count < fewest:
            raise ValueError(f"gates.latency.request_count {count} cannot bound a p99 with judge.beta {beta:g}: give it {fewest} or more")
        return self

    @model_validator(mode="after")
    def _limits_are_the_last_resort(self) -> Self:
        slo, memory, limits = self.judge.slo, self.gates.memory, self.limits
        for name, limit, finer, owner in (
            ("error_percent", limits.error_percent, slo.max_error_percent, "judge.slo.max_error_percent"),
            ("p99_ms", limits.p99_ms, slo.max_p99_ms, "judge.slo.max_p99_ms"),
            ("resident_mib", limits.resident_mib, memory.max_resident_mib, "gates.memory.max_resident_mib"),
        ):
            if limit <= finer:
                raise ValueError(f"limits.{name} {limit:g} must be above {owner} {finer:g}: the fuse is the last to act, not the first")
        return self
