"""Every fault of a candidate that takes half of 100 requests a second: what users see, and when it is counted and judged."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.traffic_candidate import GOOD, answer_well
from interlock.judge.comparators import Difference
from interlock.judge.evaluate import judge_tick
from interlock.judge.pairs import PairJoiner
from interlock.judge.readings import JudgeOutcome
from interlock.judge.tally import Tally
from tests.contract import plane_rig
from tests.contract.plane_rig import Client, ModelServer, Reply, Rig, eventually, free_port, running_plane
from tests.contract.test_containment import FAULTS
from tests.judging import POLICY

PERIOD_SECONDS = 0.01
DEADLINE_SECONDS = 2.0
TRIALS = 4  # of one fault, on a machine that has other work
HEALTHY_SECONDS = 1.5
PAIR_DEADLINE_SECONDS = 4.0  # as in profiles/standard.yaml
PROCESS_FAULTS = {"refuses": signal.SIGKILL, "stopped": signal.SIGSTOP}
# Nobody can tell these from a slow answer before the candidate's deadline; an endless answer is read until then.
WAITING_FAULTS = ("hangs", "drips", "huge chunks", "stopped")


@dataclass(frozen=True)
class FaultFigures:
    """One fault. Times from the first request that met it; None: not within the time that was given."""

    fault: str
    requests: int
    failed: int
    slowest_ms: float
    counted_ms: float | None
    halted_ms: float | None


@dataclass
class _Users:
    """100 requests a second, each on a connection of its own as long as it lasts."""

    port: int
    asked: list[tuple[float, Reply]] = field(default_factory=list)
    _idle: list[Client] = field(default_factory=list)
    _pending: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, is_over: Callable[[], bool]) -> None:
        next_at = time.monotonic()
        while not is_over():
            task = asyncio.create_task(self._one())
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
            next_at += PERIOD_SECONDS
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        await asyncio.gather(*self._pending)
        for client in self._idle:
            client.close()

    async def _one(self) -> None:
        asked_at = time.monotonic()
        client = self._idle.pop() if self._idle else Client(self.port)
        self.asked.append((asked_at, await client.ask()))
        self._idle.append(client)


class _Watch:
    """Reads the journal as a release does and notes when the candidate's failures are counted, and when the judge says HALT."""

    def __init__(self, rig: Rig) -> None:
        self._reader = rig.reader
        now = time.time()
        self._joiner = PairJoiner(deadline_seconds=PAIR_DEADLINE_SECONDS, judging_since_seconds=now, compare=_compare)
        self._tally = Tally.for_policy(POLICY, start_seconds=now)
        self.counted_at: float | None = None
        self.halted_at: float | None = None

    async def run(self, is_over: Callable[[], bool]) -> None:
        looks = 0
        while not is_over():
            legs = self._reader.read_new()
            if self.counted_at is None and any(leg.arm == "candidate" and leg.failed for leg in legs):
                self.counted_at = time.monotonic()
            self._joiner.offer(legs)
            self._tally.add(self._joiner.collect(time.time()), 0)
            looks += 1
            if looks % 10 == 0 and self.halted_at is None and judge_tick(self._tally, POLICY).outcome is JudgeOutcome.HALT:
                self.halted_at = time.monotonic()  # ten looks a second; a release takes one
            await asyncio.sleep(0.01)


def _compare(incumbent: str | None, candidate: str | None) -> Difference | None:
    return None if incumbent is None else Difference(float(candidate != incumbent))


class Disturbed(RuntimeError):
    """The candidate was found failing before its fault began: the machine was, and nothing can be measured."""


def measure_faults(seconds: float) -> list[FaultFigures]:
    """Each fault on a plane of its own, for so long or until it was counted and judged, and at least the deadline."""
    return [_undisturbed(fault, seconds) for fault in (*FAULTS, *PROCESS_FAULTS)]


def _undisturbed(fault: str, seconds: float) -> FaultFigures:
    """Tried again where the machine stood still before the fault began; the last time it is an error."""
    for _ in range(TRIALS - 1):
        try:
            return asyncio.run(_one_plane(fault, seconds))
        except Disturbed as error:
            print(f"{error}; once more", file=sys.stderr, flush=True)
    return asyncio.run(_one_plane(fault, seconds))


async def _one_plane(fault: str, seconds: float) -> FaultFigures:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        async with running_plane(root, candidate_deadline_seconds=DEADLINE_SECONDS) as rig:
            rig.incumbent.answer = answer_well
            process = await _start_candidate(rig, fault, root / "onset")
            try:
                return await _measure(rig, _Onset(fault, process, root / "onset"), seconds)
            finally:
                plane_rig.end(process)


async def _start_candidate(rig: Rig, fault: str, onset: Path) -> subprocess.Popen[bytes]:
    port = free_port()
    arguments = ["--port", str(port), "--fault", fault, "--onset", str(onset)]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.traffic_candidate", *arguments])
    await eventually(lambda: plane_rig._is_listening(port))
    rig.candidate = ModelServer("m/2", port=port)
    rig.place()
    await eventually(lambda: port in {at.port for at in rig.admin.observed_endpoints()["candidate"]})
    return process


@dataclass
class _Onset:
    """The fault and its first moment: of the first request that met it or, where nobody lives to tell, of the signal."""

    fault: str
    process: subprocess.Popen[bytes]
    noted: Path
    at: float = float("inf")

    def begin(self) -> None:
        os.kill(self.process.pid, PROCESS_FAULTS.get(self.fault, signal.SIGUSR1))
        if self.fault in PROCESS_FAULTS:
            self.at = time.monotonic()

    def elapsed_seconds(self) -> float:
        if self.at == float("inf") and self.noted.exists() and (text := self.noted.read_text()):
            self.at = float(text)
        return time.monotonic() - self.at


async def _measure(rig: Rig, onset: _Onset, seconds: float) -> FaultFigures:
    rig.admin.set_split(5_000, mirror=True, quiet=False)
    await asyncio.sleep(0.1)
    users, watch = _Users(rig.settings.live_port), _Watch(rig)

    def is_over() -> bool:
        elapsed = onset.elapsed_seconds()
        is_known = watch.counted_at is not None and watch.halted_at is not None
        return elapsed > seconds or (is_known and elapsed > DEADLINE_SECONDS + 1)

    tasks = [asyncio.create_task(users.run(is_over)), asyncio.create_task(watch.run(is_over))]
    await asyncio.sleep(HEALTHY_SECONDS)
    if watch.counted_at is not None or watch.halted_at is not None:
        raise Disturbed(f"{onset.fault}: a healthy candidate was counted as failing or judged, so nothing can be measured")
    onset.begin()
    await asyncio.gather(*tasks)
    met = [reply for asked_at, reply in users.asked if asked_at >= onset.at - PERIOD_SECONDS]
    failed = sum(reply.status != 200 or reply.body != GOOD for _, reply in users.asked)
    slowest_ms = max(reply.elapsed_seconds for reply in met) * 1e3
    counted_ms, halted_ms = (None if at is None else (at - onset.at) * 1e3 for at in (watch.counted_at, watch.halted_at))
    return FaultFigures(onset.fault, len(users.asked), failed, slowest_ms, counted_ms, halted_ms)
