"""What a release profile says about the gates. See profiles/README.md for what each number means to its gate."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, FiniteFloat, model_validator

from interlock.profile.strict import Name, NonNegativeFloat, Percent, PositiveFloat, PositiveInt, refuse_twins
from interlock.profile.strict import Strict as _Strict

Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Address: TypeAlias = Annotated[str, Field(min_length=1, max_length=1000)]
# The bounds of a metric stand on resamples of its rows; those of fewer rows look narrower than they are.
BoundableRowCount: TypeAlias = Annotated[int, Field(ge=100)]
MetricName: TypeAlias = Literal[
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "mean_absolute_error",
    "root_mean_squared_error",
    "r2",
    "distance_to_label",
]
HIGHER_IS_BETTER = frozenset({"roc_auc", "average_precision", "accuracy", "precision", "recall", "f1", "r2"})


class Artifact(_Strict):
    """
    What the files of a version may hold before anything of them is loaded.

    allowed_modules: roots of the modules whose names its pickles may carry (`sklearn` allows `sklearn.tree`); another one is refused.
    max_code_severity: what bandit may find in Python files that came with the version, at worst.
    requirements: how far a pinned requirement of the version may be from what the serving environment has installed.
    """

    allowed_modules: Annotated[tuple[Name, ...], Field(min_length=1)]
    max_code_severity: Literal["none", "low", "medium"]
    requirements: Literal["same_version", "same_minor", "same_major"]

    @model_validator(mode="after")
    def _each_module_once(self) -> Self:
        refuse_twins("module", self.allowed_modules)
        return self


class Floor(_Strict):
    """One offline metric and its absolute limit."""

    name: MetricName
    better: Literal["lower", "higher"]
    limit: FiniteFloat

    @model_validator(mode="after")
    def _direction_fits(self) -> Self:
        natural = "higher" if self.name in HIGHER_IS_BETTER else "lower"
        if self.better != natural:
            raise ValueError(f"metric {self.name} is better when {natural}; the profile says {self.better}")
        return self


class Metric(Floor):
    """A metric that is also held to how much worse than the incumbent's the candidate's may be on the same rows."""

    max_worse_than_incumbent: NonNegativeFloat


class Slice(_Strict):
    """
    A column whose values part the rows, and the metric that is judged in every named part and in the worst of all.

    A named value with fewer than `min_row_count` rows decides nothing good: INCONCLUSIVE.
    """

    column: Name
    values: Annotated[tuple[str | int | float, ...], Field(min_length=1, max_length=50)]
    min_row_count: BoundableRowCount
    metric: Metric

    @model_validator(mode="after")
    def _each_value_once(self) -> Self:
        refuse_twins(f"value of {self.column}", self.values)
        return self


class Evaluation(_Strict):
    """
    The labelled rows and the metrics of the evaluation gate.

    data: a Parquet or CSV file relative to the data directory, s3://bucket/key, or runs:/RUN_ID/NAME, a dataset that MLflow logged.
    data_sha256: of exactly its bytes. Other bytes are refused: new rows are a reviewed change of this profile.
    """

    data: Address
    data_sha256: Sha256
    label_column: Name
    min_row_count: BoundableRowCount
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]
    slices: tuple[Slice, ...]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        refuse_twins("metric", [metric.name for metric in self.metrics])
        refuse_twins("slice", [part.column for part in self.slices])
        return self


class Parity(_Strict):
    """
    How exactly the served candidate must answer as it does offline.

    row_count: rows of the evaluation data. batch_row_count: how many of them a batch holds; each row is also asked alone.
    max_difference: of two numbers, absolute and relative to the larger one; anything else must be equal.
    """

    row_count: Annotated[int, Field(ge=20, le=5000)]
    batch_row_count: Annotated[int, Field(ge=2, le=1000)]
    max_difference: Annotated[FiniteFloat, Field(ge=0, le=0.001)]

    @model_validator(mode="after")
    def _two_batches(self) -> Self:
        if self.batch_row_count * 2 > self.row_count:
            raise ValueError(
                f"batch_row_count {self.batch_row_count} is more than half of row_count {self.row_count}: no row changes batch"
            )
        return self


class LatencyLimit(_Strict):
    """A latency quantile's limits: absolute, and against the incumbent (ratio or slack, whichever allows more)."""

    max_ms: PositiveFloat
    max_ratio_to_incumbent: Annotated[FiniteFloat, Field(ge=1)]
    slack_ms: NonNegativeFloat


class Latency(_Strict):
    """The load of the latency gate, on candidate and incumbent in turn, and the limits on p50, p95 and p99."""

    request_count: Annotated[int, Field(ge=100)]
    warm_up_request_count: Annotated[int, Field(ge=0)]
    requests_per_second: PositiveFloat
    p50: LatencyLimit
    p95: LatencyLimit
    p99: LatencyLimit


class Memory(_Strict):
    """
    Resident memory of the candidate's server while it serves `request_count` requests at a rate, as the incumbent's does beside it.

    max_resident_mib and max_ratio_to_incumbent limit the peak since the server's start; the growth over the soak is limited absolutely and
    beyond the incumbent's.
    """

    request_count: Annotated[int, Field(ge=10)]
    requests_per_second: PositiveFloat
    max_resident_mib: PositiveFloat
    max_ratio_to_incumbent: Annotated[FiniteFloat, Field(ge=1)]
    max_growth_mib_per_1000_requests: PositiveFloat
    max_growth_above_incumbent_mib_per_1000_requests: PositiveFloat


class NumberColumn(_Strict):
    """
    A column of numbers: how far it may move, and within which range it must lie.

    drift_distance: beyond it the column counts as drifted. max_distance: beyond it the gate fails by this column alone.
    """

    name: Name
    kind: Literal["number"]
    method: Literal["wasserstein", "jensenshannon", "psi", "hellinger", "kl_div"]
    drift_distance: PositiveFloat
    max_distance: PositiveFloat
    max_null_percent: Percent
    minimum: FiniteFloat
    maximum: FiniteFloat
    max_outside_percent: Percent

    @model_validator(mode="after")
    def _can_be_satisfied(self) -> Self:
        _refuse_inverted(self.name, self.drift_distance, self.max_distance)
        if self.minimum >= self.maximum:
            raise ValueError(f"column {self.name}: minimum {self.minimum:g} is not below maximum {self.maximum:g}")
        return self


class CategoryColumn(_Strict):
    """
    A column of categories (text, booleans, small numbers): how far their shares may move, and which there may be.

    categories: null takes those of the reference. max_outside_percent: of current rows with another one.
    """

    name: Name
    kind: Literal["category"]
    method: Literal["jensenshannon", "psi", "hellinger", "kl_div"]
    drift_distance: PositiveFloat
    max_distance: PositiveFloat
    max_null_percent: Percent
    categories: Annotated[tuple[str | int | float | bool, ...], Field(min_length=1)] | None
    max_outside_percent: Percent

    @model_validator(mode="after")
    def _can_be_satisfied(self) -> Self:
        _refuse_inverted(self.name, self.drift_distance, self.max_distance)
        return self


Column: TypeAlias = Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")]


class PredictionDrift(_Strict):
    """How far the candidate's answers to the current rows may lie from those to its reference."""

    method: Literal["wasserstein", "jensenshannon", "psi", "hellinger", "kl_div"]
    max_distance: PositiveFloat


class Drift(_Strict):
    """
    How far production inputs may have moved from what the candidate was trained on.

    reference: an address as of `evaluation.data`, or candidate:training, the dataset that the candidate's own run logged so.
    current: an address, or journal:SECONDS, the inputs that users have sent in so many seconds.
    sample_row_count: null measures every row; a number draws so many of each side, with a seed from the data's digest.
    max_drifted_share: of the columns. max_null_percent and ranges are checked on every row before any distance is taken.
    """

    reference: Address
    current: Address
    min_row_count: PositiveInt
    sample_row_count: PositiveInt | None
    max_drifted_share: Annotated[FiniteFloat, Field(ge=0, lt=1)]
    prediction: PredictionDrift
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _can_be_satisfied(self) -> Self:
        refuse_twins("column", [column.name for column in self.columns])
        if self.sample_row_count is not None and self.sample_row_count < self.min_row_count:
            raise ValueError(f"sample_row_count {self.sample_row_count} is below min_row_count {self.min_row_count}")
        return self


class Disagreement(_Strict):
    """
    How many rows of the evaluation data the incumbent answers twice and the candidate once, before any user is exposed.

    The limit is `judge.divergence.tolerance`, the confidence 1 - `judge.beta`: as in the canary.
    """

    request_count: Annotated[int, Field(ge=50, le=500)]


class Gates(_Strict):
    """The blocking gates with numbers of their own; readiness, traffic and liveness follow from the rest. None can be left out."""

    artifact: Artifact
    evaluation: Evaluation
    parity: Parity
    latency: Latency
    memory: Memory
    disagreement: Disagreement
    drift: Drift


class Bootstrap(_Strict):
    """
    What the first version of a model must show before it is adopted: artifact and drift as any candidate, and these limits on its metrics.

    There is nothing to compare it with, so the limits should be stricter than a candidate's.
    """

    metrics: Annotated[tuple[Floor, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_metric_once(self) -> Self:
        refuse_twins("metric", [metric.name for metric in self.metrics])
        return self


def _refuse_inverted(name: str, drift_distance: float, max_distance: float) -> None:
    if max_distance < drift_distance:
        raise ValueError(f"column {name}: max_distance {max_distance:g} is below drift_distance {drift_distance:g}")
