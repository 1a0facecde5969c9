"""From the output section of a release profile to the comparison that the judge and the disagreement gate use."""

from functools import singledispatch

from interlock.judge.comparators import (
    Compare,
    cosine_comparator,
    difference_comparator,
    document_comparator,
    exceeds_comparator,
    label_comparator,
    neighbour_comparator,
    overlap_comparator,
    probability_comparator,
    rank_biased_comparator,
    text_comparator,
)
from interlock.profile.output import (
    Absolute,
    AnyOutput,
    Cosine,
    CostMatrix,
    Differs,
    Exceeds,
    Fields,
    Neighbours,
    Overlap,
    RankBiasedOverlap,
    TokenF1,
    TotalVariation,
)


def divergence_is_binary(output: AnyOutput) -> bool:
    """Whether D is always 0 or 1 for an answer of one row. An answer of several rows is averaged all the same."""
    return isinstance(output, Differs | Exceeds)


@singledispatch
def comparison(output: AnyOutput) -> Compare:
    """How two answers are compared under this profile."""
    raise TypeError(f"{type(output).__name__} is no output section of a release profile")


@comparison.register
def _(output: Differs) -> Compare:
    return label_comparator()


@comparison.register
def _(output: CostMatrix) -> Compare:
    return label_comparator(output.labels, output.costs)


@comparison.register
def _(output: TotalVariation) -> Compare:
    return probability_comparator()


@comparison.register
def _(output: Absolute) -> Compare:
    return difference_comparator(scale_units=output.scale_units)


@comparison.register
def _(output: Exceeds) -> Compare:
    return exceeds_comparator(tolerance_units=output.tolerance_units, scale_units=output.scale_units)


@comparison.register
def _(output: RankBiasedOverlap) -> Compare:
    return rank_biased_comparator(persistence=output.persistence, depth=output.depth)


@comparison.register
def _(output: Overlap) -> Compare:
    return overlap_comparator(depth=output.depth)


@comparison.register
def _(output: Cosine) -> Compare:
    return cosine_comparator()


@comparison.register
def _(output: Neighbours) -> Compare:
    return neighbour_comparator()


@comparison.register
def _(output: TokenF1) -> Compare:
    return text_comparator()


@comparison.register
def _(output: Fields) -> Compare:
    return document_comparator({field.name: field.holds for field in output.required_fields})
