"""
The release profile: every number that changes a decision, typed and without defaults.

A profile is read in one screen: no inheritance, no includes. A looser number is a reviewed change of a file in profiles/.
"""

import itertools
import math
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from interlock.model.plane import ALL_TRAFFIC_BPS, CandidateLimits
from interlock.profile.output import Output
from interlock.profile.strict import Name, NonNegativeFloat, Percent, PositiveFloat, PositiveInt, Share, refuse_twins
from interlock.profile.strict import Strict as _Strict


class Metric(_Strict):
    """One offline metric: an absolute limit, and how much worse than the incumbent's the candidate's may be on the same rows."""

    name: Literal["roc_auc", "log_loss", "brier", "accuracy", "mean_absolute_error"]
    better: Literal["lower", "higher"]
    limit: FiniteFloat
    max_worse_than_incumbent: NonNegativeFloat

    @model_validator(mode="after")
    def _direction_fits(self) -> Self:
        natural = "higher" if self.name in {"roc_auc", "accuracy"} else "lower"
        if self.better != natural:
            raise ValueError(f"metric {self.name} is better when {natural}; the profile says {self.better}")
        return self


class Evaluation(_Strict):
    """The labelled rows and the metrics of the evaluation gate. `data` is a Parquet or CSV file, relative to the data directory."""

    data: str
    label_column: Name
    min_row_count: PositiveInt
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_metric_once(self) -> Self:
        refuse_twins("metric", [metric.name for metric in self.metrics])
        return self


class LatencyLimit(_Strict):
    """A latency quantile's limits: absolute, and against the incumbent (ratio or slack, whichever allows more)."""

    max_ms: PositiveFloat
    max_ratio_to_incumbent: Annotated[FiniteFloat, Field(ge=1)]
    slack_ms: NonNegativeFloat


class Latency(_Strict):
    """The load of the latency gate, on candidate and incumbent in turn, and the limits on p50 and p99."""

    request_count: Annotated[int, Field(ge=100)]
    warm_up_request_count: Annotated[int, Field(ge=0)]
    requests_per_second: PositiveFloat
    p50: LatencyLimit
    p99: LatencyLimit


class Memory(_Strict):
    """Resident memory of the candidate's server after `request_count` requests."""

    request_count: PositiveInt
    max_resident_mib: PositiveFloat
    max_ratio_to_incumbent: Annotated[FiniteFloat, Field(ge=1)]


class Drift(_Strict):
    """
    Evidently's drift checks between `reference` and `current` rows, and of the predictions on both.

    `max_column_distance` is the normed Wasserstein distance (numbers) above which a column has drifted;
    `max_drifted_share` is the share of columns that may have, and `max_single_column_distance` what no column may exceed: one feature in a
    wrong unit is a small share. Nulls, infinities and stuck columns are counted before Evidently runs.
    """

    reference: str
    current: str
    columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    min_row_count: PositiveInt
    max_row_count: PositiveInt
    max_column_distance: PositiveFloat
    max_drifted_share: Annotated[FiniteFloat, Field(ge=0, lt=1)]
    max_single_column_distance: PositiveFloat
    max_prediction_distance: PositiveFloat
    max_null_percent: Percent

    @model_validator(mode="after")
    def _can_be_satisfied(self) -> Self:
        refuse_twins("column", self.columns)
        if self.max_row_count < self.min_row_count:
            raise ValueError(f"max_row_count {self.max_row_count} is below min_row_count {self.min_row_count}: no data could be enough")
        if self.max_single_column_distance < self.max_column_distance:
            raise ValueError("max_single_column_distance is below max_column_distance: one drifted column would already fail")
        return self


class Disagreement(_Strict):
    """
    How many rows of the evaluation data the incumbent answers twice and the candidate once, before any user is exposed.

    The limit is `judge.divergence.tolerance`, the confidence 1 - `judge.beta`: as in the canary.
    """

    request_count: Annotated[int, Field(ge=50, le=500)]


class Gates(_Strict):
    """The blocking gates with numbers of their own; the sixth, traffic, follows from canary and judge. None can be left out."""

    evaluation: Evaluation
    latency: Latency
    memory: Memory
    disagreement: Disagreement
    drift: Drift


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
