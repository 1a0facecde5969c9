"""From what the counts of one signal say to its reading."""

from dataclasses import dataclass

from interlock.judge.eprocess import e_value
from interlock.judge.feasibility import needs
from interlock.judge.policy import JudgePolicy, SignalPolicy
from interlock.judge.readings import SignalReading


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one signal's counts say: mean and bounds of the datum, log e-value of a halt, and how much the proof still needs."""

    mean: float | None
    count: int
    log_e: float
    bounds: tuple[float, float] | None
    more: int | None
    recent: float | None = None


def clean_need(policy: JudgePolicy, name: str) -> int:
    """Clean pairs this signal needs at the very least."""
    return dict(needs(policy))[name]


def read_evidence(signal: SignalPolicy, policy: JudgePolicy, evidence: Evidence) -> SignalReading:
    """The reading of a signal whose datum is a share or a mean."""
    decides = signal.weight > 0
    return SignalReading(
        name=signal.name,
        value=evidence.mean,
        limit=signal.tolerance,
        unit="share",
        sample_count=evidence.count,
        e_value=e_value(evidence.log_e),
        halting_e_value=1 / (policy.alpha * signal.sum_weight) if decides else None,
        low=evidence.bounds[0] if evidence.bounds else None,
        high=evidence.bounds[1] if evidence.bounds else None,
        is_usable=True,
        is_proved=evidence.count > 0 and evidence.more == 0,
        more_requests_needed=evidence.more,
        reason=describe(evidence.count, evidence.more),
        recent_value=evidence.recent,
        decides=decides,
    )


def describe(count: int, more: int | None) -> str:
    """The proof so far, in words: what stands, or how much is missing."""
    if count == 0:
        return f"INSUFFICIENT_EVIDENCE n=0 of {more} needed"
    if more == 0:
        return f"within tolerance, proved by n={count}"
    if more is None:
        return f"INSUFFICIENT_EVIDENCE n={count}, and more of the same would not prove it within tolerance"
    return f"INSUFFICIENT_EVIDENCE n={count} of about {count + more} needed"
