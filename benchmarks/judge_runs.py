"""
Every method on every repetition of one scenario: our own e-processes, by the judge's own bets, weights and grids, and the rivals.

An answer is the request of the halt for each repetition, 0 = never.
"""

import math
from collections.abc import Callable

import numpy as np

from benchmarks.judge_rivals import (
    BetaBinomialMixture,
    Ints,
    NormalMixture,
    argo,
    bound,
    fixed_horizon,
    kayenta,
    kearns_saul_variance,
    obrien_fleming,
    peeked,
    peeked_t,
    pocock,
    z_rule,
)
from benchmarks.judge_streams import (
    ALPHA,
    CANDIDATE_SHARE,
    DIVERGENCE_TOLERANCE,
    ERROR_TOLERANCE,
    INCUMBENT_ERROR_SHARE,
    LATENCY_RATIO,
    LATENCY_REQUESTS,
    PAIRS,
    PAIRS_PER_MINUTE,
    REQUESTS,
    REQUESTS_PER_MINUTE,
    RESTARTS,
    SINCE_START,
    Bools,
    Scenario,
    divergence_blocks,
    error_blocks,
    latencies,
)
from interlock.judge.eprocess import Bets, fail_bets, log_restarting
from interlock.judge.grids import DIVERGENCE_NODES, LATENCY_CELLS, LATENCY_UPPER_MS, UNITS_PER_PAIR, Floats, latency_cells, share_units
from interlock.judge.policy import LatencyTolerance
from interlock.judge.quantiles import slower_test

LINE = math.log(1 / ALPHA)
TUNED = 2.5  # the tuned rule's threshold, as a multiple of the tolerance
TUNED_ERROR_SHARE = 0.04
TUNED_V_PAIRS = 1000  # the horizon in pairs that the Howard-Ramdas boundaries are tuned for: a delay in the middle of the table
ERROR_STEP = 10  # requests between two looks at the errors
Halts = dict[str, Ints]


def restart_plan(window_count: int) -> tuple[Floats, float]:
    """
    What the judge's restarting mixture weighs the process begun at each window with (the first: since the start), and the rest, kept.

    Read off its public form, which is linear in the e-values, one unit e-value at a time.
    """
    windows = np.arange(float(window_count))

    def mixed(from_here: Floats) -> float:
        return math.exp(log_restarting(from_here, windows, planned_window_count=window_count))

    kept = mixed(np.full(window_count, -np.inf))
    return np.array([mixed(np.where(windows == w, 0.0, -np.inf)) - kept for w in windows]), kept


def first_crossings(growth_at: Callable[[int], Floats], *, step_count: int, steps_per_window: int, bets: Bets) -> Halts:
    """
    The first step (1-based) at which each repetition reaches the line, 0 = never, since start and with restarts.

    growth_at: growth (not its log) of every bet in that step, shape (repetitions, bets).
    """
    weights, (begun, _) = np.exp(bets.log_weights), restart_plan(step_count // steps_per_window)
    start = np.ones_like(growth_at(0))
    restarted, halts = np.zeros_like(start), {name: np.zeros(start.shape[0], dtype=np.int64) for name in (SINCE_START, RESTARTS)}
    for step in range(step_count):
        if step and step % steps_per_window == 0:
            restarted += begun[step // steps_per_window]
        growth = growth_at(step)
        start, restarted = np.minimum(start * growth, 1e200), np.minimum(restarted * growth, 1e200)
        since_start = start @ weights
        not_begun = 1 - begun[: step // steps_per_window + 1].sum()
        for halt, e in zip(halts.values(), (since_start, begun[0] * since_start + restarted @ weights + not_begun), strict=True):
            halt[(halt == 0) & (e >= 1 / ALPHA)] = step + 1
        if all(halt.all() for halt in halts.values()):
            break
    return halts


def divergence_crossings(divergences: Floats) -> Halts:
    """Our process on D (repetitions, pairs), a look after every pair."""
    bets = fail_bets(DIVERGENCE_TOLERANCE)
    logs = bets.log_factors(DIVERGENCE_NODES)
    node_above = np.minimum(np.arange(DIVERGENCE_NODES.size) + 1, DIVERGENCE_NODES.size - 1)

    def growth_at(pair: int) -> Floats:
        lower, above = share_units(divergences[:, pair])
        high = above[:, None] / UNITS_PER_PAIR
        return np.asarray(np.exp((1 - high) * logs[lower] + high * logs[node_above[lower]]))

    return first_crossings(growth_at, step_count=divergences.shape[1], steps_per_window=PAIRS_PER_MINUTE, bets=bets)


def mixture_crossings(divergences: Floats) -> Halts:
    """The boundaries of Howard and Ramdas on the same D, a look after every pair."""
    m, pairs = DIVERGENCE_TOLERANCE, np.arange(1.0, divergences.shape[1] + 1)
    excess = divergences.cumsum(axis=1) - m * pairs
    rivals = (
        ("beta-binomial mixture", m * (1 - m), lambda v: BetaBinomialMixture.tuned(v, ALPHA, g=m, h=1 - m, one_sided=True)),
        ("normal mixture", kearns_saul_variance(m), lambda v: NormalMixture.tuned(v, ALPHA, one_sided=True)),
    )
    halts = {}
    for name, variance, tuned in rivals:
        limit = bound(tuned(variance * TUNED_V_PAIRS), variance * pairs, log_threshold=LINE, highest=(1 - m) * pairs)
        halts[name] = z_rule(excess, limit, pairs.astype(np.int64))
    return halts


def mean_z(total: Floats, squares: Floats, count: Floats, *, mean: float) -> Floats:
    """z of a running mean against `mean`, with the sample's own variance; NaN where nothing varied yet."""
    variance = (squares - total * total / count) / np.maximum(count - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((total - count * mean) / np.sqrt(np.where(variance > 0, variance, np.nan) * count))


def sequential(z: Floats, requests: Ints) -> Halts:
    """The group-sequential rules at equally spaced looks, and one look at the end."""
    rules = (("Pocock", pocock), ("O'Brien-Fleming", obrien_fleming), ("fixed horizon", fixed_horizon))
    return {name: z_rule(z, rule(requests.size, alpha=ALPHA), requests) for name, rule in rules}


def window_rules(candidate: Floats, incumbent: Floats, *, thresholds: tuple[float, float], requests_per_window: int) -> Halts:
    """Argo untuned and tuned on the candidate's window values, Kayenta on both arms'."""
    untuned, tuned = (argo(candidate, threshold=threshold, requests_per_window=requests_per_window) for threshold in thresholds)
    return {
        "Argo": untuned,
        "Argo, tuned": tuned,
        "Kayenta": kayenta(candidate, incumbent, requests_per_window=requests_per_window),
    }


def divergence_rivals(divergences: Floats, noise: Floats, *, labels: bool) -> Halts:
    """The rivals on D of the candidate, with the incumbent against itself as Kayenta's control. Labels: the null's variance is known."""
    minutes = divergences.reshape(divergences.shape[0], -1, PAIRS_PER_MINUTE)
    looks = np.arange(PAIRS_PER_MINUTE, PAIRS + 1, PAIRS_PER_MINUTE)
    total, squares = minutes.sum(axis=2).cumsum(axis=1), (minutes * minutes).sum(axis=2).cumsum(axis=1)
    thresholds = (DIVERGENCE_TOLERANCE, TUNED * DIVERGENCE_TOLERANCE)
    z = mean_z(total, squares, looks.astype(float), mean=DIVERGENCE_TOLERANCE)
    known_z = (total - looks * DIVERGENCE_TOLERANCE) / np.sqrt(looks * DIVERGENCE_TOLERANCE * (1 - DIVERGENCE_TOLERANCE))
    return {
        **window_rules(
            minutes.mean(axis=2), noise.reshape(minutes.shape).mean(axis=2), thresholds=thresholds, requests_per_window=PAIRS_PER_MINUTE
        ),
        "peeked t": z_rule(z, peeked_t(looks, alpha=ALPHA), looks),
        **sequential(known_z if labels else z, looks),
    }


def judge_divergence(scenario: Scenario, repetitions: int) -> Halts:
    """T1 and T2."""
    parts = [
        {**divergence_crossings(data), **mixture_crossings(data), **divergence_rivals(data, noise, labels=scenario.table == "T1")}
        for data, noise in divergence_blocks(scenario, repetitions)
    ]
    return _joined(parts)


def error_counts(on_candidate: Bools, failed: Bools) -> Floats:
    """Candidate errors, incumbent errors and requests without one, in every ERROR_STEP requests: (repetitions, steps, 3)."""
    kinds = np.stack([failed & on_candidate, failed & ~on_candidate, ~failed], axis=2)
    return np.asarray(kinds.reshape(kinds.shape[0], -1, ERROR_STEP, 3).sum(axis=2), dtype=float)


def error_bets() -> Bets:
    """The judge's bets on the inverse-probability datum of one request."""
    return fail_bets(ERROR_TOLERANCE, low=-1 / (1 - CANDIDATE_SHARE), high=1 / CANDIDATE_SHARE)


def error_points() -> Floats:
    """The datum of a candidate error, an incumbent error, and no error."""
    return np.array([1 / CANDIDATE_SHARE, -1 / (1 - CANDIDATE_SHARE), 0.0])


def error_crossings(counts: Floats) -> Halts:
    """Our process on the unpaired errors, in requests, a look every ERROR_STEP requests."""
    bets = error_bets()
    logs = bets.log_factors(error_points())
    steps = first_crossings(
        lambda step: np.asarray(np.exp(counts[:, step] @ logs)),
        step_count=counts.shape[1],
        steps_per_window=REQUESTS_PER_MINUTE // ERROR_STEP,
        bets=bets,
    )
    return {name: ERROR_STEP * halts for name, halts in steps.items()}


def error_rivals(on_candidate: Bools, counts: Floats) -> Halts:
    """The rivals on the same errors: the z of the same datum, and each arm's error share a minute."""
    per_minute = counts.reshape(counts.shape[0], -1, REQUESTS_PER_MINUTE // ERROR_STEP, 3).sum(axis=2)
    sent = np.maximum(on_candidate.reshape(per_minute.shape[0], -1, REQUESTS_PER_MINUTE).sum(axis=2), 1)
    shares = [per_minute[..., 0] / sent, per_minute[..., 1] / (REQUESTS_PER_MINUTE - sent)]
    thresholds = (INCUMBENT_ERROR_SHARE + ERROR_TOLERANCE, TUNED_ERROR_SHARE)

    def look_every(requests: int) -> tuple[Floats, Ints]:
        cumulative = counts.cumsum(axis=1)[:, requests // ERROR_STEP - 1 :: requests // ERROR_STEP]
        looks = np.arange(requests, REQUESTS + 1, requests)
        return mean_z(cumulative @ error_points(), cumulative @ error_points() ** 2, looks.astype(float), mean=ERROR_TOLERANCE), looks

    often, looks = look_every(100)
    return {
        **window_rules(shares[0], shares[1], thresholds=thresholds, requests_per_window=REQUESTS_PER_MINUTE),
        "peeked t": z_rule(often, peeked_t(looks, alpha=ALPHA), looks),
        **sequential(*look_every(REQUESTS_PER_MINUTE)),
    }


def judge_errors(scenario: Scenario, repetitions: int) -> Halts:
    """T3."""
    parts = []
    for on_candidate, failed in error_blocks(scenario, repetitions):
        counts = error_counts(on_candidate, failed)
        parts.append({**error_crossings(counts), **error_rivals(on_candidate, counts)})
    return _joined(parts)


def histograms(on_candidate: Bools, latency_ms: Floats) -> tuple[Floats, Floats]:
    """Counts so far of candidate and incumbent in the judge's latency cells, after every minute: each (minutes, LATENCY_CELLS)."""
    minute = np.arange(latency_ms.size) // REQUESTS_PER_MINUTE
    place, shape = minute * LATENCY_CELLS + latency_cells(latency_ms), (int(minute[-1]) + 1, LATENCY_CELLS)
    candidate, incumbent = (
        np.bincount(place[arm], minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=0).astype(float)
        for arm in (on_candidate, ~on_candidate)
    )
    return candidate, incumbent


def latency_crossing(candidate: Floats, incumbent: Floats, *, quantile: float) -> int:
    """Our process on one stream's histograms, a look every minute; in requests, 0 = never."""
    tolerance = LatencyTolerance(LATENCY_RATIO[quantile], 0.0)
    for minute, (mine, theirs) in enumerate(zip(candidate, incumbent, strict=True), start=1):
        if slower_test(mine, theirs, quantile=quantile, tolerance=tolerance).log_e() >= LINE:
            return minute * REQUESTS_PER_MINUTE
    return 0


def exceedance_z(candidate: Floats, incumbent: Floats, *, quantile: float) -> Floats:
    """z after every minute of the candidate's share above the tolerated multiple of the incumbent's quantile so far."""
    sizes = np.stack([candidate.sum(axis=1), incumbent.sum(axis=1)])
    reached = (incumbent.cumsum(axis=1) >= quantile * sizes[1][:, None]).argmax(axis=1)
    limit = np.searchsorted(LATENCY_UPPER_MS, LATENCY_UPPER_MS[reached] * (1 + LATENCY_RATIO[quantile]), side="left")
    below = np.take_along_axis(candidate.cumsum(axis=1), limit[:, None], axis=1)[:, 0]
    spread = np.sqrt(quantile * (1 - quantile) * (1 / sizes[0] + 1 / sizes[1]))
    return np.asarray((quantile - below / sizes[0]) / spread)


def minute_quantiles(chosen: Bools, latency_ms: Floats, quantile: float) -> Floats:
    """The quantile of one arm in every minute."""
    masked = np.where(chosen, latency_ms, np.nan).reshape(-1, REQUESTS_PER_MINUTE)
    ordered, sizes = np.sort(masked, axis=1), np.isfinite(masked).sum(axis=1)  # NaN sorts last
    rank = np.maximum(np.ceil(quantile * sizes).astype(np.int64) - 1, 0)
    return np.asarray(np.take_along_axis(ordered, rank[:, None], axis=1)[:, 0])


def judge_latency(scenario: Scenario, repetitions: int) -> Halts:
    """T4, one quantile."""
    quantile, ours, scores, values = scenario.quantile, [], [], []
    for repetition in range(repetitions):
        on_candidate, latency_ms = latencies(scenario, repetition)
        arms = histograms(on_candidate, latency_ms)
        ours.append(latency_crossing(*arms, quantile=quantile))
        scores.append(exceedance_z(*arms, quantile=quantile))
        values.append([minute_quantiles(arm, latency_ms, quantile) for arm in (on_candidate, ~on_candidate)])
    looks = np.arange(REQUESTS_PER_MINUTE, LATENCY_REQUESTS + 1, REQUESTS_PER_MINUTE)
    candidate, incumbent = np.array(values)[:, 0], np.array(values)[:, 1]
    z, ratio = np.array(scores), LATENCY_RATIO[quantile]
    argos = {
        name: argo(candidate / incumbent, threshold=1 + factor * ratio, requests_per_window=REQUESTS_PER_MINUTE)
        for name, factor in (("Argo", 1.0), ("Argo, tuned", TUNED))
    }
    kayentas = {"Kayenta": kayenta(candidate, incumbent, requests_per_window=REQUESTS_PER_MINUTE)}
    peeking = {"peeked z": z_rule(z, peeked(looks.size, alpha=ALPHA), looks)}
    return {SINCE_START: np.array(ours), **argos, **kayentas, **peeking, **sequential(z, looks)}


def run(scenario: Scenario, repetitions: int) -> Halts:
    """Every method on one scenario."""
    judge = {"T1": judge_divergence, "T2": judge_divergence, "T3": judge_errors, "T4": judge_latency}[scenario.table]
    return judge(scenario, repetitions)


def _joined(parts: list[Halts]) -> Halts:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
