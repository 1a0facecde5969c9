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
class Measurement:
    """
    One reading of one quantity next to its limit.

    `value` is None when there was nothing to read; `sample_count` is the number of rows, requests or pairs behind it.
    `better` names the good direction: "lower" is within the limit when value <= limit, "higher" when value >= limit.
    """

    name: str
    value: float | None
    limit: float
    better: Better
    unit: str
    sample_count: int
    min_sample_count: int


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

    PASS needs every name in `required` to be measured exactly once, finite, with enough samples and within its limit.
    A reading beyond its limit is FAIL; a missing, non-finite or too thin one is INCONCLUSIVE; the worst one decides.
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
    within = m.value <= m.limit if m.better == "lower" else m.value >= m.limit
    relation = {("lower", True): "<=", ("lower", False): ">", ("higher", True): ">=", ("higher", False): "<"}[(m.better, within)]
    text = f"{m.name} {m.value:.6g} {relation} {m.limit:.6g}{' ' + m.unit if m.unit else ''} (n={m.sample_count})"
    return (Outcome.PASS if within else Outcome.FAIL), text
