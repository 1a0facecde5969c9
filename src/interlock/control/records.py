"""Verdicts and receipts as plain values, the way evidence keeps them."""

from typing import Any

from interlock.model.plane import RollbackReceipt
from interlock.model.verdict import Verdict


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values for the evidence."""
    return {
        "gate": verdict.gate,
        "outcome": verdict.outcome.name,
        "reason": verdict.reason,
        "measurements": [
            {
                "name": m.name,
                "value": m.value,
                "limit": m.limit,
                "better": m.better,
                "unit": m.unit,
                "n": m.sample_count,
                "min_n": m.min_sample_count,
            }
            for m in verdict.measurements
        ],
    }


def receipt_values(receipt: RollbackReceipt) -> dict[str, object]:
    """A receipt as plain values."""
    steps = [{"step": s.name, "observed": s.observed, "elapsed_seconds": round(s.elapsed_seconds, 3)} for s in receipt.steps]
    return {
        "reason": receipt.reason,
        "incumbent": receipt.incumbent,
        "steps": steps,
        "elapsed_seconds": round(receipt.elapsed_seconds, 3),
    }
