"""The traffic gate: can the live traffic, as it comes, decide the canary in the planned time?"""

import math
from collections.abc import Iterator

from interlock.control.gates.edge import judge_required, judged
from interlock.judge.feasibility import Feasibility, judge_plan
from interlock.judge.policy import JudgePolicy
from interlock.model.verdict import Measurement, Verdict

GATE = "traffic"


def judge_traffic(policy: JudgePolicy, *, requests_per_second: float, seen_seconds: float | None = None) -> Verdict:
    """
    Is the plan long enough, with every pair clean, to prove every signal? Real traffic needs more, so PASS promises nothing.

    `planned_seconds` decides: its samples are the pairs that the plan brings, and too few are INCONCLUSIVE, never FAIL, since nothing is
    wrong with the candidate. `pairs_for_SIGNAL` beside it are what each signal gets and needs.
    """
    return judged(GATE, lambda: _judge(judge_plan(policy, requests_per_second=requests_per_second), seen_seconds))


def _judge(plan: Feasibility, seen_seconds: float | None) -> Verdict:
    expected_count = max(need.expected_count for need in plan.signals)
    stretch = plan.needed_seconds / plan.planned_seconds if plan.needed_seconds is not None else math.nan
    is_possible = plan.needed_seconds is not None
    decisive = Measurement(
        "planned_seconds",
        plan.planned_seconds if is_possible else None,
        plan.planned_seconds,
        "higher",
        "s",
        expected_count,
        math.ceil(expected_count * stretch) if is_possible else 1,
    )
    beside = [
        Measurement(
            f"pairs_for_{need.name}",
            float(need.expected_count),
            math.nan if need.needed_count is None else float(need.needed_count),
            "higher",
            "pairs",
            need.expected_count,
            need.needed_count or 1,
        )
        for need in plan.signals
    ]
    return judge_required(GATE, [decisive, *beside], required=[decisive.name], remarks=_remarks(plan, stretch, seen_seconds))


def _remarks(plan: Feasibility, stretch: float, seen_seconds: float | None) -> Iterator[str]:
    seen = "" if seen_seconds is None else f", as seen in the last {seen_seconds:.0f} s,"
    yield f"{plan.requests_per_second:.3g} live requests a second{seen} for {plan.planned_seconds:g} s before the declared look"
    short = [need for need in plan.signals if not need.is_enough]
    if plan.needed_seconds is None:
        names = ", ".join(need.name for need in short)
        yield f"no length of the canary would prove {names}: it takes more traffic or a wider tolerance"
    elif short:
        worst = max(short, key=lambda need: (need.needed_count or 0) / max(need.expected_count, 1))
        yield (
            f"{worst.name} gets {worst.expected_count} pairs and needs {worst.needed_count}: {plan.needed_seconds:.0f} s would do, "
            f"make every step {stretch:.2g} times as long or widen its tolerance"
        )
