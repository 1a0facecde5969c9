"""Offline metrics as measurements with bounds: the candidate's own, how much worse than the incumbent it is, and the worst of slices."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from interlock.control.gates.metrics import RANKED, Numbers, Side, flaw, score
from interlock.control.gates.resampling import BETA, CONFIDENCE_PERCENT, Pair, resample, value_bounds, worse_by_bounds
from interlock.model.verdict import Bounds, Measurement, best_end, worst_end
from interlock.profile.gates import Metric

WORSE_BY = "_worse_by"


@dataclass(frozen=True, slots=True)
class Question:
    """One metric on some of the rows (None: on all of them), and how many it needs. where: " of <part>", or nothing."""

    metric: Metric
    where: str
    rows: NDArray[np.intp] | None
    min_row_count: int


class Reading(NamedTuple):
    """What one question gave: the candidate's own value, and how much worse than the incumbent's it is."""

    own: Measurement
    worse_by: Measurement


def names_of(metric: Metric, where: str = "") -> tuple[str, str]:
    """What the two measurements of a reading are called."""
    return metric.name + where, metric.name + WORSE_BY + where


def measure(questions: Sequence[Question], candidate: Side, incumbent: Side, *, seed: int) -> tuple[Sequence[Reading], Sequence[str]]:
    """A reading for each question, without values where it has none, and why it has none."""
    flaws: list[str] = []
    pairs: dict[int, Pair] = {}
    for index, question in enumerate(questions):
        name, rows = question.metric.name, question.rows
        sides = (candidate, incumbent) if rows is None else (candidate.at(rows), incumbent.at(rows))
        found = [
            (who, text)
            for who, side in zip(("candidate", "incumbent"), sides, strict=True)
            if (text := flaw(name, side, is_part=rows is not None))
        ]
        flaws += [f"{who}: {text}{question.where}" for who, text in found]
        if not found:
            pairs[index] = Pair(name, *sides, rows)
    draws = resample(list(pairs.values()), row_count=len(candidate.labels), seed=seed) if pairs else ()
    drawn = dict(zip(pairs, draws, strict=True))
    readings = [unmeasured(question, row_count=len(candidate.labels)) for question in questions]
    for index, pair in pairs.items():
        readings[index] = _filled(readings[index], pair, *drawn[index])
        flaws += [f"{text}{questions[index].where}" for text in _too_few(readings[index], pair)]
    return readings, flaws


def unmeasured(question: Question, *, row_count: int) -> Reading:
    """The reading without values. row_count: of the whole data."""
    metric, (own, worse_by) = question.metric, names_of(question.metric, question.where)
    count = row_count if question.rows is None else len(question.rows)
    return Reading(
        Measurement(own, None, metric.limit, metric.better, "", count, question.min_row_count),
        Measurement(worse_by, None, metric.max_worse_than_incumbent, "lower", "", count, question.min_row_count),
    )


def worst_of(name: str, found: Sequence[Measurement], *, min_sample_count: int) -> Measurement:
    """
    The worst of the same reading on several parts of the rows, one or more; without a value when one of them has none, or no bounds.

    Whatever part is truly the worst lies within its own bound, so the outermost of all bounds is that on the bad side. On the good side,
    where many parts are many chances to look bad by luck, each bound is first moved out to what Bonferroni asks for.
    """
    first = found[0]
    if any(m.value is None or not _has_bounds(m) for m in found):
        return replace(first, name=name, value=None, bounds=None, min_sample_count=min_sample_count)
    outermost = max if first.better == "lower" else min
    worst = outermost(found, key=_value)
    stretch = float(special.ndtri(1 - BETA / len(found)) / special.ndtri(1 - BETA))
    bad = outermost(worst_end(m) for m in found)
    good = outermost(_value(m) + stretch * (best_end(m) - _value(m)) for m in found)
    bounds = Bounds(min(bad, good), max(bad, good), CONFIDENCE_PERCENT)
    return replace(worst, name=name, bounds=bounds, min_sample_count=min_sample_count)


def _has_bounds(m: Measurement) -> bool:
    return m.bounds is not None and math.isfinite(m.bounds.low) and math.isfinite(m.bounds.high)


def _too_few(reading: Reading, pair: Pair) -> Iterator[str]:
    """What stands in the way of bounds where a value has none."""
    unbounded = [m for m in reading if m.value is not None and not _has_bounds(m)]
    if pair.name in RANKED and reading.own in unbounded:
        fewest = min(int((pair.candidate.labels == label).sum()) for label in (0.0, 1.0))
        yield f"{pair.name}: too few rows of one class (n={fewest})"
    elif unbounded:
        yield f"{pair.name}: too few of the rows tell how far it can be off (n={len(pair.candidate.labels)})"


def _value(m: Measurement) -> float:
    return np.nan if m.value is None else m.value


def _filled(reading: Reading, pair: Pair, ours: Numbers, theirs: Numbers) -> Reading:
    """With the values on the rows as they are, and bounds by the draws."""
    sign = 1.0 if reading.own.better == "lower" else -1.0
    value = score(pair.name, pair.candidate)
    worse_by = sign * (value - score(pair.name, pair.incumbent))
    return Reading(
        _with(reading.own, value, value_bounds(pair.name, pair.candidate, value, ours)),
        _with(reading.worse_by, worse_by, worse_by_bounds(pair, worse_by, sign * (ours - theirs))),
    )


def _with(m: Measurement, value: float, bounds: Bounds) -> Measurement:
    return replace(m, value=value if math.isfinite(value) else None, bounds=bounds)
