"""
What else could judge a canary, on the same streams: the rules of Argo Rollouts and Kayenta, peeked and group-sequential tests, and
the boundaries of Howard and Ramdas.

Every rule answers with the request at which it halts, one for each repetition, 0 where it never does.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from interlock.judge.grids import Floats

Ints = NDArray[np.int64]

ARGO_FAILURE_LIMIT = 3  # the demo analyses of Argo Rollouts; more failures than this abort
KAYENTA_CONFIDENCE, KAYENTA_FRACTION = 0.98, 0.25  # NetflixACAJudge: Mann-Whitney at 98 %, a quarter of the estimated shift
KAYENTA_MINUTES = 5


def first_at(reached: NDArray[np.bool_], requests: Ints) -> Ints:
    """The request of the first look that holds, per row of `reached` (repetitions x looks); 0 = none does."""
    return np.where(reached.any(axis=1), requests[reached.argmax(axis=1)], 0)


def argo(measured: Floats, *, threshold: float, requests_per_window: int) -> Ints:
    """Counting rule: a window whose measurement exceeds the threshold fails, the failure after ARGO_FAILURE_LIMIT halts. (rep, windows)."""
    requests = requests_per_window * np.arange(1, measured.shape[1] + 1)
    return first_at((measured > threshold).cumsum(axis=1) > ARGO_FAILURE_LIMIT, requests)


def kayenta(candidate: Floats, incumbent: Floats, *, requests_per_window: int) -> Ints:
    """
    Kayenta's metric judge every five windows over all windows so far: halts when it classifies the metric "High".

    High: the lower end of the 98 % Mann-Whitney interval of candidate - incumbent lies above a quarter of the Hodges-Lehmann estimate,
    i.e. the test against that shift rejects. Both arguments (repetitions, windows).
    """
    halted = np.zeros(candidate.shape[0], dtype=np.int64)
    for windows in range(KAYENTA_MINUTES, candidate.shape[1] + 1, KAYENTA_MINUTES):
        open_rows = np.flatnonzero(halted == 0)
        if open_rows.size == 0:
            break
        high = _classified_high(candidate[open_rows, :windows], incumbent[open_rows, :windows])
        halted[open_rows[high]] = windows * requests_per_window
    return halted


def _classified_high(candidate: Floats, incumbent: Floats) -> NDArray[np.bool_]:
    shift = np.median((candidate[:, :, None] - incumbent[:, None, :]).reshape(candidate.shape[0], -1), axis=1)
    moved = np.round(candidate - KAYENTA_FRACTION * np.abs(shift)[:, None], 9)  # ties survive the subtraction
    test = stats.mannwhitneyu(moved, np.round(incumbent, 9), alternative="greater", method="asymptotic", axis=1)
    return np.asarray((shift > 0) & (test.pvalue < (1 - KAYENTA_CONFIDENCE) / 2))


def z_rule(z: Floats, critical: Floats, requests: Ints) -> Ints:
    """Halts at the first look whose z (repetitions, looks) reaches its critical value (looks,). NaN never does."""
    return first_at(z >= critical, requests)


def pocock(look_count: int, *, alpha: float) -> Floats:
    """Equal critical values at equally spaced looks, one-sided. Source: Pocock 1977."""
    return np.full(look_count, _constant(look_count, alpha, 0.0))


def obrien_fleming(look_count: int, *, alpha: float) -> Floats:
    """Critical values falling as 1/sqrt(look), one-sided. Source: O'Brien & Fleming 1979."""
    return _constant(look_count, alpha, 0.5) * np.sqrt(look_count / np.arange(1, look_count + 1))


def peeked(look_count: int, *, alpha: float) -> Floats:
    """The test for one look, made at every look."""
    return np.full(look_count, stats.norm.isf(alpha))


def peeked_t(samples: Ints, *, alpha: float) -> Floats:
    """The same by Student's t, for the samples of each look."""
    return np.asarray(stats.t.isf(alpha, samples - 1), dtype=float)


def fixed_horizon(look_count: int, *, alpha: float) -> Floats:
    """The same test made once, at the end."""
    return np.append(np.full(look_count - 1, np.inf), stats.norm.isf(alpha))


@lru_cache(maxsize=8)
def _constant(look_count: int, alpha: float, shape: float) -> float:
    """c for which a random walk crosses c (looks/look)^shape on the z scale with probability alpha, by numerical integration."""
    looks = np.arange(1, look_count + 1)

    def excess(constant: float) -> float:
        return crossing_probability(constant * (look_count / looks) ** shape) - alpha

    return float(optimize.brentq(excess, 1.0, 5.0, xtol=1e-4))


def crossing_probability(critical: Floats, *, node_count: int = 64) -> float:
    """P(a standard random walk's z ever reaches its critical value). Source: Armitage, McPherson & Rowe 1969."""
    nodes, weights = np.polynomial.legendre.leggauss(node_count)
    limits = critical * np.sqrt(np.arange(1, critical.size + 1))
    crossed, points, mass = 0.0, np.zeros(1), np.ones(1)
    for look, limit in enumerate(limits, start=1):
        crossed += float(mass @ stats.norm.sf(limit - points))
        low = -6 * math.sqrt(look)
        half = (limit - low) / 2
        at = low + half * (1 + nodes)
        steps = at[:, None] - points
        mass = half * weights * (np.exp(-0.5 * steps * steps) @ mass) / math.sqrt(2 * math.pi)
        points = at
    return crossed


def best_rho(v_opt: float, alpha_opt: float) -> float:
    """The two-sided normal mixture's precision that is about best at intrinsic time v_opt. Source: Howard et al. 2021, section 3.5."""
    nats = 2 * math.log(1 / alpha_opt)
    return v_opt / (nats + math.log1p(nats))


@dataclass(frozen=True, slots=True)
class NormalMixture:
    """Mixture over sub-Gaussian bets, of a sum s with mean 0 at intrinsic time v (its variance proxy). Source: Howard et al. 2021, 3.2."""

    rho: float
    one_sided: bool

    @classmethod
    def tuned(cls, v_opt: float, alpha_opt: float, *, one_sided: bool) -> "NormalMixture":
        """The mixture that is about best at v_opt. A one-sided one spends on one side what a two-sided one spends on both."""
        return cls(best_rho(v_opt, 2 * alpha_opt if one_sided else alpha_opt), one_sided)

    def log_e(self, s: Floats, v: Floats) -> Floats:
        """Log e-value."""
        spread = v + self.rho
        two_sided = 0.5 * np.log(self.rho / spread) + s * s / (2 * spread)
        one_sided = two_sided + math.log(2) + special.log_ndtr(s / np.sqrt(spread))
        return np.asarray(one_sided if self.one_sided else two_sided)


@dataclass(frozen=True, slots=True)
class BetaBinomialMixture:
    """
    Mixture over Bernoulli laws, for data in [-g, h] with mean 0, of a sum s at intrinsic time v = g h n. Source: Howard et al. 2021, 3.4.

    precision: of the beta prior, in units of v. The one-sided form keeps the prior above the null only.
    """

    precision: float
    g: float
    h: float
    one_sided: bool

    @classmethod
    def tuned(cls, v_opt: float, alpha_opt: float, *, g: float, h: float, one_sided: bool) -> "BetaBinomialMixture":
        """The mixture that is about best at v_opt: the normal mixture's precision less one datum's variance."""
        rho = best_rho(v_opt, 2 * alpha_opt if one_sided else alpha_opt)
        return cls(max(rho - g * h, 1e-3 * g * h), g, h, one_sided)

    def log_e(self, s: Floats, v: Floats) -> Floats:
        """Log e-value."""
        span, null = self.g + self.h, self.g / (self.g + self.h)
        a, b = self.precision / self.h / span, self.precision / self.g / span
        hits, misses = (s + v / self.h) / span, (v / self.g - s) / span
        gained = self._log_mass(a + hits, b + misses, null) - self._log_mass(np.asarray(a), np.asarray(b), null)
        return np.asarray(gained - hits * math.log(null) - misses * math.log1p(-null))

    def _log_mass(self, a: Floats, b: Floats, null: float) -> Floats:
        whole = np.asarray(special.betaln(a, b))
        if not self.one_sided:
            return whole
        with np.errstate(divide="ignore"):  # no mass above the null: a log of -inf, far below any line
            return np.asarray(whole + np.log(special.betaincc(a, b, null)))


def bound(mixture: NormalMixture | BetaBinomialMixture, v: Floats, *, log_threshold: float, highest: Floats) -> Floats:
    """The smallest sum in [0, highest] at which the mixture reaches the line at each v; infinite where none does."""
    low, high = np.zeros_like(v), highest.astype(float)
    reachable = mixture.log_e(high, v) >= log_threshold
    for _ in range(50):
        middle = (low + high) / 2
        reached = mixture.log_e(middle, v) >= log_threshold
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(reachable, high, np.inf)


def kearns_saul_variance(mean: float) -> float:
    """The smallest sub-Gaussian variance proxy of a datum in [0, 1] with that mean < 1/2. Source: Kearns & Saul 1998."""
    return (1 - 2 * mean) / (2 * math.log((1 - mean) / mean))
