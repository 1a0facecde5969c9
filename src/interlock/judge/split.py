"""
Is the split served the split that was asked for? When it is not, the arms are not what they were meant to be, and nothing is judged.

The test is anytime-valid like the others, but it is no part of the halting sum: a broken split means INSUFFICIENT, never a verdict.
"""

import math

import numpy as np

from interlock.errors import EvidenceError
from interlock.judge.bounds import share_bounds
from interlock.judge.eprocess import e_value, fail_bets, log_mixture, log_products_of_counts, log_restarting, log_sum
from interlock.judge.policy import JudgePolicy
from interlock.judge.readings import SignalReading
from interlock.judge.tally import PLANNED_EPOCHS, Tally
from interlock.model.journal import Arm

SPLIT_SIGNAL = "sample_ratio"

# One canary in a thousand with a true split is held for nothing.
BROKEN_E_VALUE = 1000.0

# Served and asked may differ by 0.1 percentage points: requests that were routed before the step began, and took longer than the rest.
_SPLIT_SLACK = 0.001


def read_sample_ratio(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """
    The candidate's share of live requests in the latest step, against the share asked for; the evidence is over all steps.

    Raises:
        EvidenceError: requests were counted under a step that the policy does not plan.
    """
    steps = sorted({step for step, *_ in tally.assigned})
    if steps and steps[-1] >= len(policy.steps):
        raise EvidenceError(f"step {steps[-1]} was counted, the policy plans {len(policy.steps)}")
    # A fixed share of the capital for each step, no product: a broken step must not first make up for what the good ones have lost.
    log_e = float(log_sum(np.array([_log_e_of_step(tally, policy, step) for step in range(len(policy.steps))]))) - math.log(
        len(policy.steps)
    )
    hits, count = _counts(tally, steps[-1]) if steps else (0, 0)
    asked = policy.steps[steps[-1]].share if steps else None
    bounds = share_bounds(hits, count, beta=policy.beta)
    is_broken = log_e >= math.log(BROKEN_E_VALUE)
    return SignalReading(
        name=SPLIT_SIGNAL,
        value=hits / count if count else None,
        limit=None,  # it may lie on either side of what was asked for, which the reason names
        unit="share",
        sample_count=sum(tally.assigned.values()),
        e_value=e_value(log_e),
        halting_e_value=None,
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        is_usable=True,
        is_proved=count > 0 and not is_broken,
        more_requests_needed=None if is_broken else 0 if count else 1,
        reason=_describe(hits, count, asked, is_broken),
        breaks_at_e_value=BROKEN_E_VALUE,
    )


def is_broken_split(reading: SignalReading) -> bool:
    """Whether the evidence against the split is beyond chance."""
    return reading.e_value >= BROKEN_E_VALUE


def _counts(tally: Tally, step: int, since_epoch: int = 0) -> tuple[int, int]:
    counts = {
        arm: sum(n for (at, epoch, held), n in tally.assigned.items() if (at, held) == (step, arm) and epoch >= since_epoch) for arm in Arm
    }
    return counts[Arm.CANDIDATE], counts[Arm.CANDIDATE] + counts[Arm.INCUMBENT]


def _log_e_of_step(tally: Tally, policy: JudgePolicy, step: int) -> float:
    """Since the step began and since each of its epochs: a split that breaks late must not wait until a good past is made up for."""
    epochs = sorted({epoch for at, epoch, _ in tally.assigned if at == step})
    if not epochs:
        return 0.0
    from_here = [_log_e(*_counts(tally, step, epoch), policy.steps[step].share) for epoch in epochs]
    since = np.array(epochs, dtype=np.float64) - epochs[0]
    return log_restarting(np.array(from_here), since, planned_window_count=PLANNED_EPOCHS)


def _log_e(hits: int, count: int, asked: float) -> float:
    """Half the capital on "more than asked", half on "less"; a side on which there is nothing to be found keeps its half."""
    sides = []
    for successes, share in ((hits, asked), (count - hits, 1 - asked)):
        edge = share + _SPLIT_SLACK
        bets = fail_bets(edge) if edge < 1 else None
        sides.append(float(log_mixture(log_products_of_counts(np.array(float(successes)), count, bets), bets)) if bets else 0.0)
    return float(log_sum(np.array(sides))) - math.log(2)


def _describe(hits: int, count: int, asked: float | None, is_broken: bool) -> str:
    if asked is None:
        return "no live request has been seen"
    served = f"{hits} of {count} live requests went to the candidate, {asked:.2%} were asked for"
    return f"SPLIT_BROKEN: {served}" if is_broken else served
