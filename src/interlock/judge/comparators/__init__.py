"""
How far two answers to the same input differ: D in [0, 1], comparators for each output type.

    label        label_comparator            another label, or an entry of a cost matrix
    probability  probability_comparator      total variation distance
    regression   difference_comparator       min(1, |difference| / scale)
                 exceeds_comparator          1 where |difference| is beyond a tolerance
    ranking      rank_biased_comparator      1 - rank-biased overlap
                 overlap_comparator          1 - overlap at a depth
    embedding    cosine_comparator           (1 - cosine) / 2, where both versions share one space
                 neighbour_comparator        1 - Jaccard index of the nearest neighbours' ids, where they do not
    text         text_comparator             1 - F1 of the tokens
    json         document_comparator         share of fields that differ

Which of them judges a release is the profile's to say (`interlock.control.comparison`).
"""

from interlock.judge.comparators.answers import Compare, Difference, Layout
from interlock.judge.comparators.documents import FieldType, document_comparator
from interlock.judge.comparators.embeddings import cosine_comparator, neighbour_comparator
from interlock.judge.comparators.labels import Label, label_comparator
from interlock.judge.comparators.numbers import difference_comparator, exceeds_comparator, probability_comparator
from interlock.judge.comparators.rankings import overlap_comparator, rank_biased_comparator
from interlock.judge.comparators.texts import text_comparator

__all__ = [
    "Compare",
    "Difference",
    "FieldType",
    "Label",
    "Layout",
    "cosine_comparator",
    "difference_comparator",
    "document_comparator",
    "exceeds_comparator",
    "label_comparator",
    "neighbour_comparator",
    "overlap_comparator",
    "probability_comparator",
    "rank_biased_comparator",
    "text_comparator",
]
