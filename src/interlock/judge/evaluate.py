"""
The judgement over all signals: HALT at any look, PASS at the one declared look, otherwise keep watching or say that nothing is known.

P(ever HALT | everything within tolerance) <= alpha over all signals and looks together: a weighted sum of e-values is an e-value under
any dependence. PASS needs every signal to reject "worse than tolerated" at beta (intersection-union, so beta is not split).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from interlock.judge.ceilings import SLO_SIGNAL_WEIGHT, SLO_SIGNALS, read_slo_error_share, read_slo_p99
from interlock.judge.feasibility import pairs_needed
from interlock.judge.latency import read_p50, read_p99
from interlock.judge.pairs import Fate
from interlock.judge.policy import JudgePolicy
from interlock.judge.readings import Judgement, JudgeOutcome, SignalReading
from interlock.judge.signals import other_segment, read_bias, read_divergence, read_errors, read_segment
from interlock.judge.split import SPLIT_SIGNAL, is_broken_split, read_sample_ratio
from interlock.judge.tally import FRESH, Tally

_Reader = Callable[[Tally, JudgePolicy], SignalReading]


def readers_of(policy: JudgePolicy) -> dict[str, _Reader]:
    """The signals of a policy, by name, in the order in which they are shown."""
    readers: dict[str, _Reader] = {"divergence": read_divergence}
    if policy.bias is not None:
        readers["bias"] = read_bias
    for segment in (*policy.segments, *other_segment(policy)):
        readers[segment.name] = partial(read_segment, segment=segment)
    readers |= {"errors": read_errors, "p50": read_p50, "p99": read_p99}
    return readers | {SLO_SIGNALS[0]: read_slo_error_share, SLO_SIGNALS[1]: read_slo_p99, SPLIT_SIGNAL: read_sample_ratio}


_Distrust = tuple[Literal["broken", "degraded"], str]


def judge_tick(tally: Tally, policy: JudgePolicy) -> Judgement:
    """
    HALT, CONTINUE or INSUFFICIENT from the table as it stands. Any time, any number of times; never PASS.

    CONTINUE and INSUFFICIENT both mean "keep watching, do not move": the second says that this look could not judge something.
    """
    return _judge(tally, policy, is_declared_look=False)


def judge_final(tally: Tally, policy: JudgePolicy) -> Judgement:
    """
    HALT, PASS or INSUFFICIENT at the one look that was declared before the canary started. INSUFFICIENT keeps the incumbent.

    Call it once: its beta is for one look at a time fixed beforehand.
    """
    return _judge(tally, policy, is_declared_look=True)


def _judge(tally: Tally, policy: JudgePolicy, *, is_declared_look: bool) -> Judgement:
    readings = tuple(_read_safely(name, reader, tally, policy) for name, reader in readers_of(policy).items())
    distrust = _distrust(tally, policy, readings)
    shares = {reading.name: _sum_weight(reading.name, policy) * reading.e_value for reading in readings if reading.is_usable}
    if distrust:
        # Lost pairs bias every comparison, but cannot make the candidate's own answers fail: only the hard ceilings may still halt.
        shares = {name: share for name, share in shares.items() if name in SLO_SIGNALS}
    total, line = math.fsum(shares.values()), 1 / policy.alpha
    if total >= line:
        return _halt(readings, shares, total, line)
    outcome, reason = _without_halt(tally, policy, readings, distrust, is_declared_look)
    is_blind = distrust is not None or tally.pair_count == 0 or not all(reading.is_usable for reading in readings)
    return Judgement(outcome, reason, None, readings, total, line, is_blind)


def _halt(readings: Sequence[SignalReading], shares: dict[str, float], total: float, line: float) -> Judgement:
    name = max(shares, key=lambda key: shares[key])
    reading = next(reading for reading in readings if reading.name == name)
    value = "no finite value" if reading.value is None else f"{reading.value:.4g} {reading.unit}"
    if reading.recent_value is not None and reading.recent_value > (reading.value or 0):
        value = f"{reading.recent_value:.4g} {reading.unit} lately ({value} since the start)"
    most = "at most" if name != "bias" else "at most, either way,"
    limit = "" if reading.limit is None else f" against {most} {reading.limit:.4g} {reading.unit}"
    reason = f"{name} is {value}{limit} (n={reading.sample_count}); evidence {total:.3g} reached the halting line {line:.3g}"
    return Judgement(JudgeOutcome.HALT, reason, "slo" if name in SLO_SIGNALS else name, tuple(readings), total, line)


def _without_halt(
    tally: Tally, policy: JudgePolicy, readings: Sequence[SignalReading], distrust: _Distrust | None, is_declared_look: bool
) -> tuple[JudgeOutcome, str]:
    if distrust:
        waits = distrust[0] == "degraded" and not is_declared_look
        return (JudgeOutcome.CONTINUE if waits else JudgeOutcome.INSUFFICIENT), distrust[1]
    if tally.pair_count == 0:
        return JudgeOutcome.INSUFFICIENT, f"INSUFFICIENT_EVIDENCE n=0 of {pairs_needed(policy)} pairs needed"
    unusable = [reading for reading in readings if not reading.is_usable]
    if unusable:
        return JudgeOutcome.INSUFFICIENT, "; ".join(f"{reading.name}: {reading.reason}" for reading in unusable)
    if not is_declared_look:
        return JudgeOutcome.CONTINUE, f"no signal is proved worse than tolerated by n={tally.pair_count} pairs"
    unproved = [reading for reading in readings if reading.decides and not reading.is_proved]
    if unproved:
        return JudgeOutcome.INSUFFICIENT, "; ".join(f"{reading.name}: {reading.reason}" for reading in unproved)
    unit = "keys" if policy.is_keyed else "pairs"
    return JudgeOutcome.PASS, f"every signal is proved within tolerance by n={tally.counters[FRESH]} {unit}"


def _distrust(tally: Tally, policy: JudgePolicy, readings: Sequence[SignalReading]) -> _Distrust | None:
    """Why the pairs as a whole may not be judged, if so."""
    broken = tally.counters[Fate.BROKEN]
    if tally.window_seconds != policy.window_seconds:
        return "broken", f"BAD_DATA: the table has windows of {tally.window_seconds:g} s, the policy wants {policy.window_seconds:g} s"
    if tally.is_keyed != policy.is_keyed:
        return "broken", "BAD_DATA: the table counts requests and the policy wants keys, or the other way round"
    if broken:
        return "broken", f"BAD_DATA: {broken} pairs are broken (different inputs, one role twice, or no finite time or latency)"
    split = next(reading for reading in readings if reading.name == SPLIT_SIGNAL)
    if is_broken_split(split):
        return "broken", split.reason
    share = tally.missing_share
    if share > policy.max_missing_share:
        return "degraded", (
            f"TELEMETRY_DEGRADED: {share:.2%} of the pairs are lost ({tally.lost_count}), at most {policy.max_missing_share:.2%} is allowed"
        )
    return None


def _sum_weight(name: str, policy: JudgePolicy) -> float:
    """What the signal's evidence weighs in the halting sum; 0 for those that are only shown."""
    ceilings = dict.fromkeys(SLO_SIGNALS, SLO_SIGNAL_WEIGHT)
    return ({signal.name: signal.sum_weight for signal in policy.relative_signals} | ceilings).get(name, 0.0)


def _read_safely(name: str, reader: _Reader, tally: Tally, policy: JudgePolicy) -> SignalReading:
    """The reading, or one that is not usable and contributes nothing: a fault in one signal may neither pass nor stop the others."""
    try:
        reading = reader(tally, policy)
    except Exception as error:  # noqa: BLE001 - changes the outcome: INSUFFICIENT, with the exception in the evidence
        return _unusable(name, policy, f"judging failed: {type(error).__name__}: {error}")
    numbers = (reading.value, reading.limit, reading.e_value, reading.halting_e_value, reading.low, reading.high)
    if any(number is not None and not math.isfinite(number) for number in numbers):
        return _unusable(name, policy, "BAD_DATA: a number of this signal is not finite")
    return reading


def _unusable(name: str, policy: JudgePolicy, reason: str) -> SignalReading:
    return SignalReading(
        name=name,
        value=None,
        limit=None,
        unit="",
        sample_count=0,
        e_value=0.0,
        halting_e_value=None,
        low=None,
        high=None,
        is_usable=False,
        is_proved=False,
        more_requests_needed=None,
        reason=reason,
    )
