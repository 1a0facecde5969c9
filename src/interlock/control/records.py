"""Verdicts and receipts as plain values, the way evidence keeps them."""

import math
from typing import Any

from interlock.model.plane import RollbackReceipt
from interlock.model.verdict import Verdict


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values for the evidence. A value or limit that is not finite becomes None: JSON has no word for it."""
    return {
        "gate": verdict.gate,
        "outcome": verdict.outcome.name,
        "reason": verdict.reason,
        "measurements": [
            {
                "name": m.name,
                "value": _finite(m.value),
                "limit": _finite(m.limit),
                "better": m.better,
                "unit": m.unit,
                "n": m.sample_count,
                "min_n": m.min_sample_count,
                "low": _finite(m.bounds.low) if m.bounds else None,
                "high": _finite(m.bounds.high) if m.bounds else None,
                "confidence_percent": m.bounds.confidence_percent if m.bounds else None,
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


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
