"""Settled pairs as columns: what the count table takes in, checked, with the window of each pair and from when on it is fresh."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interlock.errors import EvidenceError
from interlock.judge.grids import Floats, Ints
from interlock.judge.keys import NOT_COUNTED, KeyMemory
from interlock.judge.pairs import PairResult
from interlock.model.journal import Arm

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Entries:
    """
    One row for each pair that is to be counted; every array has shape (n,).

    fresh_from: see `counts.CountGrid`. failed: candidate_failed * 2 + incumbent_failed. divergence, signed: NaN = the pair has none.
    Latencies are in ms, infinite where an arm gave no answer of its own. on_candidate: the live request went to the candidate.
    compares_latency: see `pairs.PairResult`.
    """

    windows: Ints
    fresh_from: Ints
    failed: Ints
    divergence: Floats
    signed: Floats
    segments: NDArray[np.str_]
    candidate_ms: Floats
    incumbent_ms: Floats
    on_candidate: Bools
    compares_latency: Bools

    @property
    def count(self) -> int:
        """Rows."""
        return int(self.windows.size)


def read_entries(pairs: Sequence[PairResult], windows: Ints, keys: KeyMemory | None) -> Entries:
    """
    The pairs as columns; with `keys`, without those whose key has none, came before in this window, or is not in the sample.

    Raises:
        EvidenceError: a divergence lies outside [0, 1], a signed difference outside [-1, 1], or one is not a number.
    """
    fresh_from = np.zeros(windows.size, dtype=np.int64)
    if keys is not None:
        fresh_from = _fresh_from(pairs, windows, keys)
        counted = fresh_from != NOT_COUNTED
        pairs = [pair for pair, is_counted in zip(pairs, counted, strict=True) if is_counted]
        windows, fresh_from = windows[counted], fresh_from[counted]
    return Entries(
        windows=windows,
        fresh_from=fresh_from,
        failed=np.array([pair.candidate_failed * 2 + pair.incumbent_failed for pair in pairs], dtype=np.int64),
        divergence=_bounded([pair.divergence for pair in pairs], low=0.0, name="divergence"),
        signed=_bounded([pair.signed for pair in pairs], low=-1.0, name="signed difference"),
        segments=np.array([pair.segment for pair in pairs], dtype=np.str_),
        candidate_ms=_latencies([pair.candidate_latency_ms for pair in pairs]),
        incumbent_ms=_latencies([pair.incumbent_latency_ms for pair in pairs]),
        on_candidate=np.array([pair.live_arm is Arm.CANDIDATE for pair in pairs], dtype=bool),
        compares_latency=np.array([pair.compares_latency for pair in pairs], dtype=bool),
    )


def _fresh_from(pairs: Sequence[PairResult], windows: Ints, keys: KeyMemory) -> Ints:
    keyed = np.array([bool(pair.key) for pair in pairs], dtype=bool)
    fresh_from = np.full(windows.size, NOT_COUNTED, dtype=np.int64)
    fresh_from[keyed] = keys.visit([pair.key for pair in pairs if pair.key], windows[keyed])
    return fresh_from


def _bounded(values: Sequence[float | None], *, low: float, name: str) -> Floats:
    given = np.array([value is not None for value in values], dtype=bool)
    read = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if not ((read[given] >= low) & (read[given] <= 1)).all():  # also refuses NaN
        raise EvidenceError(f"a {name} lies outside [{low:g}, 1] or is not a number: the comparator is wrong")
    return read


def _latencies(values: Sequence[float | None]) -> Floats:
    return np.array([np.inf if value is None else value for value in values], dtype=np.float64)
