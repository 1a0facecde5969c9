"""The drift gate: have the rows, or the candidate's answers to them, moved away from what the candidate was trained on?"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.columns import Column, Pair, Policy, count_values, read_pair
from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import Rows, seed_from
from interlock.errors import PolicyError, ReleaseError
from interlock.judge.drift import CATEGORY_METHODS, Distance, category_distance, number_distance
from interlock.model.redaction import one_line, redacted
from interlock.model.verdict import Better, Bounds, Measurement, Outcome, Verdict
from interlock.profile.gates import Drift, NumberColumn

GATE = "drift"
OF_THE_SET = ("unusable_column_count", "stuck_column_count", "columns_measured", "drifted_share", "prediction_distance")
OF_A_COLUMN = ("null_percent", "infinite_count", "outside_percent", "distance")
TOLD_CATEGORIES = 5  # in a sentence; the evidence has the share of all


@dataclass(frozen=True, slots=True)
class _Reading:
    """
    One column judged: its measurements, and what to say about it.

    proved, possible: whether it has drifted for certain, or may have. share_of_limit: its distance in units of `max_distance`.
    """

    name: str
    is_usable: bool
    is_stuck: bool
    is_measured: bool
    drifted: bool
    proved: bool
    possible: bool
    share_of_limit: float
    measurements: tuple[Measurement, ...]
    remarks: tuple[str, ...]


def judge_drift(policy: Drift, reference: Rows, current: Rows, *, answers: PlainAnswers, confidence: float) -> Verdict:
    """
    Are current rows, and the candidate's answers to them, still near the reference?

    On all rows of both sides, before any distance: every column present once and of its kind; nulls, infinities, values out of range or of
    no known category, columns stuck on one value. Then the distance of every column and of the answers, on all rows or on as
    many as the profile says, drawn by a generator seeded with the data's digest. Each distance is judged by its bounds, which hold with
    `confidence` each: beyond `max_distance` it fails by itself, beyond `drift_distance` it counts for `drifted_share`.
    Whatever could not be measured is no PASS.
    """
    return judged(GATE, lambda: _judge(policy, reference, current, answers, confidence))


def required_names(policy: Drift) -> tuple[str, ...]:
    """Every measurement without which there is no PASS."""
    return (*(f"{question} of {column.name}" for column in policy.columns for question in OF_A_COLUMN), *OF_THE_SET)


def sample(rows: Rows, row_count: int | None) -> pd.DataFrame:
    """So many rows, drawn without replacement with a seed from the data's digest; all of them for None, or when there are no more."""
    if row_count is None or len(rows.frame) <= row_count:
        return rows.frame
    generator = np.random.Generator(np.random.PCG64(seed_from(rows.digest)))
    return rows.frame.iloc[np.sort(generator.choice(len(rows.frame), row_count, replace=False))]


def _judge(policy: Drift, reference: Rows, current: Rows, answers: PlainAnswers, confidence: float) -> Verdict:
    if answers.kind == "category" and policy.prediction.method not in CATEGORY_METHODS:
        raise PolicyError(
            f"answers of type {answers.output.type} are categories, which {policy.prediction.method} cannot compare: "
            f"give gates.drift.prediction one of {', '.join(CATEGORY_METHODS)}"
        )
    drawn = sample(reference, policy.sample_row_count), sample(current, policy.sample_row_count)
    judge_one = _judge_column(policy, (reference, current), drawn, confidence)
    readings = [judge_one(column) for column in policy.columns]  # one after the other: sorted copies of all would not fit
    prediction, remarks = _prediction(policy, drawn, answers, confidence)
    measurements = [m for reading in readings for m in reading.measurements]
    measurements += [*_of_the_set(policy, readings, min(map(len, drawn)), confidence), prediction]
    remarks = [*(remark for reading in readings for remark in reading.remarks), *remarks]
    for side, rows, name in zip(drawn, (reference, current), ("reference", "current"), strict=True):
        if len(side) < len(rows.frame):
            remarks.append(f"distances on {len(side)} of {len(rows.frame)} {name} rows")
    verdict = judge_required(GATE, measurements, required=required_names(policy), remarks=remarks)
    return verdict if verdict.outcome is not Outcome.PASS else replace(verdict, reason="; ".join([_told(readings, prediction), *remarks]))


def _judge_column(
    policy: Drift, whole: tuple[Rows, Rows], drawn: tuple[pd.DataFrame, pd.DataFrame], confidence: float
) -> Callable[[Policy], _Reading]:
    def judge_one(column: Policy) -> _Reading:
        pair = read_pair(column, whole[0].frame, whole[1].frame)
        is_stuck = pair.is_stuck(confidence)
        is_whole = all(side is rows.frame for side, rows in zip(drawn, whole, strict=True))
        measured = pair if is_whole or not pair.sides else read_pair(column, *drawn)
        found = _distance(column.method, *measured.sides) if measured.sides else None
        usable_count = min((side.value_count for side in measured.sides), default=0)
        distance = _bounded(f"distance of {column.name}", found, column.max_distance, usable_count, policy, confidence)
        value, bounds, line = distance.value, distance.bounds, column.drift_distance
        return _Reading(
            name=column.name,
            is_usable=bool(pair.sides),
            is_stuck=is_stuck,
            is_measured=value is not None,
            drifted=value is not None and value > line,
            proved=bounds is not None and bounds.low > line,
            possible=bounds is None or bounds.high > line,
            share_of_limit=value / column.max_distance if value is not None else math.nan,
            measurements=(*_counts(policy, pair), distance),
            remarks=tuple(_remarks(pair, found, is_stuck=is_stuck)),
        )

    return judge_one


def _distance(method: str, reference: Column, current: Column) -> Distance | None:
    if not reference.counts and not current.counts:
        return number_distance(method, reference.numbers, current.numbers)
    both = list({**reference.counts, **current.counts})
    before, now = (np.array([side.counts.get(category, 0) for category in both], dtype=np.float64) for side in (reference, current))
    return category_distance(method, before, now)


def _counts(policy: Drift, pair: Pair) -> Iterator[Measurement]:
    """The worse side of each; without a value when a side could not be read."""
    row_count = min((side.row_count for side in pair.sides), default=0)
    questions: tuple[tuple[str, Callable[[Column], float], float, str], ...] = (
        ("null_percent", lambda side: side.null_percent, pair.policy.max_null_percent, "%"),
        ("infinite_count", lambda side: float(side.infinite_count), 0.0, "values"),
        ("outside_percent", pair.outside_percent, pair.policy.max_outside_percent, "%"),
    )
    for name, ask, limit, unit in questions:
        value = max(map(ask, pair.sides), default=None)
        yield Measurement(f"{name} of {pair.policy.name}", value, limit, "lower", unit, row_count, policy.min_row_count)


def _bounded(name: str, found: Distance | None, limit: float, row_count: int, policy: Drift, confidence: float) -> Measurement:
    bounds = found.bounds(confidence) if found else None
    return Measurement(name, found.value if found else None, limit, "lower", "", row_count, policy.min_row_count, bounds)


def _of_the_set(policy: Drift, readings: Sequence[_Reading], row_count: int, confidence: float) -> Iterator[Measurement]:
    def counted(name: str, value: float, limit: float, better: Better = "lower") -> Measurement:
        return Measurement(name, value, limit, better, "columns", row_count, policy.min_row_count)

    total, measured_count = len(readings), sum(reading.is_measured for reading in readings)
    yield counted("unusable_column_count", float(sum(not reading.is_usable for reading in readings)), 0.0)
    yield counted("stuck_column_count", float(sum(reading.is_stuck for reading in readings)), 0.0)
    yield counted("columns_measured", float(measured_count), float(total), "higher")
    drifted, proved, possible = (
        sum(flags) / total for flags in zip(*((reading.drifted, reading.proved, reading.possible) for reading in readings), strict=True)
    )
    bounds = Bounds(proved, possible, 100.0 * confidence)
    value = drifted if measured_count == total else None
    yield Measurement("drifted_share", value, policy.max_drifted_share, "lower", "", row_count, policy.min_row_count, bounds)


def _prediction(
    policy: Drift, drawn: tuple[pd.DataFrame, pd.DataFrame], answers: PlainAnswers, confidence: float
) -> tuple[Measurement, list[str]]:
    """How far the answers have moved. One that is missing or infinite leaves nothing to be measured: the candidate has not answered."""
    found, usable_count, remarks = None, 0, list[str]()
    try:
        sides = [
            count_values(answers.read(frame), answers.kind, name="the answer", dataset=dataset)
            for frame, dataset in zip(drawn, ("reference", "current"), strict=True)
        ]
        remarks = [
            f"{side.null_count + side.infinite_count} answers to the {side.dataset} rows are missing or not finite"
            for side in sides
            if side.null_count or side.infinite_count
        ]
        if sides[0].kind != sides[1].kind:
            remarks.append(f"the answers to the reference rows are {sides[0].kind}, those to the current rows {sides[1].kind}")
        usable_count = min(side.value_count for side in sides)
        found = None if remarks else _distance(policy.prediction.method, *sides)
    except ReleaseError as error:  # what the columns have to say is not lost with it
        remarks.append(one_line(error))
    return _bounded("prediction_distance", found, policy.prediction.max_distance, usable_count, policy, confidence), remarks


def _remarks(pair: Pair, found: Distance | None, *, is_stuck: bool) -> Iterator[str]:
    """Which side stands behind a number beyond its limit, and what can be done."""
    name, column = pair.policy.name, pair.policy
    yield from pair.faults
    for side in pair.sides:
        if side.null_percent > column.max_null_percent:
            yield f"{name} is null in {side.null_percent:.3g} % of {side.dataset} rows"
        if side.infinite_count:
            yield f"{name} is infinite in {side.infinite_count} {side.dataset} rows"
        if pair.outside_percent(side) > column.max_outside_percent:
            yield f"{pair.outside_count(side)} {side.dataset} rows have a {name} {_what_is_outside(pair, side)}"
    if is_stuck:
        yield f"{name} is stuck on one value"
    elif pair.sides and found is None:
        yield f"{name} has no distance: it is constant in the reference or has no value at all; take it out of the profile or repair it"


def _what_is_outside(pair: Pair, side: Column) -> str:
    """Current rows may be what users have sent: of those only the counts, as a reason is shown, sent and kept for ever."""
    is_reference, unknown = side is pair.sides[0], pair.unknown_categories(side)
    if isinstance(pair.policy, NumberColumn):
        seen = f" ({side.numbers[0]:g} to {side.numbers[-1]:g})" if is_reference else ""
        return f"outside {pair.policy.minimum:g} to {pair.policy.maximum:g}{seen}"
    if not is_reference:
        return f"that is not known ({len(unknown)} different)"
    more = f" and {len(unknown) - TOLD_CATEGORIES} more" if len(unknown) > TOLD_CATEGORIES else ""
    return redacted(f"that is not known: {', '.join(unknown[:TOLD_CATEGORIES])}{more}")


def _told(readings: Sequence[_Reading], prediction: Measurement) -> str:
    """A PASS in one sentence; hundreds of numbers within their limits stand in the table."""
    furthest = max(readings, key=lambda reading: reading.share_of_limit)
    drifted = [reading.name for reading in readings if reading.drifted]
    return (
        f"{GATE}: all measurements of {len(readings)} columns are within their limits; drifted: {', '.join(drifted) or 'none'}; "
        f"nearest to its limit is {furthest.name} ({100 * furthest.share_of_limit:.0f} % of it); "
        f"prediction_distance {prediction.value:.4g} <= {prediction.limit:g}"
    )
