"""The phases of a release that traffic takes part in: shadow, canary steps, bake."""

from dataclasses import dataclass

from interlock.model.plane import ALL_TRAFFIC_BPS
from interlock.profile.schema import Canary


@dataclass(frozen=True, slots=True)
class Phase:
    """A candidate share held for a time. `index` counts from 0 and numbers the judge's histograms."""

    index: int
    name: str
    weight_bps: int
    bake_seconds: float


def plan_phases(canary: Canary) -> tuple[Phase, ...]:
    """Shadow (weight 0) and the canary steps, in order. The bake is planned apart: it follows the promotion, not the canary."""
    shadow = Phase(0, "shadow", 0, canary.shadow_seconds)
    steps = (Phase(i, f"canary {step.weight_bps / 100:g} %", step.weight_bps, step.bake_seconds) for i, step in enumerate(canary.steps, 1))
    return (shadow, *steps)


def plan_bake(canary: Canary) -> Phase:
    """All traffic on the candidate while the incumbent stays warm and mirrored."""
    return Phase(len(canary.steps) + 1, "bake", ALL_TRAFFIC_BPS, canary.bake_seconds)


def plan_all(canary: Canary) -> tuple[Phase, ...]:
    """Every phase with traffic, in the order of its index; the bake is the last."""
    return (*plan_phases(canary), plan_bake(canary))


def planned_seconds(canary: Canary) -> float:
    """From the start of the shadow to the end of the bake, when nothing halts."""
    return sum(phase.bake_seconds for phase in plan_all(canary))
