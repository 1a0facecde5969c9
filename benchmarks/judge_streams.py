"""
The streams of the judge's acceptance tables: their scenarios, seeds and laws, and what no test can beat on each of them.

Repetitions are drawn in blocks from one generator a scenario, so a shorter run sees the first repetitions of a longer one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from interlock.judge.grids import Floats

ALPHA = 0.05
DIVERGENCE_TOLERANCE = 0.02
INCUMBENT_NOISE = 0.005  # the incumbent against itself: a quarter of the tolerance, the control series that Kayenta's judge needs
PAIRS, PAIRS_PER_MINUTE = 6_000, 100
ERROR_TOLERANCE, INCUMBENT_ERROR_SHARE = 0.005, 0.005
REQUESTS, REQUESTS_PER_MINUTE = 36_000, 600
LATENCY_REQUESTS = 72_000
CANDIDATE_SHARE = 0.10
OUTAGE_MINUTES, OUTAGE_ERROR_SHARE = (10, 30, 50), 0.5  # for both arms; the table says only "three shared outage minutes"
LATENCY_RATIO = {0.5: 0.10, 0.99: 0.25}

Bools = NDArray[np.bool_]
SINCE_START, RESTARTS = "e-process since start", "e-process with restarts"


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One column of a table: the law with number `key` in the seeds.

    within_tolerance: a halt is a false one. onset: requests before the regression begins. published: (since start, with restarts), the
    design's median delay in requests after onset, NaN where it has none. bound: no test halts sooner on average, in requests; NaN
    within tolerance. quantile: of latency, else 0.
    """

    table: str
    key: int
    label: str
    effect: float
    within_tolerance: bool = False
    onset: int = 0
    published: tuple[float, float] = (math.nan, math.nan)
    bound: float = math.nan
    quantile: float = 0.0

    @property
    def is_calm(self) -> bool:
        """Both arms alike: far within the tolerance."""
        return self.within_tolerance and self.effect == (INCUMBENT_ERROR_SHARE if self.table == "T3" else 1.0)


def kl_bernoulli(share: float, null_share: float) -> float:
    """Kullback-Leibler divergence, in nats, of a 0/1 datum with P(1) = `share` from one with `null_share`, both inside (0, 1)."""
    return float(special.rel_entr(share, null_share) + special.rel_entr(1 - share, 1 - null_share))


def wald_requests(nats_per_request: float) -> float:
    """ln(1/alpha) nats at that rate. Source: Wald 1945; the rate of the best test is KL(law || null)."""
    return math.log(1 / ALPHA) / nats_per_request


def best_bet_nats(points: Floats, shares: Floats, *, mean: float, low: float) -> float:
    """max over lam of E ln(1 + lam (x - mean)): the KL of the law from the nearest law on [low, high] whose mean is within the null."""

    def loss(stake: float) -> float:
        return -float(shares @ np.log1p(stake * (points - mean)))

    ruin = 1 / (mean - low)
    return -float(optimize.minimize_scalar(loss, bounds=(0.0, ruin * (1 - 1e-9)), method="bounded", options={"xatol": 1e-9}).fun)


def label_share(scenario: Scenario) -> Floats:
    """P(D = 1) of every pair."""
    position = np.arange(PAIRS)
    if scenario.key == 2:
        return np.asarray(scenario.effect * (1 - 0.8 * np.sin(2 * np.pi * position / PAIRS)))
    return np.where(position < scenario.onset, 0.005, scenario.effect)


def score_law(mean: float) -> tuple[float, float]:
    """Beta parameters of scores with that mean: most near 0, some near 1."""
    return 0.5, 0.5 / mean - 0.5


def divergence_blocks(scenario: Scenario, repetitions: int) -> Iterator[tuple[Floats, Floats]]:
    """D of the candidate and, from a stream of its own, of the incumbent against itself; each (up to 500, PAIRS)."""
    table = int(scenario.table[1])
    rng, noise = np.random.default_rng([table, scenario.key]), np.random.default_rng([table, scenario.key, 99])
    for first in range(0, repetitions, 500):
        shape = (min(500, repetitions - first), PAIRS)
        if table == 1:
            yield (rng.random(shape) < label_share(scenario)).astype(float), (noise.random(shape) < INCUMBENT_NOISE).astype(float)
        else:
            yield rng.beta(*score_law(scenario.effect), shape), noise.beta(*score_law(INCUMBENT_NOISE), shape)


def error_blocks(scenario: Scenario, repetitions: int) -> Iterator[tuple[Bools, Bools]]:
    """Whether each request went to the candidate, and whether it failed; each (100, REQUESTS), the table's chunks."""
    rng = np.random.default_rng([3, scenario.key])
    incumbent = np.full(REQUESTS, INCUMBENT_ERROR_SHARE, np.float32)
    candidate = np.full(REQUESTS, scenario.effect, np.float32)
    if scenario.key == 2:
        for minute in OUTAGE_MINUTES:
            outage = slice(minute * REQUESTS_PER_MINUTE, (minute + 1) * REQUESTS_PER_MINUTE)
            incumbent[outage] = candidate[outage] = OUTAGE_ERROR_SHARE
    for _ in range(0, repetitions, 100):
        on_candidate = rng.random((100, REQUESTS), dtype=np.float32) < CANDIDATE_SHARE
        yield on_candidate, rng.random((100, REQUESTS), dtype=np.float32) < np.where(on_candidate, candidate, incumbent)


def latencies(scenario: Scenario, repetition: int) -> tuple[Bools, Floats]:
    """Whether each request went to the candidate, and its latency in ms; each (LATENCY_REQUESTS,)."""
    rng = np.random.default_rng([4, scenario.key, repetition])
    on_candidate = rng.random(LATENCY_REQUESTS) < CANDIDATE_SHARE
    latency_ms = 40 * np.exp(0.5 * rng.standard_normal(LATENCY_REQUESTS))
    tail = rng.random(LATENCY_REQUESTS) < 0.03
    latency_ms[tail] *= 1 + rng.pareto(1.5, int(tail.sum()))
    if scenario.key == 7:
        latency_ms[on_candidate & (rng.random(LATENCY_REQUESTS) < 0.02)] += 500
    if scenario.key == 9:
        latency_ms *= 1 + 0.8 * np.sin(2 * np.pi * np.arange(LATENCY_REQUESTS) / LATENCY_REQUESTS)
    return on_candidate, latency_ms * np.where(on_candidate, scenario.effect, 1.0)


def slower_share(limit_ms: float) -> float:
    """P(an incumbent latency exceeds the limit), by the law of `latencies` without drift."""
    normal = np.linspace(-9, 9, 8001)
    tail = np.minimum(1.0, (40 * np.exp(0.5 * normal) / max(limit_ms, 1e-9)) ** 1.5)
    body = float(stats.norm.sf(2 * math.log(max(limit_ms, 1e-9) / 40)))
    return 0.97 * body + 0.03 * float(np.trapezoid(tail * stats.norm.pdf(normal), normal))


def _labels() -> list[Scenario]:
    rows = [(3, 0.03, 1597.0, 1930.0), (4, 0.04, 490.0, 615.0), (5, 0.06, 147.0, 190.0), (6, 0.10, 42.0, 70.0), (7, 0.30, 7.0, 10.0)]
    regressions = [(key, f"p=.{100 * share:02.0f}", share, 0, (a, b)) for key, share, a, b in rows]
    regressions.append((9, ".10 after 3,000", 0.10, 3000, (926.0, 120.0)))
    return [
        Scenario("T1", 1, "at tolerance", DIVERGENCE_TOLERANCE, within_tolerance=True),
        Scenario("T1", 2, "drifting", DIVERGENCE_TOLERANCE, within_tolerance=True),
        *(
            Scenario("T1", k, name, p, onset=onset, published=known, bound=wald_requests(kl_bernoulli(p, DIVERGENCE_TOLERANCE)))
            for k, name, p, onset, known in regressions
        ),
    ]


def _score_bound(mean: float) -> float:
    a, b = score_law(mean)
    nodes, weights = special.roots_jacobi(80, b - 1, a - 1)
    return wald_requests(best_bet_nats((1 + nodes) / 2, weights / weights.sum(), mean=DIVERGENCE_TOLERANCE, low=0.0))


def _scores() -> list[Scenario]:
    rows = [(4, 0.025, 280.0), (5, 0.03, 92.0), (6, 0.05, 20.0)]
    return [
        Scenario("T2", 2, "at tolerance", DIVERGENCE_TOLERANCE, within_tolerance=True),
        *(Scenario("T2", k, f"mean {mean:.3f}", mean, published=(known, math.nan), bound=_score_bound(mean)) for k, mean, known in rows),
    ]


def _error_bound(share: float) -> float:
    c, b = CANDIDATE_SHARE, INCUMBENT_ERROR_SHARE
    hits = np.array([c * share, (1 - c) * b])
    points, shares = np.array([1 / c, -1 / (1 - c), 0.0]), np.append(hits, 1 - hits.sum())
    return wald_requests(best_bet_nats(points, shares, mean=ERROR_TOLERANCE, low=-1 / (1 - c)))


def _errors() -> list[Scenario]:
    rows = [(4, 0.02, 8960.0), (5, 0.03, 3290.0), (6, 0.05, 950.0), (7, 0.20, 160.0)]
    return [
        Scenario("T3", 1, "at tolerance .010", 0.010, within_tolerance=True),
        Scenario("T3", 2, "equal, 3 outages", INCUMBENT_ERROR_SHARE, within_tolerance=True),
        *(
            Scenario("T3", k, f"p=.{100 * share:02.0f}", share, published=(known, math.nan), bound=_error_bound(share))
            for k, share, known in rows
        ),
    ]


def _latency_bound(quantile: float, candidate_slower_share: Callable[[float], float]) -> float:
    incumbent_ms = float(optimize.brentq(lambda limit: slower_share(limit) - (1 - quantile), 1.0, 1e4))
    exceeding = candidate_slower_share(incumbent_ms * (1 + LATENCY_RATIO[quantile]))
    return wald_requests(kl_bernoulli(exceeding, 1 - quantile)) / CANDIDATE_SHARE


def _median_bound(ratio: float) -> float:
    return _latency_bound(0.5, lambda limit: slower_share(limit / ratio))


def _latency() -> list[Scenario]:
    calm = [(0, "equal"), (9, "drifting")]
    edge = [(11, 0.5), (12, 0.99)]  # not in the design's table, but the only rows that show whether a rule keeps alpha
    scaled, late = (
        [(5, 1.5, 1200.0), (6, 2.0, 600.0)],
        _latency_bound(0.99, lambda x: 0.98 * slower_share(x) + 0.02 * slower_share(x - 500)),
    )
    return [
        *(Scenario("T4", k, f"p{100 * q:.0f} {name}", 1.0, within_tolerance=True, quantile=q) for k, name in calm for q in (0.5, 0.99)),
        *(Scenario("T4", k, f"p{100 * q:.0f} at tolerance", 1 + LATENCY_RATIO[q], within_tolerance=True, quantile=q) for k, q in edge),
        *(Scenario("T4", k, f"p50 x{r:g}", r, published=(t, math.nan), bound=_median_bound(r), quantile=0.5) for k, r, t in scaled),
        Scenario("T4", 5, "p99 x1.5", 1.5, bound=_latency_bound(0.99, lambda x: slower_share(x / 1.5)), quantile=0.99),
        Scenario("T4", 7, "p99 2 % +500 ms", 1.0, published=(9000.0, math.nan), bound=late, quantile=0.99),
    ]


def scenarios() -> list[Scenario]:
    """Every column of the four tables."""
    return [*_labels(), *_scores(), *_errors(), *_latency()]
