"""Evidence of whole releases, written by hand, for the tests of the report."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

BEGAN_AT = datetime(2025, 6, 2, 2, 10, tzinfo=UTC)
RELEASE_ID = "flight-delay-3-20250602T021000"
REASON = "divergence is 0.34 share against at most 0.1 share (n=500); evidence 4.1e+03 reached the halting line 100"
HALTING = {"divergence": 291.5, "errors": 291.5, "p50": 1020.4, "p99": 510.2, "slo_error_share": 10_000.0, "slo_p99": 10_000.0}
PHASES = (("shadow", 0), ("canary 10 %", 1000), ("canary 25 %", 2500), ("canary 50 %", 5000), ("bake", 10_000))

Record = dict[str, Any]


def record(seq: int, after_seconds: float, kind: str, **payload: Any) -> Record:
    """One record as evidence holds it."""
    return {"seq": seq, "at": (BEGAN_AT + timedelta(seconds=after_seconds)).isoformat(), "kind": kind, **payload}


def reading(name: str, count: int, **fields: Any) -> Record:
    """A healthy signal after so many pairs."""
    value, limit, unit = {"p50": (9.1, 28.0, "ms"), "p99": (38.0, 322.0, "ms"), "divergence": (0.03, 0.1, "share")}.get(
        name, (0.0, 0.005, "share")
    )
    value += 0.3 * value * math.sin(count / 97)
    usual = {
        "name": name,
        "value": value,
        "limit": limit,
        "unit": unit,
        "sample_count": count,
        "e_value": math.exp(-count / 9000) * (1 + 0.4 * math.sin(count / 61)),
        "halting_e_value": HALTING[name],
        "low": value - 0.4 * limit / math.sqrt(1 + count / 50),
        "high": value + 0.4 * limit / math.sqrt(1 + count / 50),
        "is_usable": True,
        "is_proved": count > 1500,
        "more_requests_needed": max(0, 1500 - count),
        "reason": f"INSUFFICIENT_EVIDENCE n={count}" if count <= 1500 else f"within tolerance, proved by n={count}",
        "recent_value": value * 1.2 if name == "divergence" else None,
    }
    return {**usual, **fields}


def tick(seq: int, second: float, phase: str, weight_bps: int, *, halts: bool = False) -> Record:
    """One look, 13 pairs a second since the start."""
    count = 1 + int(second * 13)
    signals = [reading(name, count) for name in HALTING]
    if halts:
        signals[0] |= {"value": 0.34, "recent_value": 0.41, "e_value": 1.17e4, "reason": REASON}
    judged = {"outcome": "HALT" if halts else "CONTINUE", "reason": REASON if halts else f"no signal is proved worse by n={count} pairs"}
    together = {"decided_by": "divergence" if halts else None, "e_value": 4.1e3 if halts else 0.4, "halting_line": 100.0, "is_blind": False}
    return record(seq, second, "tick", phase=phase, weight_bps=weight_bps, **judged, **together, signals=signals, candidate_mib=341.5)


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
    for second in range(seconds):
        name, weight_bps = PHASES[int(second / length)]
        if second == 0 or name != PHASES[int((second - 1) / length)][0]:
            records.append(record(len(records), second, "phase", phase=name, weight_bps=weight_bps, bake_seconds=length))
        records.append(tick(len(records), second, name, weight_bps, halts=second == seconds - 1))
    steps = [{"step": "traffic", "observed": "flight-delay/2 answers 100 % of requests", "elapsed_seconds": 0.11}]
    records.append(record(len(records), seconds, "counts", tally={"format": "judge-tally/v1", "divergence": [[1, 2, 3]] * 4000}))
    records.append(record(len(records), seconds + 1, "rollback", reason=REASON, steps=steps, elapsed_seconds=0.31))
    return [*records, record(len(records), seconds + 2, "decision", decision="RolledBack", reason=REASON)]


def last_tick(records: list[Record]) -> Mapping[str, Any]:
    """The last look of the release."""
    return next(one for one in reversed(records) if one["kind"] == "tick")
