"""
The mergeable count table: all the judge knows. Order-free, restart-safe, partition-parallel: merging equals judging the union.

Whoever holds the journal adds settled pairs; `evaluate` reads. Every count is an integer, so nothing depends on the order of sums.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from interlock.errors import EvidenceError
from interlock.judge.counts import CountGrid, read_counts, whole, write_counts
from interlock.judge.grids import DIVERGENCE_NODES, LATENCY_CELLS, UNITS_PER_PAIR, Ints, latency_cells, share_units
from interlock.judge.pairs import Fate, PairResult
from interlock.model.journal import Arm, Role

LatencyKey = tuple[int, Arm, Role]  # step index, arm, role

COMPARED = "compared"  # pairs with a D
DIFFERING = "differing"  # of those, D > 0
UNREADABLE = "unreadable"  # pairs whose incumbent answered 2xx with something no comparator can read
_COUNTERS = (*(str(fate) for fate in Fate), COMPARED, DIFFERING, UNREADABLE)
_FORMAT = "judge-tally/v1"
_DATA_FATES = (Fate.JUDGED, Fate.CANDIDATE_MISSING)

# Columns of the error counts: candidate_failed * 2 + incumbent_failed.
ERROR_CELLS = 4


class Tally:
    """
    Counts by window and step. Two tallies merge when they share `start_seconds` and `window_seconds`.

    start_seconds: collector time of window 0's beginning. Pairs from before (a clock set back) are counted in window 0.
    """

    def __init__(self, *, start_seconds: float, window_seconds: float) -> None:
        if not (math.isfinite(start_seconds) and math.isfinite(window_seconds) and window_seconds > 0):
            raise EvidenceError(f"tally starts at {start_seconds!r} with windows of {window_seconds!r} s, needs finite numbers")
        self.start_seconds = start_seconds
        self.window_seconds = window_seconds
        self.divergence = CountGrid(DIVERGENCE_NODES.size)
        self.errors = CountGrid(ERROR_CELLS)
        self.latency: dict[LatencyKey, Ints] = {}
        self.counters: Counter[str] = Counter()

    @property
    def pair_count(self) -> int:
        """Pairs that say something about the candidate, its missing answers included."""
        return sum(self.counters[fate] for fate in _DATA_FATES)

    @property
    def lost_count(self) -> int:
        """Pairs that were there and cannot be judged: dropped by the plane, without an incumbent, or unreadable on its side."""
        return self.counters[Fate.DROPPED] + self.counters[Fate.INCUMBENT_MISSING] + self.counters[UNREADABLE]

    @property
    def missing_share(self) -> float:
        """Lost pairs over all pairs, in [0, 1]; 0 when there were none."""
        total = self.pair_count + self.counters[Fate.DROPPED] + self.counters[Fate.INCUMBENT_MISSING]
        return self.lost_count / total if total else 0.0

    def add(self, pairs: Iterable[PairResult], step: int) -> None:
        """Count the pairs under the step (index of the weight step, >= 0) that was in force."""
        data: list[PairResult] = []
        for pair in pairs:
            self.counters[pair.fate] += 1
            if pair.fate in _DATA_FATES:
                data.append(pair)
        if not data:
            return
        windows = self._windows([pair.at_seconds for pair in data])
        failed = np.array([pair.candidate_failed * 2 + pair.incumbent_failed for pair in data], dtype=np.int64)
        self.errors.add(windows, step, failed, np.ones(failed.size, dtype=np.int64))
        self.counters[UNREADABLE] += sum(pair.is_unreadable for pair in data)
        self._add_divergence(windows, step, [pair.divergence for pair in data])
        self._add_latency(data, step)

    def merge(self, other: "Tally") -> "Tally":
        """A new tally with the counts of both. Commutative and associative; raises EvidenceError when the windows differ."""
        if (self.start_seconds, self.window_seconds) != (other.start_seconds, other.window_seconds):
            raise EvidenceError("two tallies with different windows cannot be merged: judge each canary with its own")
        merged = Tally(start_seconds=self.start_seconds, window_seconds=self.window_seconds)
        for part in (self, other):
            merged.divergence.add_grid(part.divergence)
            merged.errors.add_grid(part.errors)
            merged.counters.update(part.counters)
            for key, counts in part.latency.items():
                merged._latency_counts(key)[:] += counts
        return merged

    def to_dict(self) -> dict[str, Any]:
        """The tally as JSON types, in a canonical order: equal tallies give equal documents."""
        return {
            "format": _FORMAT,
            "start_seconds": self.start_seconds,
            "window_seconds": self.window_seconds,
            "divergence": self.divergence.to_list(),
            "errors": self.errors.to_list(),
            "latency": [[key[0], str(key[1]), str(key[2]), write_counts(self.latency[key])] for key in sorted(self.latency)],
            "counters": {name: self.counters[name] for name in _COUNTERS if self.counters[name]},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Tally":
        """The tally that wrote the document. Raises EvidenceError when it is not one, or its counts contradict each other."""
        try:
            if document["format"] != _FORMAT:
                raise EvidenceError(f"tally has the format {document['format']!r}, needs {_FORMAT}")
            tally = cls(start_seconds=document["start_seconds"], window_seconds=document["window_seconds"])
            tally.divergence.read_list(document["divergence"])
            tally.errors.read_list(document["errors"])
            for step, arm, role, counts in document["latency"]:
                tally._latency_counts((whole(step), Arm(arm), Role(role)))[:] += read_counts(counts, LATENCY_CELLS)
            tally.counters.update({str(name): whole(count) for name, count in document["counters"].items()})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise EvidenceError(f"tally cannot be read: {type(error).__name__} {error}") from error
        tally._check_consistency()
        return tally

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _windows(self, at_seconds: Sequence[float]) -> Ints:
        since = (np.asarray(at_seconds, dtype=np.float64) - self.start_seconds) / self.window_seconds
        return np.maximum(np.floor(since), 0.0).astype(np.int64)

    def _add_divergence(self, windows: Ints, step: int, divergences: Sequence[float | None]) -> None:
        held = np.array([d is not None for d in divergences])
        values = np.array([d for d in divergences if d is not None], dtype=np.float64)
        if not values.size:
            return
        if not ((values >= 0) & (values <= 1)).all():  # also refuses NaN
            raise EvidenceError("a divergence lies outside [0, 1] or is not a number: the comparator is wrong")
        lower, upper_units = share_units(values)
        self.divergence.add(windows[held], step, lower, UNITS_PER_PAIR - upper_units)
        inside = upper_units > 0
        if inside.any():
            self.divergence.add(windows[held][inside], step, lower[inside] + 1, upper_units[inside])
        self.counters[COMPARED] += values.size
        self.counters[DIFFERING] += int((values > 0).sum())

    def _add_latency(self, data: Sequence[PairResult], step: int) -> None:
        by_key: dict[LatencyKey, list[float]] = {}
        for pair in data:
            candidate, incumbent = pair.candidate_latency_ms, pair.incumbent_latency_ms
            candidate_key = (step, Arm.CANDIDATE, pair.candidate_role)
            by_key.setdefault(candidate_key, []).append(math.inf if candidate is None else candidate)
            by_key.setdefault((step, Arm.INCUMBENT, pair.incumbent_role), []).append(math.inf if incumbent is None else incumbent)
        for key, latencies in by_key.items():
            cells = latency_cells(np.array(latencies, dtype=np.float64))
            self._latency_counts(key)[:] += np.bincount(cells, minlength=LATENCY_CELLS)

    def _latency_counts(self, key: LatencyKey) -> Ints:
        return self.latency.setdefault(key, np.zeros(LATENCY_CELLS, dtype=np.int64))

    def _check_consistency(self) -> None:
        """Counts written by `add` obey these sums; a document that does not was cut or edited."""
        unknown = set(self.counters) - set(_COUNTERS)
        expected = {
            "divergence": (int(self.divergence.totals().sum()), self.counters[COMPARED] * UNITS_PER_PAIR),
            "errors": (int(self.errors.totals().sum()), self.pair_count),
            "latency": (sum(int(counts.sum()) for counts in self.latency.values()), 2 * self.pair_count),
        }
        wrong = [f"{name} holds {found}, needs {wanted}" for name, (found, wanted) in expected.items() if found != wanted]
        if unknown or wrong or self.counters[DIFFERING] > self.counters[COMPARED]:
            raise EvidenceError(f"tally contradicts itself: {'; '.join(wrong) or 'counters ' + ', '.join(sorted(unknown))}")
