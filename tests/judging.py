"""What the tests of the judge share: one policy, and pairs to feed it."""

from collections.abc import Iterable

from interlock.judge.pairs import Fate, PairResult
from interlock.judge.policy import JudgePolicy, StepPlan
from interlock.judge.readings import Judgement, SignalReading
from interlock.judge.tally import Tally
from interlock.model.journal import Arm

POLICY = JudgePolicy(
    alpha=0.01,
    beta=0.05,
    window_seconds=5.0,
    steps=(StepPlan(0.5, 300.0), StepPlan(0.5, 300.0)),
    is_keyed=False,
    divergence_tolerance=0.02,
    divergence_weight=0.35,
    divergence_is_binary=True,
    bias_tolerance=None,
    bias_weight=0.0,
    segments=(),
    error_tolerance=0.005,
    error_incumbent_ratio=1.0,
    error_weight=0.35,
    p50_tolerance_ratio=0.10,
    p50_slack_ms=0.0,
    p50_weight=0.10,
    p99_tolerance_ratio=0.25,
    p99_slack_ms=0.0,
    p99_weight=0.20,
    max_missing_share=0.05,
    slo_max_error_share=0.05,
    slo_max_p99_ms=500.0,
    slo_min_sample_count=50,
)
CLEAN = PairResult(Fate.JUDGED, 0.0, 0.0, False, False, Arm.CANDIDATE, 10.0, 10.0)
BAD = CLEAN._replace(divergence=1.0, candidate_failed=True, candidate_latency_ms=None)


def mixed(pair: PairResult, count: int) -> list[PairResult]:
    """So many pairs, live on the candidate and on the incumbent in turn: half of the traffic each."""
    return [pair._replace(live_arm=(Arm.CANDIDATE, Arm.INCUMBENT)[i % 2]) for i in range(count)]


def table(*groups: Iterable[PairResult], seconds: float = 600.0) -> Tally:
    """Pairs of each group spread evenly over the canary; the groups run side by side."""
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    for group in groups:
        pairs = list(group)
        tally.add([pair._replace(at_seconds=i * seconds / len(pairs)) for i, pair in enumerate(pairs)], 0)
    return tally


def reading(judgement: Judgement, name: str) -> SignalReading:
    """The signal with this name."""
    return next(signal for signal in judgement.signals if signal.name == name)
