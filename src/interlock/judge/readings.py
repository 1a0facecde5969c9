"""What the judge says: one reading for each signal, one judgement over all of them."""

from dataclasses import dataclass
from enum import StrEnum


class JudgeOutcome(StrEnum):
    """HALT: roll back. CONTINUE: keep watching. PASS: proved, at the declared look only. INSUFFICIENT: nothing can be said."""

    HALT = "HALT"
    CONTINUE = "CONTINUE"
    PASS = "PASS"
    INSUFFICIENT = "INSUFFICIENT"


@dataclass(frozen=True, slots=True)
class SignalReading:
    """
    One signal at one look.

    value, limit: in `unit`; None when there is nothing to read. recent_value: the same over the last windows, if it restarts.
    e_value: evidence that the candidate is worse than tolerated, at most 1e299; 0 when the signal may not contribute.
    halting_e_value: where this signal alone would halt the release, 1/(alpha weight); None when it cannot.
    low, high: confidence bounds of the value, each at beta, at this look only.
    is_usable: False when the signal could not be judged (an exception, NaN): never PASS. is_proved: "worse than tolerated" is rejected
        at beta; it counts at the declared look only.
    decides: False when the signal is only shown: it neither halts nor stands in the way of a PASS.
    design_effect: by how much clustering made the data worth less than their number, at least 1; the evidence was tempered by it.
    breaks_at_e_value: where the signal voids every verdict instead of halting; None for all but the sample ratio.
    more_requests_needed: about how many more pairs until the proof if they go on like this; 0 when it stands, None when they lead nowhere.
    """

    name: str
    value: float | None
    limit: float | None
    unit: str
    sample_count: int
    e_value: float
    halting_e_value: float | None
    low: float | None
    high: float | None
    is_usable: bool
    is_proved: bool
    more_requests_needed: int | None
    reason: str
    recent_value: float | None = None
    decides: bool = True
    design_effect: float = 1.0
    breaks_at_e_value: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    The judge's answer: what to do and why.

    decided_by: the signal (or "slo") that weighs most in a HALT; None otherwise. e_value: the weighted sum over the signals that
    may count; HALT where it reaches `halting_line` = 1/alpha. is_blind: this look could not judge (no pairs, lost or broken pairs, a signal
    that failed): whoever asked may wait for the next look, but must not give the candidate more.
    """

    outcome: JudgeOutcome
    reason: str
    decided_by: str | None
    signals: tuple[SignalReading, ...]
    e_value: float
    halting_line: float
    is_blind: bool = False
