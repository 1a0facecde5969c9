"""Evidence of whole releases for the tests of the report: gates by hand, every look by the real judge on made-up pairs."""

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from interlock.control.analysis import described
from interlock.judge.evaluate import judge_tick
from interlock.judge.pairs import PairResult
from interlock.judge.policy import SignalPolicy, StepPlan
from interlock.judge.tally import Tally
from interlock.model.journal import Arm
from tests import judging

BEGAN_AT = datetime(2025, 6, 2, 2, 10, tzinfo=UTC)
RELEASE_ID = "flight-delay-3-20250602T021000"
PHASES = (("shadow", 0), ("canary 10 %", 1000), ("canary 25 %", 2500), ("canary 50 %", 5000), ("bake", 10_000))
GATING, SHOWN = "segment:JFK", "segment:<b>EWR</b>"  # clients name their segments as they like
POLICY = dataclasses.replace(
    judging.POLICY,
    divergence_is_binary=False,
    divergence_tolerance=0.1,
    divergence_weight=0.2,
    bias_tolerance=0.05,
    bias_weight=0.1,
    segments=(SignalPolicy(GATING, 0.1, 0.2), SignalPolicy(SHOWN, 0.0, 0.1)),
    error_weight=0.3,
    p50_slack_ms=5.0,
    p99_slack_ms=5.0,
    steps=tuple(StepPlan(weight_bps / 10_000, 120.0) for _, weight_bps in PHASES),
)
PAIRS_PER_SECOND = 13
BAD_PAIRS = 26  # of the last second: opposite answers, in both directions
MOST_LOOKS = 120  # a longer release has the looks of one of this many seconds, each held for a while

Record = dict[str, Any]


def record(seq: int, after_seconds: float, kind: str, **payload: Any) -> Record:
    """One record as evidence holds it."""
    return {"seq": seq, "at": (BEGAN_AT + timedelta(seconds=after_seconds)).isoformat(), "kind": kind, **payload}


def as_recorded(tally: Tally) -> Record:
    """What the judge says of the table, as evidence holds it."""
    return dict(json.loads(json.dumps(described(judge_tick(tally, POLICY)))))


def pair(number: int, at_seconds: float, share: float, **fields: Any) -> PairResult:
    """A pair of a healthy candidate that answers a little too high: the split is as asked, every fifth comes from a gating segment."""
    signed = 0.02 + 0.03 * math.sin(number)
    healthy = judging.CLEAN._replace(
        at_seconds=at_seconds,
        live_arm=Arm.CANDIDATE if (number * 0.6180339887) % 1 < share else Arm.INCUMBENT,
        divergence=abs(signed),
        signed=signed,
        segment=GATING.partition(":")[2] if number % 5 == 0 else SHOWN.partition(":")[2] if number % 10 == 1 else "",
        incumbent_latency_ms=9 + 2 * math.sin(number * 1.7),
        candidate_latency_ms=9.3 + 2.5 * math.sin(number * 1.3),
    )
    return healthy._replace(**fields)


@cache
def _looks(seconds: int, phase_count: int) -> tuple[str, ...]:
    """What the real judge says of the first phases of a release, second by second, as JSON; at the end it halts by the divergence."""
    tally, looks = Tally.for_policy(POLICY, start_seconds=0.0), []
    for second in range(seconds):
        step = second * phase_count // seconds
        numbers = range(second * PAIRS_PER_SECOND, (second + 1) * PAIRS_PER_SECOND)
        tally.add([pair(number, second + 0.5, POLICY.steps[step].share) for number in numbers], step)
        if second == seconds - 1:
            bad = [
                pair(i, second + 0.9, POLICY.steps[step].share, divergence=1.0, signed=(-1.0) ** i, segment="") for i in range(BAD_PAIRS)
            ]
            tally.add(bad, step)
        looks.append(json.dumps(as_recorded(tally)))
    return tuple(looks)


def split_broken() -> Record:
    """A look at which the split served is not the one asked for."""
    tally = Tally.for_policy(POLICY, start_seconds=0.0)
    tally.add([pair(i, i / 10, 0.1) for i in range(600)], 3)
    return as_recorded(tally)


SIGNALS: dict[str, Record] = {one["name"]: one for one in as_recorded(Tally.for_policy(POLICY, start_seconds=0.0))["signals"]}
HALTING = {name: one["halting_e_value"] for name, one in SIGNALS.items()}
COUNTED = tuple(name for name, one in SIGNALS.items() if one["decides"])  # each has a panel of its evidence


def tick(seq: int, second: float, phase: str, weight_bps: int) -> Record:
    """A look of the first seconds of a healthy shadow, whatever the phase is called."""
    return record(seq, second, "tick", phase=phase, weight_bps=weight_bps, **json.loads(_looks(10, 1)[int(second)]), candidate_mib=341.5)


def beginning() -> list[Record]:
    """Intake, data and gates."""
    measured = {"name": "roc_auc", "value": 0.7134, "limit": 0.62, "better": "higher", "unit": "", "n": 5000, "min_n": 2000}
    slow = {"name": "p99_ms", "value": 431.7, "limit": 400.0, "better": "lower", "unit": "ms", "n": 300, "min_n": 300}
    names = {"candidate": "flight-delay/3", "incumbent": "flight-delay/2", "profile_name": "demo", "profile_digest": "sha256:" + "a" * 64}
    return [
        record(0, -20, "intake", **names, candidate_digest="sha256:" + "3" * 64, profile_text="schema_version: release-profile/v1\n" * 40),
        record(1, -18, "data", gate="evaluation", source="flights.parquet", row_count=5000),
        record(2, -9, "gate", gate="evaluation", outcome="PASS", reason="evaluation: roc_auc 0.7134 >= 0.62", measurements=[measured]),
        record(3, -8, "gate", gate="latency", outcome="FAIL", reason="latency: p99_ms 431.7 > 400 ms", measurements=[slow]),
    ]


def rejected() -> list[Record]:
    """A gate said no: nothing was ever judged."""
    return [*beginning(), record(4, -7, "decision", decision="Rejected", reason="latency: p99_ms 431.7 > 400 ms")]


def rolled_back(*, seconds: int = 120) -> list[Record]:
    """Shadow and canary steps, one tick a second, and a halt by divergence at the end."""
    records = beginning()
    length = seconds / len(PHASES)
    looks = _looks(min(seconds, MOST_LOOKS), len(PHASES))
    for second in range(seconds):
        look = looks[-1 if second == seconds - 1 else min(second * len(looks) // seconds, len(looks) - 2)]
        name, weight_bps = PHASES[second * len(PHASES) // seconds]
        if second == 0 or name != PHASES[(second - 1) * len(PHASES) // seconds][0]:
            records.append(record(len(records), second, "phase", phase=name, weight_bps=weight_bps, bake_seconds=length))
        judged = {"phase": name, "weight_bps": weight_bps, **json.loads(look), "candidate_mib": 341.5}
        if seconds > MOST_LOOKS:
            for signal in judged["signals"]:
                signal["e_value"] *= 1 + 0.1 * math.sin(second)  # a look that is held is no straight line
        records.append(record(len(records), second, "tick", **judged))
    reason = records[-1]["reason"]
    steps = [{"step": "traffic", "observed": "flight-delay/2 answers 100 % of requests", "elapsed_seconds": 0.11}]
    records.append(record(len(records), seconds, "counts", tally={"format": "judge-tally/v1", "divergence": [[1, 2, 3]] * 4000}))
    records.append(record(len(records), seconds + 1, "rollback", reason=reason, steps=steps, elapsed_seconds=0.31))
    return [*records, record(len(records), seconds + 2, "decision", decision="RolledBack", reason=reason)]


def last_tick(records: list[Record]) -> Mapping[str, Any]:
    """The last look of the release."""
    return next(one for one in reversed(records) if one["kind"] == "tick")


def signal_of(look: Mapping[str, Any], name: str) -> Record:
    """One signal of a look, to be changed."""
    return next(signal for signal in look["signals"] if signal["name"] == name)
