"""From the output section of a release profile to the comparison that the judge and the disagreement gate use."""

from functools import singledispatch

from interlock.judge.comparators import (
    Compare,
    Layout,
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
def comparison(output: AnyOutput, layout: Layout) -> Compare:
    """How two answers of this layout are compared under this profile."""
    raise TypeError(f"{type(output).__name__} is no output section of a release profile")


@comparison.register
def _(output: Differs, layout: Layout) -> Compare:
    return label_comparator(layout=layout)


@comparison.register
def _(output: CostMatrix, layout: Layout) -> Compare:
    return label_comparator(output.labels, output.costs, layout=layout)


@comparison.register
def _(output: TotalVariation, layout: Layout) -> Compare:
    return probability_comparator(layout=layout)


@comparison.register
def _(output: Absolute, layout: Layout) -> Compare:
    return difference_comparator(scale_units=output.scale_units, layout=layout)


@comparison.register
def _(output: Exceeds, layout: Layout) -> Compare:
    return exceeds_comparator(tolerance_units=output.tolerance_units, scale_units=output.scale_units, layout=layout)


@comparison.register
def _(output: RankBiasedOverlap, layout: Layout) -> Compare:
    return rank_biased_comparator(persistence=output.persistence, depth=output.depth, layout=layout)


@comparison.register
def _(output: Overlap, layout: Layout) -> Compare:
    return overlap_comparator(depth=output.depth, layout=layout)


@comparison.register
def _(output: Cosine, layout: Layout) -> Compare:
    return cosine_comparator(layout=layout)


@comparison.register
def _(output: Neighbours, layout: Layout) -> Compare:
    return neighbour_comparator(layout=layout)


@comparison.register
def _(output: TokenF1, layout: Layout) -> Compare:
    return text_comparator(layout=layout)


@comparison.register
def _(output: Fields, layout: Layout) -> Compare:
    return document_comparator({field.name: field.holds for field in output.required_fields}, layout=layout)
