"""The latency gate: candidate and incumbent under the same load, at the same time, on the same machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.load import ArmReadings, Load, LoadReadings, Targets, offer_load, told_failures
from interlock.control.gates.quantiles import PairedQuantiles
from interlock.errors import NoSamples
from interlock.model.verdict import Bounds, Measurement, Outcome, Verdict, best_end, worst_end
from interlock.profile.gates import Latency, LatencyLimit
from interlock.profile.schema import LATENCY_LOOK_COUNT

GATE = "latency"
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
REQUIRED = (
    "start_seconds",
    "failed_request_count",
    *(f"{name}_ms" for name in SHARES),
    *(f"{name}_next_to_incumbent_ms" for name in SHARES),
)
SECOND_LOOK = 2  # times `request_count` more, when the first look was undecided: three times as many narrow the bounds to about 60 %


@dataclass(frozen=True, slots=True)
class ColdStart:
    """How long the candidate's server took from its start to its first answer (None: not recorded), and how long it may take."""

    seconds: float | None
    limit_seconds: float


def judge_latency(policy: Latency, targets: Targets, *, payloads: Sequence[bytes], start: ColdStart, error: float) -> Verdict:
    """
    Did the candidate start in time, does it answer every request, fast enough, and not slower than the incumbent allows?

    Each arm gets `request_count` single-row requests after its warm-up; `requests_per_second` is the rate of both arms together.
    Latency counts from the scheduled send time. A failed request is FAIL, one of the warm-up too. Beside the incumbent the candidate may
    be slower by max(incumbent x (ratio - 1), slack); when the incumbent itself failed a request there is no such limit: INCONCLUSIVE.
    Nor is there an absolute one that both break in the same load.

    error: of each bound, over both looks. Where a bound leaves the first look undecided, twice as many requests more are sent and all
    are judged together; there is no third look.
    """
    return judged(GATE, lambda: _judge(policy, targets, payloads=payloads, start=start, error=error))


def latency_measurements(policy: Latency, readings: LoadReadings, *, start: ColdStart, error: float) -> tuple[Measurement, ...]:
    """The required measurements from the readings of both arms, then those of the warm-up, which decide nothing."""
    candidate, incumbent = readings.candidate, readings.incumbent
    found = [Measurement("start_seconds", start.seconds, start.limit_seconds, "lower", "s", 1, 1), _failed(policy, candidate)]
    if pair_count := min(len(candidate.latencies_ms), len(incumbent.latencies_ms)):
        paired = PairedQuantiles(
            candidate.latencies_ms[:pair_count],
            incumbent.latencies_ms[:pair_count],
            shares=tuple(SHARES.values()),
            block_length=max(1, round(policy.requests_per_second / 2)),  # one second of the schedule
            error=error / LATENCY_LOOK_COUNT,
        )
        limits = {"p50": policy.p50, "p95": policy.p95, "p99": policy.p99}
        counts = (candidate.answered_count, policy.request_count)
        found += [_absolute(name, limit, paired, counts) for name, limit in limits.items()]
        usable = not incumbent.failures and incumbent.answered_count >= policy.request_count
        found += [_beside(name, limit, paired, counts, is_usable=usable) for name, limit in limits.items()]
    return (*found, *_warm_up(candidate))


def _judge(policy: Latency, targets: Targets, *, payloads: Sequence[bytes], start: ColdStart, error: float) -> Verdict:
    if not payloads:
        raise NoSamples("there is no payload to send: the latency gate needs at least one row")
    load = Load(policy.request_count, policy.warm_up_request_count, policy.requests_per_second)
    readings, remarks = offer_load(load, targets, payloads=payloads), list[str]()
    measurements = latency_measurements(policy, readings, start=start, error=error)
    if _is_undecided(measurements, readings):
        more = Load(policy.request_count * SECOND_LOOK, 0, policy.requests_per_second)
        readings = readings.followed_by(offer_load(more, targets, payloads=payloads))
        measurements = latency_measurements(policy, readings, start=start, error=error)
        remarks.append(f"the first look, at {policy.request_count} requests, was undecided")
    remarks += [
        f"the incumbent itself is beyond {m.name.split('_')[0]}'s max_ms: this machine is too busy to measure"
        for m in _unlimited(measurements)
    ]
    remarks += told_failures(readings, targets)
    return judge_required(GATE, measurements, required=REQUIRED, remarks=remarks)


def _unlimited(measurements: Sequence[Measurement]) -> list[Measurement]:
    return [m for m in measurements if m.name in {f"{name}_ms" for name in SHARES} and math.isnan(m.limit)]


def _is_undecided(measurements: Sequence[Measurement], readings: LoadReadings) -> bool:
    """Whether more requests could decide it: a bound across its limit, or a machine that was slow just then, and nothing else wrong."""
    is_across = any(m.bounds and best_end(m) <= m.limit < worst_end(m) for m in measurements) or bool(_unlimited(measurements))
    outcome = judge_required(GATE, measurements, required=REQUIRED).outcome
    return outcome is Outcome.INCONCLUSIVE and is_across and not any(arm.failures for _, arm in readings.by_name())


def _failed(policy: Latency, arm: ArmReadings) -> Measurement:
    failed = len(arm.failures)
    # One failure is proof, however few requests were sent; none of them is proof only when all were sent.
    enough = 1 if failed else policy.request_count
    return Measurement("failed_request_count", float(failed), 0.0, "lower", "requests", failed + arm.answered_count, enough)


def _absolute(name: str, limit: LatencyLimit, paired: PairedQuantiles, counts: tuple[int, int]) -> Measurement:
    """
    Without a limit where candidate and incumbent both break it in the same load: then it may be the machine, and no candidate is blamed.
    """
    share = SHARES[name]
    found = paired.candidate(share)
    is_machine = paired.incumbent_ms(share) > limit.max_ms and not found.bounds.high <= limit.max_ms
    return Measurement(f"{name}_ms", found.value, math.nan if is_machine else limit.max_ms, "lower", "ms", *counts, found.bounds)


def _beside(name: str, limit: LatencyLimit, paired: PairedQuantiles, counts: tuple[int, int], *, is_usable: bool) -> Measurement:
    """
    How much slower than the incumbent, and how much is allowed.

    The bounds are those of the difference between the two, moved to the limit: the limit is as uncertain as the incumbent's latency, and
    what slows both is in both.
    """
    share, incumbent_ms = SHARES[name], paired.incumbent_ms(SHARES[name])
    beyond = paired.beyond(share, ratio=limit.max_ratio_to_incumbent, slack_ms=limit.slack_ms)
    allowed_ms = max(incumbent_ms * (limit.max_ratio_to_incumbent - 1), limit.slack_ms) if is_usable else math.nan
    moved = Bounds(allowed_ms + beyond.bounds.low, allowed_ms + beyond.bounds.high, beyond.bounds.confidence_percent)
    return Measurement(f"{name}_next_to_incumbent_ms", allowed_ms + beyond.value, allowed_ms, "lower", "ms", *counts, moved)


def _warm_up(arm: ArmReadings) -> tuple[Measurement, ...]:
    """What the warm-up was like: shown, so that what is left out of the verdict is not out of sight."""
    count, answered = len(arm.warm_up_ms), [ms for ms in arm.warm_up_ms if math.isfinite(ms)]
    values = {"warm_up_p50_ms": float(np.median(answered)), "warm_up_max_ms": max(answered)} if answered else {}
    return tuple(Measurement(name, value, math.nan, "lower", "ms", count, 1) for name, value in values.items())
