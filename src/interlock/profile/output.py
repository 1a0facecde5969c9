"""
What a model version answers, and how the answers of candidate and incumbent are compared.

One comparator, with the parameters of that comparator and no others. What each of them computes: `interlock.judge.comparators`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from interlock.profile.strict import NonNegativeFloat, PositiveFloat, PositiveInt, Share, Strict, refuse_twins

Costs = tuple[tuple[NonNegativeFloat, ...], ...]


class Differs(Strict):
    """A class label; D is 1 where the labels differ."""

    type: Literal["label"]
    comparator: Literal["differs"]


class CostMatrix(Strict):
    """
    A class label; D is what the candidate's label costs where the incumbent says another.

    `costs[i][j]`: label i from the incumbent, label j from the candidate, in any unit. The largest cost is D = 1.
    """

    type: Literal["label"]
    comparator: Literal["cost_matrix"]
    labels: Annotated[tuple[bool | int | str, ...], Field(min_length=2)]
    costs: Costs

    @model_validator(mode="after")
    def _costs_fit_the_labels(self) -> Self:
        refuse_twins("label", [(type(label).__name__, label) for label in self.labels])
        count = len(self.labels)
        if len(self.costs) != count or any(len(row) != count for row in self.costs):
            raise ValueError(f"costs must be {count} rows of {count} numbers, one for each label")
        if any(self.costs[i][i] != 0 for i in range(count)):
            raise ValueError("the cost of the same label must be 0")
        if not any(cost > 0 for row in self.costs for cost in row):
            raise ValueError("every cost is 0: nothing would ever differ")
        return self


class TotalVariation(Strict):
    """Class probabilities, or P(class 1); D is their total variation distance."""

    type: Literal["probability"]
    comparator: Literal["total_variation"]


class Absolute(Strict):
    """A quantity; D is min(1, |difference| / scale_units). `scale_units` is in the output's own unit."""

    type: Literal["regression"]
    comparator: Literal["absolute"]
    scale_units: PositiveFloat


class Exceeds(Strict):
    """A quantity; D is 1 where |difference| > tolerance_units. The signed difference is measured by scale_units."""

    type: Literal["regression"]
    comparator: Literal["exceeds"]
    tolerance_units: PositiveFloat
    scale_units: PositiveFloat


class RankBiasedOverlap(Strict):
    """Ids, the best first; D is 1 - rank-biased overlap of the first `depth`. `persistence` is p: how likely one looks at the next rank."""

    type: Literal["ranking"]
    comparator: Literal["rank_biased_overlap"]
    persistence: Share
    depth: Annotated[int, Field(gt=0, le=1000)]


class Overlap(Strict):
    """Ids, the best first; D is the share of the first `depth` that the two do not have in common."""

    type: Literal["ranking"]
    comparator: Literal["overlap"]
    depth: PositiveInt


class Cosine(Strict):
    """A vector of the space that both versions share; D is (1 - cosine) / 2."""

    type: Literal["embedding"]
    comparator: Literal["cosine"]


class Neighbours(Strict):
    """Ids of the nearest neighbours, answered instead of the vector where the spaces differ; D is 1 - their Jaccard index."""

    type: Literal["embedding"]
    comparator: Literal["neighbours"]


class TokenF1(Strict):
    """Free text; D is 1 - token F1."""

    type: Literal["text"]
    comparator: Literal["token_f1"]


class RequiredField(Strict):
    """A field without which a document is no answer."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    holds: Literal["string", "number", "integer", "boolean", "array", "object"]


class Fields(Strict):
    """A JSON object; D is the share of fields that differ, and 1 where a required field is missing or of another type."""

    type: Literal["json"]
    comparator: Literal["fields"]
    required_fields: tuple[RequiredField, ...]

    @model_validator(mode="after")
    def _each_field_once(self) -> Self:
        refuse_twins("required field", [field.name for field in self.required_fields])
        return self


AnyOutput = (
    Differs | CostMatrix | TotalVariation | Absolute | Exceeds | RankBiasedOverlap | Overlap | Cosine | Neighbours | TokenF1 | Fields
)
Output = Annotated[AnyOutput, Field(discriminator="comparator")]
