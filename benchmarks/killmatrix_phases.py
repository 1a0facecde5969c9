"""In which phase a release was at a moment, and for how long a share was held without a renewal: read from what was seen. Pure."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from interlock.model.plane import ALL_TRAFFIC_BPS

Record = Mapping[str, Any]
ENDINGS = frozenset({"decision", "failed"})


@dataclass(frozen=True, slots=True)
class Turns:
    """Moments of the split that the evidence tells late, in seconds since the epoch: all traffic on the candidate; none again by a halt."""

    all_traffic_at: float = math.inf
    halted_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One look at Envoy and at the lease on disk, at a monotonic moment.

    weight_bps: None when Envoy's admin did not answer. lease: release, token and end of the lease; None when nobody holds the plane.
    """

    at: float
    weight_bps: int | None
    lease: tuple[str, int, float] | None


def written_at(record: Record) -> float:
    """When a record was written, in seconds since the epoch."""
    return datetime.fromisoformat(str(record["at"])).timestamp()


def phase_at(records: Iterable[Record], at: float, turns: Turns) -> str:
    """The release's phase at that moment; `before` its first record, `ended` once it has no traffic to move any more."""
    past = [record for record in records if written_at(record) <= at]
    kinds = {record["kind"] for record in past}
    if "intake" not in kinds:
        return "before"
    if kinds & (ENDINGS | {"rollback", "finalised"}):
        return "ended"
    if turns.halted_at <= at or any(record.get("outcome") == "HALT" for record in past if record["kind"] in ("tick", "final look")):
        return "rollback"
    if "promoted" in kinds:
        return "bake"
    weights = [int(record["weight_bps"]) for record in past if record["kind"] == "phase"]
    if turns.all_traffic_at <= at or ALL_TRAFFIC_BPS in weights:
        return "promote"
    if not weights:
        return "gates"
    return "shadow" if weights[-1] == 0 else "canary"


def endings(records: Iterable[Record]) -> list[str]:
    """How a release ended, each time that somebody said so: its decision, or `failed`."""
    return [str(record.get("decision", "failed")) for record in records if record["kind"] in ENDINGS]


def seconds_to_nothing(samples: Sequence[Sample], since: float, *, silence_serves: bool) -> float | None:
    """
    From `since` until Envoy gave the candidate nothing; None when the candidate kept something to the end.

    silence_serves: whether an Envoy whose admin does not answer still serves (it is busy), or serves nobody (it was hit, or ended).
    """
    nothing = (0,) if silence_serves else (0, None)
    return next((sample.at - since for sample in samples if sample.at > since and sample.weight_bps in nothing), None)


def longest_unrenewed_seconds(samples: Sequence[Sample], since: float, *, silence_serves: bool) -> float:
    """
    The longest time after `since` that a share was held since the lease was renewed last; 0.0 when there was no share.

    silence_serves: as for `seconds_to_nothing`.
    """
    longest = held = 0.0
    lease: tuple[str, int, float] | None = None
    earlier: Sample | None = None
    for sample in samples:
        if sample.lease is not None and sample.lease != lease:
            lease, held = sample.lease, 0.0
        elif earlier is not None and earlier.weight_bps != 0 and _serves(earlier, sample, silence_serves=silence_serves):
            held += sample.at - earlier.at
        if sample.weight_bps == 0:
            held = 0.0
        elif sample.weight_bps is not None and sample.at > since:
            longest = max(longest, held)
        earlier = sample
    return longest


def _serves(earlier: Sample, sample: Sample, *, silence_serves: bool) -> bool:
    return silence_serves or (earlier.weight_bps is not None and sample.weight_bps is not None)


def renewed_until(samples: Sequence[Sample], since: float) -> float | None:
    """How long after `since` the lease was renewed last; None when it was not."""
    renewals = [
        later.at for earlier, later in itertools.pairwise(samples) if later.at > since and later.lease and later.lease != earlier.lease
    ]
    return renewals[-1] - since if renewals else None


def outage(failed_at: Sequence[float]) -> float:
    """From the first to the last request that failed, by when each was due; 0.0 for one or none."""
    return max(failed_at) - min(failed_at) if failed_at else 0.0
