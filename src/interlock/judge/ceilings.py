"""The absolute ceilings of the release profile, on the candidate alone, whatever the incumbent does."""

import math

import numpy as np

from interlock.judge.bounds import more_needed, rejects_share, share_bounds
from interlock.judge.eprocess import fail_bets, log_mixture, log_products_of_counts
from interlock.judge.evidence import Evidence, clean_need, read_evidence
from interlock.judge.feasibility import SLO_QUANTILE
from interlock.judge.grids import LATENCY_LOWER_MS, LATENCY_UPPER_MS
from interlock.judge.policy import SLO_WEIGHT, JudgePolicy, SignalPolicy
from interlock.judge.readings import SignalReading
from interlock.judge.tally import Tally
from interlock.model.journal import Arm

SLO_SIGNALS = ("slo_error_share", "slo_p99")
SLO_SIGNAL_WEIGHT = SLO_WEIGHT / len(SLO_SIGNALS)


def read_slo_error_share(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Error share of the candidate alone against its hard ceiling."""
    counts = tally.errors.totals()
    hits, count = int(counts[2] + counts[3]), int(counts.sum())
    log_e = _log_e_since_start(hits, count, policy.slo_max_error_share)
    return _read_ceiling(SLO_SIGNALS[0], policy, hits=(hits, hits), count=count, ceiling=policy.slo_max_error_share, log_e=log_e)


def read_slo_p99(tally: Tally, policy: JudgePolicy) -> SignalReading:
    """Share of the candidate's answers that are slower than the hard p99 ceiling, against 1 %. No answer is slower than any ceiling."""
    counts = tally.latency_totals(Arm.CANDIDATE)
    surely = int(counts[policy.slo_max_p99_ms < LATENCY_LOWER_MS].sum())
    perhaps = int(counts[policy.slo_max_p99_ms < LATENCY_UPPER_MS].sum())
    count = int(counts.sum())
    log_e = _log_e_since_start(surely, count, 1 - SLO_QUANTILE)
    return _read_ceiling(SLO_SIGNALS[1], policy, hits=(surely, perhaps), count=count, ceiling=1 - SLO_QUANTILE, log_e=log_e)


def _read_ceiling(name: str, policy: JudgePolicy, *, hits: tuple[int, int], count: int, ceiling: float, log_e: float) -> SignalReading:
    """
    A share under a hard ceiling: `hits` as surely and as perhaps counted (they differ by one latency bin).

    Halting takes the e-process, not the point value nor a binomial bound: the ceiling is looked at once a second, and an exact bound
    read 600 times fires far more often than alpha. Below `slo_min_sample_count` it may not contribute at all.
    """
    low_hits, high_hits = hits
    enough = count >= policy.slo_min_sample_count

    def proves(growth: float) -> bool:
        total = math.floor(count * growth)
        return total >= policy.slo_min_sample_count and rejects_share(
            math.ceil(high_hits * growth), total, ceiling=ceiling, beta=policy.beta
        )

    signal = SignalPolicy(name, SLO_SIGNAL_WEIGHT / (1 - SLO_WEIGHT), ceiling)
    low, high = share_bounds(low_hits, count, beta=policy.beta), share_bounds(high_hits, count, beta=policy.beta)
    evidence = Evidence(
        mean=high_hits / count if count else None,
        count=count,
        log_e=log_e if enough else -math.inf,
        bounds=(low[0], high[1]) if low and high else None,
        more=more_needed(count, proves) if count else clean_need(policy, name),
    )
    return read_evidence(signal, policy, evidence)


def _log_e_since_start(hits: int, count: int, ceiling: float) -> float:
    """No restarts: a ceiling is for the whole canary, and a short outage that both arms share is no reason to roll back."""
    bets = fail_bets(ceiling)
    return float(log_mixture(log_products_of_counts(np.array(float(hits)), count, bets), bets))
