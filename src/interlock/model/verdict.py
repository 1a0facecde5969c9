"""Verdicts: the one place where PASS is constructed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Better = Literal["lower", "higher"]


class Outcome(IntEnum):
    """How a gate or a signal ended; a larger number is worse, so `max` is the worst."""

    PASS = 0
    INCONCLUSIVE = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    Where the true value lies: not below `low` and not above `high`, each with `confidence_percent` (one-sided), in the value's unit.

    An infinite bound says that nothing is known on that side.
    """

    low: float
    high: float
    confidence_percent: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    One reading of one quantity next to its limit.

    `value` is None when there was nothing to read; `sample_count` is the number of rows, requests or pairs behind it.
    `better` names the good direction: "lower" is within the limit when value <= limit, "higher" when value >= limit.
    `bounds`, where given, decide instead of the value: within the limit is what cannot be beyond it, beyond is what cannot be within, and
    whatever lies across the limit is undecided.
    """

    name: str
    value: float | None
    limit: float
    better: Better
    unit: str
    sample_count: int
    min_sample_count: int
    bounds: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's outcome with its reason and the measurements it was computed from. Build it with `judge_measurements`."""

    gate: str
    outcome: Outcome
    reason: str
    measurements: tuple[Measurement, ...] = ()


def judge_measurements(gate: str, measurements: Sequence[Measurement], *, required: Iterable[str]) -> Verdict:
    """
    The verdict of one gate from its measurements: the only constructor of PASS.

    PASS needs every name in `required` to be measured exactly once, finite, with enough samples and within its limit, bounds included.
    A reading beyond its limit is FAIL; a missing, non-finite or too thin one, or one whose bounds lie across its limit, is INCONCLUSIVE;
    the worst one decides.
    """
    wanted = tuple(required)
    if not wanted:
        return Verdict(gate, Outcome.INCONCLUSIVE, f"{gate}: no measurement is required, so nothing was proved", tuple(measurements))
    names = [m.name for m in measurements]
    missing = [name for name in wanted if names.count(name) != 1]
    judged = [_judge_one(m) for m in measurements]
    judged += [(Outcome.INCONCLUSIVE, f"{name} was measured {names.count(name)} times, needs exactly once") for name in missing]
    worst_outcome = max(outcome for outcome, _ in judged)
    reason = "; ".join(text for outcome, text in judged if outcome is worst_outcome)
    return Verdict(gate, worst_outcome, f"{gate}: {reason}", tuple(measurements))


def inconclusive(gate: str, reason: str) -> Verdict:
    """A gate that could not be judged. It never moves traffic."""
    return Verdict(gate, Outcome.INCONCLUSIVE, f"{gate}: {reason}")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that decides. No verdict at all is INCONCLUSIVE: a gate nobody ran never moves traffic."""
    return max(verdicts, key=lambda v: v.outcome, default=inconclusive("none", "no gate was evaluated"))


def _judge_one(m: Measurement) -> tuple[Outcome, str]:
    if m.value is None or not math.isfinite(m.value):
        return Outcome.INCONCLUSIVE, f"{m.name} has no usable value ({m.value})"
    if not math.isfinite(m.limit):
        return Outcome.INCONCLUSIVE, f"{m.name} has no usable limit ({m.limit})"
    if m.min_sample_count < 1 or m.sample_count < m.min_sample_count:
        return Outcome.INCONCLUSIVE, f"{m.name} has {m.sample_count} samples, needs {max(1, m.min_sample_count)}"
    if m.bounds is not None and math.isnan(m.bounds.low + m.bounds.high):
        return Outcome.INCONCLUSIVE, f"{m.name} {m.value:.6g} has no bounds, its {m.sample_count} samples are too few or too much alike"
    if m.bounds is not None and not m.bounds.low <= m.value <= m.bounds.high:
        return Outcome.INCONCLUSIVE, f"{m.name} {m.value:.6g} has no usable bounds ({m.bounds.low:.6g} to {m.bounds.high:.6g})"
    if _is_within(m, worst_end(m)):
        return Outcome.PASS, _told(m, "<=" if m.better == "lower" else ">=")
    if _is_within(m, best_end(m)):
        return Outcome.INCONCLUSIVE, _told(m, "is not proved to be within")
    return Outcome.FAIL, _told(m, ">" if m.better == "lower" else "<")


def worst_end(m: Measurement) -> float:
    """The reading that decides whether it is proved to be within its limit: the bound on the bad side, or the value without bounds."""
    return (m.value if m.value is not None else math.nan) if m.bounds is None else m.bounds.high if m.better == "lower" else m.bounds.low


def best_end(m: Measurement) -> float:
    """The reading that decides whether it is proved to be beyond its limit."""
    return (m.value if m.value is not None else math.nan) if m.bounds is None else m.bounds.low if m.better == "lower" else m.bounds.high


def _is_within(m: Measurement, reading: float) -> bool:
    return reading <= m.limit if m.better == "lower" else reading >= m.limit


def _told(m: Measurement, relation: str) -> str:
    span = f" [{m.bounds.low:.6g}, {m.bounds.high:.6g}]" if m.bounds else ""
    return f"{m.name} {m.value:.6g}{span} {relation} {m.limit:.6g}{' ' + m.unit if m.unit else ''} (n={m.sample_count})"
