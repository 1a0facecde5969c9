"""The latency gate: candidate and incumbent under the same load, at the same time, on the same machine."""

import math
from collections.abc import Sequence

import numpy as np

from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.inputs import Sender
from interlock.control.gates.load import ArmReadings, Load, LoadReadings, offer_load
from interlock.errors import NoSamples
from interlock.model.verdict import Measurement, Verdict
from interlock.ports import Clock
from interlock.profile.schema import Latency, LatencyLimit

GATE = "latency"
REQUIRED = ("failed_request_count", "p50_ms", "p99_ms", "p50_next_to_incumbent_ms", "p99_next_to_incumbent_ms")


def judge_latency(policy: Latency, *, send_candidate: Sender, send_incumbent: Sender, payloads: Sequence[bytes], clock: Clock) -> Verdict:
    """
    Does the candidate answer every request, fast enough, and not slower than the incumbent allows?

    Each arm gets `request_count` single-row requests after its warm-up; `requests_per_second` is the rate of both arms together.
    Latency counts from the scheduled send time. A failed request is FAIL. The limit beside the incumbent is
    max(incumbent x ratio, incumbent + slack); when the incumbent itself failed a request there is no such limit: INCONCLUSIVE.
    """
    return judged(
        GATE,
        lambda: _judge(policy, send_candidate=send_candidate, send_incumbent=send_incumbent, payloads=payloads, clock=clock),
    )


def latency_measurements(policy: Latency, readings: LoadReadings) -> tuple[Measurement, ...]:
    """The five required measurements, from the readings of both arms."""
    count = len(readings.candidate.latencies_ms)
    limits = {"p50": (policy.p50, 0.50), "p99": (policy.p99, 0.99)}
    found = [_failed(policy, readings.candidate)]
    for name, (limit, share) in limits.items():
        value = _quantile(readings.candidate, share)
        beside = _limit_beside(limit, readings.incumbent, share, needed_count=policy.request_count)
        found.append(Measurement(f"{name}_ms", value, limit.max_ms, "lower", "ms", count, policy.request_count))
        found.append(Measurement(f"{name}_next_to_incumbent_ms", value, beside, "lower", "ms", count, policy.request_count))
    return tuple(found)


def _judge(policy: Latency, *, send_candidate: Sender, send_incumbent: Sender, payloads: Sequence[bytes], clock: Clock) -> Verdict:
    if not payloads:
        raise NoSamples("there is no payload to send: the latency gate needs at least one row")
    load = Load(policy.request_count, policy.warm_up_request_count, policy.requests_per_second)
    readings = offer_load(load, candidate=send_candidate, incumbent=send_incumbent, payloads=payloads, clock=clock)
    remarks = [f"first failure of the {who}: {arm.failures[0]}" for who, arm in _arms(readings) if arm.failures]
    return judge_required(GATE, latency_measurements(policy, readings), required=REQUIRED, remarks=remarks)


def _arms(readings: LoadReadings) -> tuple[tuple[str, ArmReadings], ...]:
    return ("candidate", readings.candidate), ("incumbent", readings.incumbent)


def _failed(policy: Latency, arm: ArmReadings) -> Measurement:
    failed, sent = len(arm.failures), len(arm.failures) + len(arm.latencies_ms)
    # One failure is proof, however few requests were sent; none of them is proof only when all were sent.
    enough = 1 if failed else policy.request_count
    return Measurement("failed_request_count", float(failed), 0.0, "lower", "requests", sent, enough)


def _quantile(arm: ArmReadings, share: float) -> float | None:
    """The smallest latency that at least this share of the answers kept; None without answers."""
    return float(np.quantile(arm.latencies_ms, share, method="inverted_cdf")) if arm.latencies_ms else None


def _limit_beside(limit: LatencyLimit, incumbent: ArmReadings, share: float, *, needed_count: int) -> float:
    value = _quantile(incumbent, share)
    if value is None or incumbent.failures or len(incumbent.latencies_ms) < needed_count:
        return math.nan
    return max(value * limit.max_ratio_to_incumbent, value + limit.slack_ms)
