"""
The release profile: every number that changes a decision, typed and without defaults.

A profile is read in one screen: no inheritance, no includes. A looser number is a reviewed change of a file in profiles/.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from interlock.model.plane import ALL_TRAFFIC_BPS

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
NonNegativeFloat = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(gt=0, lt=1)]
Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
PositiveInt = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.\-]*$", max_length=120)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _refuse_twins(kind: str, names: Sequence[str]) -> None:
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{kind} {', '.join(twins)} is named more than once")


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
        _refuse_twins("metric", [metric.name for metric in self.metrics])
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
        _refuse_twins("column", self.columns)
        if self.max_row_count < self.min_row_count:
            raise ValueError(f"max_row_count {self.max_row_count} is below min_row_count {self.min_row_count}: no data could be enough")
        if self.max_single_column_distance < self.max_column_distance:
            raise ValueError("max_single_column_distance is below max_column_distance: one drifted column would already fail")
        return self


class Gates(_Strict):
    """The four blocking gates. None can be left out."""

    evaluation: Evaluation
    latency: Latency
    memory: Memory
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
    """The judge's error budget and tolerances. The four weights share alpha and must sum to 1."""

    alpha: Annotated[FiniteFloat, Field(gt=0, le=0.1)]
    beta: Annotated[FiniteFloat, Field(gt=0, le=0.2)]
    restart_window_seconds: PositiveFloat
    pair_deadline_seconds: PositiveFloat
    max_missing_percent: Percent
    divergence: Divergence
    errors: Errors
    p50: Quantile
    p99: Quantile
    slo: Slo

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        total = self.divergence.weight + self.errors.weight + self.p50.weight + self.p99.weight
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the weights of divergence, errors, p50 and p99 sum to {total:g}, must sum to 1")
        return self


class Canary(_Strict):
    """Shadow, then weight steps that climb, then the bake at all traffic; the lease on the candidate's share."""

    shadow_seconds: PositiveFloat
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    bake_seconds: PositiveFloat
    lease_seconds: Annotated[FiniteFloat, Field(ge=3, le=60)]
    max_evidence_gap_seconds: PositiveFloat

    @model_validator(mode="after")
    def _weights_climb(self) -> Self:
        weights = [step.weight_bps for step in self.steps]
        if any(later <= earlier for earlier, later in itertools.pairwise(weights)):
            raise ValueError(f"canary weights must climb strictly, got {weights} basis points")
        return self


class ReleaseProfile(_Strict):
    """One release policy, whole."""

    schema_version: Literal["release-profile/v1"]
    name: Name
    description: Annotated[str, Field(min_length=10)]
    output_type: Literal["label", "probability", "regression"]
    regression_scale: PositiveFloat | None  # a difference this large counts as full divergence; null unless output_type is regression
    serving: Serving
    gates: Gates
    canary: Canary
    judge: Judge
    recovery_time_objective_seconds: Annotated[FiniteFloat, Field(gt=0, le=300)]

    @model_validator(mode="after")
    def _scale_fits_the_output(self) -> Self:
        if (self.output_type == "regression") != (self.regression_scale is not None):
            raise ValueError(f"regression_scale is {self.regression_scale}: give a number for output_type regression, null for any other")
        return self
