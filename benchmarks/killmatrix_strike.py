"""One signal at one moment of one phase, and what came of it."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from benchmarks.killmatrix_cells import PHASES, Cell, moment_seconds
from benchmarks.killmatrix_phases import endings, longest_unrenewed_seconds, outage, renewed_until, seconds_to_nothing
from benchmarks.killmatrix_record import FREEZE_SECONDS, Kill
from benchmarks.killmatrix_release import Followed
from benchmarks.killmatrix_settled import Settled
from benchmarks.killmatrix_targets import Thaw, find, strike

PHASE_LIMIT_SECONDS = 170.0  # a release whose run died in the gates keeps the plane for 120 s
RECENT_COUNT = 60_000  # nine minutes of answers
TAKE_ENVOY_ALONG = ("envoy", "supervisor")  # whose end may be Envoy's: one that is silent then is down
OVER = ("ended", "before")


@dataclass(frozen=True, slots=True)
class Strike:
    """A signal that was sent: at a monotonic moment and at one since the epoch. `thaw` continues what was stopped."""

    cell: Cell
    seed: str
    moment_seconds: float
    at: float
    at_epoch: float
    sent_count: int
    weight_bps: int | None
    thaw: Thaw | None

    @property
    def is_thawed(self) -> bool:
        """Nothing that it stopped is still stopped."""
        return self.thaw is None or self.thaw.is_done


def attempt(release: Followed, cell: Cell, seed: str) -> Strike | None:
    """Wait for the cell's phase and its moment, and hit; None when the phase was over before."""
    victims = _await_phase(release, cell)
    if victims is None:
        return None
    moment = moment_seconds(cell, seed)
    due_at = time.monotonic() + moment
    while time.monotonic() < due_at or not victims:
        if release.look() != cell.phase:
            return None
        victims = victims or _find(release, cell)
        time.sleep(max(0.0, min(release.poll_seconds(), due_at - time.monotonic())))
    sent_count = release.rig.traffic.snapshot(0).total_count
    at, at_epoch = time.monotonic(), time.time()
    strike(victims, cell.signal)
    thaw = Thaw(victims, FREEZE_SECONDS) if cell.signal == "SIGSTOP" else None
    return Strike(cell, seed, moment, at, at_epoch, sent_count, release.weight_bps, thaw)


def _await_phase(release: Followed, cell: Cell) -> list[psutil.Process] | None:
    """The victims, as soon as the phase has begun; None when it was missed. Looked for early where the phase is too short for that."""
    victims: list[psutil.Process] = []
    deadline = time.monotonic() + PHASE_LIMIT_SECONDS
    while (phase := release.look()) != cell.phase:
        if phase in OVER or _is_past(phase, cell.phase) or time.monotonic() > deadline:
            return None
        if phase == "canary" and not victims:
            victims = _find(release, cell)
        time.sleep(release.poll_seconds())
    return victims or _find(release, cell)


def _is_past(phase: str, wanted: str) -> bool:
    return PHASES.index(phase) > PHASES.index(wanted) or (phase == "bake" and wanted == "rollback")


def _find(release: Followed, cell: Cell) -> list[psutil.Process]:
    version = {"candidate": release.candidate, "incumbent": release.incumbent}.get(cell.target, "")
    return find(release.rig.state, cell.target, version=version, run_id=release.run_id)


def phase_hit(release: Followed, struck: Strike) -> str:
    """The phase in which the signal came, by all the evidence that there is now."""
    return release.phase_at(struck.at_epoch)


def measured(  # noqa: PLR0913  what a kill is made of, each by name
    release: Followed,
    struck: Strike,
    *,
    until: float,
    until_sent_count: int,
    settled: Settled,
    run_state: str,
    repair: str,
    elapsed_seconds: float,
) -> Kill:
    """The record of one kill; what users got and Envoy did is counted from its signal to `until`, the next one's or the end."""
    samples = [sample for sample in release.rig.watch.since(release.started_at) if sample.at <= until]
    answers = [each for each in release.rig.traffic.snapshot(RECENT_COUNT).recent if struck.at <= each.received_at <= until]
    failed = [each for each in answers if each.failure]
    found = endings(release.records)
    cell = struck.cell
    serves = cell.target not in TAKE_ENVOY_ALONG
    to_nothing = seconds_to_nothing(samples, struck.at, silence_serves=serves) if struck.weight_bps else None
    return Kill(
        target=cell.target,
        signal=cell.signal,
        phase=phase_hit(release, struck),
        seed=struck.seed,
        release_id=release.release_id,
        moment_seconds=round(struck.moment_seconds, 4),
        weight_bps=struck.weight_bps,
        to_nothing_seconds=_rounded(to_nothing),
        held_seconds=round(longest_unrenewed_seconds(samples, struck.at, silence_serves=serves), 2),
        renewed_seconds=_rounded(renewed_until(samples, struck.at)),
        is_survived=bool(found) and "failed" not in found,
        ending=" then ".join(found),
        run_state=run_state,
        request_count=until_sent_count - struck.sent_count,
        requests_per_second=round((until_sent_count - struck.sent_count) / (until - struck.at), 1),
        failed_count=len(failed),
        failures=dict(Counter(each.failure for each in failed)),
        outage_seconds=round(outage([each.received_at - each.latency_ms / 1000 for each in failed]), 2),
        slowest_ms=round(max((each.latency_ms for each in answers), default=0.0), 1),
        supervisor_start_count=release.rig.init.start_count,
        consistent_seconds=_rounded(settled.after_seconds),
        troubles=settled.troubles,
        repair=repair,
        elapsed_seconds=round(elapsed_seconds, 1),
    )


def windows(strikes: Sequence[Strike], ended_at: float, sent_count: int) -> list[tuple[Strike, float, int]]:
    """Each signal with the end of its window, the next signal or the end of all, and what had been sent by then."""
    ends = [(struck.at, struck.sent_count) for struck in strikes[1:]] + [(ended_at, sent_count)]
    return [(struck, *end) for struck, end in zip(strikes, ends, strict=True)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
