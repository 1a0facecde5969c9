"""The liveness gate: is every other gate alive? Each is first shown a candidate that it was made to refuse."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from interlock.control.gates.edge import judge_required, judged
from interlock.model.verdict import Measurement, Outcome, Verdict
from interlock.ports import Clock

GATE = "liveness"


@dataclass(frozen=True, slots=True)
class KnownBad:
    """
    A candidate made for one gate.

    defect: what is wrong with it, for people. refusal: the outcome that shows the gate alive; a gate that proves nothing about candidates
    (of traffic, say) refuses with INCONCLUSIVE. judge: the gate on it, cheaply.
    """

    gate: str
    defect: str
    refusal: Outcome
    judge: Callable[[], Verdict]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a gate said about its known-bad candidate, and what that cost."""

    known_bad: KnownBad
    verdict: Verdict
    elapsed_seconds: float

    @property
    def is_caught(self) -> bool:
        """Refused, and in the way it should be: a gate that only breaks over it has shown nothing."""
        return self.verdict.outcome is self.known_bad.refusal and bool(self.verdict.measurements)


def judge_liveness(known_bad: Sequence[KnownBad], *, clock: Clock, hold: Callable[[], None]) -> Verdict:
    """
    Does every gate refuse the candidate that was made for it?

    `<gate>_refused` is 1 where it does. A gate that passes its known-bad candidate, or cannot judge it, is INCONCLUSIVE here: nothing is
    wrong with the real candidate, and nothing can be said about it. `<gate>_seconds` is what showing it cost, and decides nothing.
    hold: called before each, to keep the plane.
    """

    def judge() -> Verdict:
        shown = [_show(each, clock, hold) for each in known_bad]
        measurements = [m for each in shown for m in _measurements(each)]
        required = [f"{each.gate}_refused" for each in known_bad]
        return judge_required(GATE, measurements, required=required, remarks=_remarks(shown))

    return judged(GATE, judge)


def _show(known_bad: KnownBad, clock: Clock, hold: Callable[[], None]) -> Shown:
    hold()
    started = clock.monotonic()
    verdict = judged(known_bad.gate, known_bad.judge)
    return Shown(known_bad, verdict, clock.monotonic() - started)


def _measurements(shown: Shown) -> Iterator[Measurement]:
    name = shown.known_bad.gate
    yield Measurement(f"{name}_refused", 1.0 if shown.is_caught else None, 1.0, "higher", "", 1, 1)
    yield Measurement(f"{name}_seconds", shown.elapsed_seconds, math.nan, "lower", "s", 1, 1)


def _remarks(shown: Sequence[Shown]) -> Iterator[str]:
    for each in shown:
        if not each.is_caught:
            yield (
                f"{each.known_bad.gate} said {each.verdict.outcome.name} to {each.known_bad.defect}, wanted {each.known_bad.refusal.name}: "
                f"it is not alive, or the profile's limits are too wide to tell ({each.verdict.reason})"
            )
