"""From a release profile to the numbers the judge works with."""

from interlock.control.comparison import divergence_is_binary
from interlock.judge.policy import SEGMENT_PREFIX, JudgePolicy, SignalPolicy, StepPlan
from interlock.model.plane import ALL_TRAFFIC_BPS
from interlock.plan.phases import plan_all
from interlock.profile.schema import ReleaseProfile


def judge_policy(profile: ReleaseProfile) -> JudgePolicy:
    """The judge's numbers out of a release profile. PolicyError when they cannot be judged by."""
    judge = profile.judge
    return JudgePolicy(
        alpha=judge.alpha,
        beta=judge.beta,
        window_seconds=judge.restart_window_seconds,
        steps=tuple(StepPlan(phase.weight_bps / ALL_TRAFFIC_BPS, phase.bake_seconds) for phase in plan_all(profile.canary)),
        is_keyed=judge.unit == "key",
        divergence_tolerance=judge.divergence.tolerance,
        divergence_weight=judge.divergence.weight,
        divergence_is_binary=divergence_is_binary(profile.output),
        bias_tolerance=judge.bias.tolerance if judge.bias else None,
        bias_weight=judge.bias.weight if judge.bias else 0.0,
        segments=tuple(SignalPolicy(SEGMENT_PREFIX + each.name, each.weight, each.tolerance) for each in judge.segments),
        error_tolerance=judge.errors.tolerance,
        error_incumbent_ratio=judge.errors.incumbent_ratio,
        error_weight=judge.errors.weight,
        p50_tolerance_ratio=judge.p50.tolerance_ratio,
        p50_slack_ms=judge.p50.slack_ms,
        p50_weight=judge.p50.weight,
        p99_tolerance_ratio=judge.p99.tolerance_ratio,
        p99_slack_ms=judge.p99.slack_ms,
        p99_weight=judge.p99.weight,
        max_missing_share=judge.max_missing_percent / 100,
        slo_max_error_share=judge.slo.max_error_percent / 100,
        slo_max_p99_ms=judge.slo.max_p99_ms,
        slo_min_sample_count=judge.slo.min_sample_count,
    )
