"""The four releases of the demonstration, and what each has to end as."""

from dataclasses import dataclass

from interlock.demo.models import Fault
from interlock.model.release import Decision


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One candidate. `fault` becomes active `fault_after_seconds` after its canary began (live traffic above 0); None stays healthy.

    `expected_signals` are the signals that may decide: a failing candidate answer is an error and a divergence at once.
    """

    key: str
    title: str
    seed: int
    expected: Decision
    fault: Fault | None = None
    fault_after_seconds: float = 0.0
    expected_signals: tuple[str, ...] = ()


SCENARIOS = (
    Scenario("better", "a better model", 11, Decision.PROMOTED),
    Scenario("skewed", "two feature columns swapped at serving time", 12, Decision.ROLLED_BACK, "skew", 2.0, ("divergence",)),
    Scenario("slow", "a lookup that queues under load", 13, Decision.ROLLED_BACK, "slow", 2.0, ("p50", "p99", "slo")),
    Scenario(
        "failing", "5 % of requests fail, after two minutes", 14, Decision.ROLLED_BACK, "fail", 120.0, ("errors", "divergence", "slo")
    ),
)
