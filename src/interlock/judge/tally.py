"""
The mergeable count table: all the judge knows. Order-free, restart-safe, partition-parallel: merging equals judging the union.

Whoever holds the journal adds settled pairs; `evaluate` reads. Every count is an integer, so nothing depends on the order of sums.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interlock.errors import EvidenceError
from interlock.judge.counts import CountGrid, read_counts, whole, write_counts
from interlock.judge.entries import Bools, Entries, read_entries
from interlock.judge.grids import DIVERGENCE_NODES, LATENCY_CELLS, UNITS_PER_PAIR, Floats, Ints, latency_cells, share_units
from interlock.judge.keys import KeyMemory
from interlock.judge.pairs import Fate, PairResult
from interlock.judge.policy import OTHER_SEGMENT, JudgePolicy
from interlock.model.journal import Arm, Role

COMPARED = "compared"  # pairs with a D, of keys seen for the first time where keys are the unit
DIFFERING = "differing"  # of those, D > 0
UNREADABLE = "unreadable"  # pairs whose incumbent answered 2xx with something no comparator can read
FRESH = "fresh"  # pairs that every process counts: all of them, but in keyed analysis
KEYLESS = "keyless"  # pairs without a key where keys are the unit
REFUSED = "refused"  # fresh pairs whose input the incumbent refused: they compare no latency
_COUNTERS = (*(str(fate) for fate in Fate), COMPARED, DIFFERING, UNREADABLE, FRESH, KEYLESS, REFUSED)
_FORMAT = "judge-tally/v3"
_DATA_FATES = (Fate.JUDGED, Fate.CANDIDATE_MISSING)
_LOST_FATES = (Fate.DROPPED, Fate.INCUMBENT_MISSING, Fate.CLIENT_LEFT)

_SHAPE = ("start_seconds", "window_seconds", "epoch_windows", "segments", "is_keyed")

# Columns of the error counts: candidate_failed * 2 + incumbent_failed.
ERROR_CELLS = 4

# Latency is restarted this often in a planned canary: a look costs one quantile test for each epoch, role and quantile.
PLANNED_EPOCHS = 16

# The incumbent's live latency is kept apart by window, to see how slow answers cluster: in so many blocks of windows, 20 MB at most.
_STEADY_BLOCKS = 720
_LAST_WINDOW = 2**31 - 2  # a clock that is centuries ahead is counted in the last one


class LatencyKey(NamedTuple):
    """A latency histogram. epoch: several windows. fresh_from: the first epoch whose restarted process may count it, see `CountGrid`."""

    step: int
    epoch: int
    fresh_from: int
    arm: Arm
    role: Role


class Tally:
    """
    Counts by window and step. Two tallies merge when they share windows, epochs and segments.

    start_seconds: collector time of window 0's beginning. Pairs from before (a clock set back) are counted in window 0.
    epoch_windows: windows to an epoch. segments: names whose divergence is counted apart; everything else is `OTHER_SEGMENT`.
    """

    def __init__(
        self,
        *,
        start_seconds: float,
        window_seconds: float,
        epoch_windows: int = 8,
        segments: Sequence[str] = (),
        is_keyed: bool = False,
    ) -> None:
        if not (math.isfinite(start_seconds) and math.isfinite(window_seconds) and window_seconds > 0 and epoch_windows > 0):
            raise EvidenceError(f"tally starts at {start_seconds!r} with windows of {window_seconds!r} s, needs finite numbers")
        self.start_seconds = start_seconds
        self.window_seconds = window_seconds
        self.epoch_windows = epoch_windows
        self.is_keyed = is_keyed
        self.divergence = CountGrid(DIVERGENCE_NODES.size)
        self.bias = CountGrid(DIVERGENCE_NODES.size)
        self.errors = CountGrid(ERROR_CELLS)
        self.segments = {name: CountGrid(DIVERGENCE_NODES.size) for name in ([*segments, OTHER_SEGMENT] if segments else [])}
        self.latency: dict[LatencyKey, Ints] = {}
        self.steady = CountGrid(LATENCY_CELLS)
        self.assigned: Counter[tuple[int, int, Arm]] = Counter()  # by step and epoch
        self.counters: Counter[str] = Counter()

    @classmethod
    def for_policy(cls, policy: JudgePolicy, *, start_seconds: float) -> "Tally":
        """An empty table that the policy can be judged from."""
        return cls(
            start_seconds=start_seconds,
            window_seconds=policy.window_seconds,
            epoch_windows=math.ceil(policy.planned_window_count / PLANNED_EPOCHS),
            segments=policy.segment_names,
            is_keyed=policy.is_keyed,
        )

    @property
    def pair_count(self) -> int:
        """Pairs that say something about the candidate, its missing answers included."""
        return sum(self.counters[fate] for fate in _DATA_FATES)

    @property
    def lost_count(self) -> int:
        """Pairs that cannot be judged: dropped, left by the client, without an incumbent or a key, or unreadable on its side."""
        return sum(self.counters[name] for name in (*_LOST_FATES, UNREADABLE, KEYLESS))

    @property
    def missing_share(self) -> float:
        """Lost pairs over all pairs, in [0, 1]; 0 when there were none."""
        total = self.pair_count + sum(self.counters[fate] for fate in _LOST_FATES)
        return self.lost_count / total if total else 0.0

    def latency_totals(self, arm: Arm) -> Ints:
        """The arm's latencies over all steps and roles, each unit once, shape (LATENCY_CELLS,)."""
        fresh = (counts for key, counts in self.latency.items() if key.arm is arm and key.fresh_from == 0)
        return sum(fresh, np.zeros(LATENCY_CELLS, dtype=np.int64))

    def add(self, pairs: Iterable[PairResult], step: int, *, keys: KeyMemory | None = None, is_settling: bool = False) -> None:
        """
        Count the pairs under the step (index of the weight step, >= 0) that was in force.

        Args:
            keys: what is known of the keys, in keyed analysis; updated.
            is_settling: the step has just begun, and requests routed before it still come in: which arm they took says nothing about it.
        """
        if (keys is not None) != self.is_keyed:
            raise EvidenceError("a table of keys was given requests, or one of requests keys: make both by the same policy")
        pairs = list(pairs)
        data = [pair for pair in pairs if pair.fate in _DATA_FATES]
        entries = read_entries(data, self._windows(data), keys)  # first: what it refuses must leave nothing half counted
        self.counters.update(str(pair.fate) for pair in pairs)
        if not is_settling:
            self._add_assigned(pairs, entries, step)
        if not data:
            return
        fresh = entries.fresh_from == 0
        self.counters[UNREADABLE] += sum(pair.is_unreadable for pair in data)
        self.counters[KEYLESS] += sum(not pair.key for pair in data) if keys is not None else 0
        self.counters[FRESH] += int(fresh.sum())
        self.counters[REFUSED] += int((fresh & ~entries.compares_latency).sum())
        self.errors.add(entries.windows, entries.fresh_from, entries.failed, np.ones(entries.count, dtype=np.int64))
        self._add_differences(entries)
        self._add_latency(entries, step)

    def merge(self, other: "Tally") -> "Tally":
        """A new tally with the counts of both. Commutative and associative; raises EvidenceError when their shapes differ."""
        if self._shape() != other._shape():
            raise EvidenceError("two tallies with different windows or segments cannot be merged: judge each canary with its own")
        merged = Tally(**self._shape())
        for part in (self, other):
            for mine, theirs in zip(merged._grids(), part._grids(), strict=True):
                mine.add_grid(theirs)
            merged.counters.update(part.counters)
            merged.assigned.update(part.assigned)
            for key, counts in part.latency.items():
                merged._latency_counts(key)[:] += counts
        return merged

    def to_dict(self) -> dict[str, Any]:
        """The tally as JSON types, in a canonical order: equal tallies give equal documents."""
        return {
            "format": _FORMAT,
            **self._shape(),
            "grids": [grid.to_list() for grid in self._grids()],
            "latency": [[*key[:3], str(key.arm), str(key.role), write_counts(self.latency[key])] for key in sorted(self.latency)],
            "assigned": [[step, epoch, str(arm), self.assigned[step, epoch, arm]] for step, epoch, arm in sorted(self.assigned)],
            "counters": {name: self.counters[name] for name in _COUNTERS if self.counters[name]},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Tally":
        """The tally that wrote the document. Raises EvidenceError when it is not one, or its counts contradict each other."""
        try:
            if document["format"] != _FORMAT:
                raise EvidenceError(f"tally has the format {document['format']!r}, needs {_FORMAT}")
            tally = cls(**{name: document[name] for name in _SHAPE} | {"epoch_windows": whole(document["epoch_windows"])})
            for grid, rows in zip(tally._grids(), document["grids"], strict=True):
                grid.read_list(rows)
            for step, epoch, fresh_from, arm, role, counts in document["latency"]:
                key = LatencyKey(whole(step), whole(epoch), whole(fresh_from), Arm(arm), Role(role))
                tally._latency_counts(key)[:] += read_counts(counts, LATENCY_CELLS)
            for step, epoch, arm, count in document["assigned"]:
                tally.assigned[whole(step), whole(epoch), Arm(arm)] += whole(count)
            tally.counters.update({str(name): whole(count) for name, count in document["counters"].items()})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise EvidenceError(f"tally cannot be read: {type(error).__name__} {error}") from error
        tally._check_consistency()
        return tally

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _shape(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SHAPE} | {"segments": self._named()}

    def _grids(self) -> list[CountGrid]:
        return [self.divergence, self.bias, self.errors, self.steady, *self.segments.values()]

    def _windows(self, pairs: Sequence[PairResult]) -> Ints:
        since = (np.array([pair.at_seconds for pair in pairs], dtype=np.float64) - self.start_seconds) / self.window_seconds
        return np.clip(np.floor(since), 0.0, _LAST_WINDOW).astype(np.int64)

    def _add_assigned(self, pairs: Sequence[PairResult], entries: Entries, step: int) -> None:
        """Which arm each live request went to, whatever became of the pair; where keys are the unit, of each key's first pair."""
        if self.is_keyed:
            fresh = entries.fresh_from == 0
            epochs, on_candidate = entries.windows[fresh] // self.epoch_windows, entries.on_candidate[fresh]
        else:
            known = [pair for pair in pairs if pair.live_arm is not None]
            epochs = self._windows(known) // self.epoch_windows
            on_candidate = np.array([pair.live_arm is Arm.CANDIDATE for pair in known], dtype=bool)
        for arm, chosen in ((Arm.CANDIDATE, epochs[on_candidate]), (Arm.INCUMBENT, epochs[~on_candidate])):
            self.assigned.update({(step, int(epoch), arm): int(n) for epoch, n in zip(*np.unique(chosen, return_counts=True), strict=True)})

    def _add_differences(self, entries: Entries) -> None:
        held = ~np.isnan(entries.divergence)
        values, fresh = entries.divergence[held], entries.fresh_from[held] == 0
        _add_values(self.divergence, entries.windows[held], entries.fresh_from[held], values)
        self.counters[COMPARED] += int(fresh.sum())
        self.counters[DIFFERING] += int((values[fresh] > 0).sum())
        signed = ~np.isnan(entries.signed)
        _add_values(self.bias, entries.windows[signed], entries.fresh_from[signed], (entries.signed[signed] + 1) / 2)
        if self.segments:
            self._add_segments(entries, held)

    def _add_segments(self, entries: Entries, held: Bools) -> None:
        """By epoch, not by window: a segment is a small part of the traffic, and a day of windows would cost 18 MB for each."""
        epochs, fresh_from = self._epochs(entries)
        for name, grid in self.segments.items():
            of_it = entries.segments == name if name != OTHER_SEGMENT else ~np.isin(entries.segments, list(self._named()))
            chosen = of_it & held & (fresh_from <= epochs)
            _add_values(grid, epochs[chosen], fresh_from[chosen], entries.divergence[chosen])

    def _add_latency(self, entries: Entries, step: int) -> None:
        epochs, fresh_from = self._epochs(entries)
        cells = {Arm.CANDIDATE: latency_cells(entries.candidate_ms), Arm.INCUMBENT: latency_cells(entries.incumbent_ms)}
        counted = entries.compares_latency & (fresh_from <= epochs)
        for epoch, fresh in sorted(set(zip(epochs[counted].tolist(), fresh_from[counted].tolist(), strict=True))):
            for arm, role in itertools.product(Arm, Role):
                is_live = entries.on_candidate == (arm is Arm.CANDIDATE)
                chosen = counted & (epochs == epoch) & (fresh_from == fresh) & (is_live == (role is Role.LIVE))
                if chosen.any():
                    key = LatencyKey(step, epoch, fresh, arm, role)
                    self._latency_counts(key)[:] += np.bincount(cells[arm][chosen], minlength=LATENCY_CELLS)
        steady = entries.compares_latency & ~entries.on_candidate
        blocks = entries.windows[steady] // max(1, self.epoch_windows * PLANNED_EPOCHS // _STEADY_BLOCKS)
        held = blocks < _STEADY_BLOCKS
        self.steady.add(blocks[held], np.zeros_like(blocks[held]), cells[Arm.INCUMBENT][steady][held], np.ones_like(blocks[held]))

    def _epochs(self, entries: Entries) -> tuple[Ints, Ints]:
        """Epoch of each pair, and the epoch it is fresh from; where the second is larger, no process may count it."""
        fresh_from = np.where(entries.fresh_from == 0, 0, (entries.fresh_from - 1) // self.epoch_windows + 1)
        return entries.windows // self.epoch_windows, fresh_from

    def _named(self) -> list[str]:
        return [name for name in self.segments if name != OTHER_SEGMENT]

    def _latency_counts(self, key: LatencyKey) -> Ints:
        return self.latency.setdefault(key, np.zeros(LATENCY_CELLS, dtype=np.int64))

    def _check_consistency(self) -> None:
        """Counts written by `add` obey these sums; a document that does not was cut or edited."""
        unknown = set(self.counters) - set(_COUNTERS)
        fresh_latency = sum(int(counts.sum()) for key, counts in self.latency.items() if key.fresh_from == 0)
        expected = {
            "divergence": (int(self.divergence.totals().sum()), self.counters[COMPARED] * UNITS_PER_PAIR),
            "errors": (int(self.errors.totals().sum()), self.counters[FRESH]),
            "latency": (fresh_latency, 2 * (self.counters[FRESH] - self.counters[REFUSED])),
        }
        if self.segments:
            expected["segments"] = (sum(int(grid.totals().sum()) for grid in self.segments.values()), expected["divergence"][1])
        wrong = [f"{name} holds {found}, needs {wanted}" for name, (found, wanted) in expected.items() if found != wanted]
        if unknown or wrong or self.counters[DIFFERING] > self.counters[COMPARED] or self.counters[FRESH] > self.pair_count:
            raise EvidenceError(f"tally contradicts itself: {'; '.join(wrong) or 'counters ' + ', '.join(sorted(unknown))}")


def _add_values(grid: CountGrid, windows: Ints, fresh_from: Ints, values: Floats) -> None:
    """Share the units of each value in [0, 1] between the two nodes around it."""
    lower, upper_units = share_units(values)
    grid.add(windows, fresh_from, lower, UNITS_PER_PAIR - upper_units)
    inside = upper_units > 0
    if inside.any():
        grid.add(windows[inside], fresh_from[inside], lower[inside] + 1, upper_units[inside])
