"""
SIGKILL and SIGSTOP of every process of the stack in every phase of a release, at random moments, under live traffic.

    python -m benchmarks.killmatrix [--quick] [--kills N] [--json FILE] [--resume] [--cells TARGET:SIGNAL:PHASE,...]

Nine processes, two signals, six phases: 108 cells; `*` stands for every target, signal or phase. A stopped process is continued when the
lease has been over for ten seconds, like a machine that was frozen. The result is written after every kill; --resume goes on with
the cells that have the fewest. --quick: 10 kills, below five minutes. Exits 1 where a goal is missed.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.killmatrix_cells import ALL_CELLS, QUICK_CELLS, Cell, Schedule, parse_cells
from benchmarks.killmatrix_journey import travel
from benchmarks.killmatrix_record import Kill, Results, missed_goals
from benchmarks.killmatrix_settled import settle
from benchmarks.killmatrix_stack import REQUESTS_PER_SECOND, running_rig
from benchmarks.killmatrix_table import print_results
from interlock.errors import ReleaseError
from interlock.terminal import wide_console

KILL_COUNT = 216  # every cell twice
SEED = 20130901
STACK_LIMIT = 12  # a stack that a kill has ruined is replaced; more than this many are a finding, not a measurement
FIRST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What to run. `root`: where the stacks live, a folder each; kept when it is given."""

    cells: Sequence[Cell]
    kill_count: int
    seed: int
    json_file: Path | None
    is_resumed: bool
    root: Path


def run(asked: Asked, console: Console) -> Results:
    """All kills, on one stack as long as it can be mended."""
    schedule = Schedule(asked.cells, asked.kill_count, asked.seed)
    results = Results(asked.json_file, asked.seed, REQUESTS_PER_SECOND)
    if asked.is_resumed:
        results.resume(schedule)
    progress = Progress(console, schedule)
    for number in range(STACK_LIMIT):
        if schedule.is_over:
            break
        root = asked.root / f"stack-{number}-{time.time_ns() // 10**9}"
        console.print(f"starting a stack in {root}", highlight=False)
        with running_rig(root, console) as rig:
            settle(rig, None, limit_seconds=FIRST_SECONDS)
            progress.begin()
            is_fit = True
            while is_fit and not schedule.is_over:
                goal = schedule.next_goal()
                try:
                    journey = travel(rig, schedule, results)
                except ReleaseError as error:
                    console.print(f"[red]no release for {goal}[/red]: {error}; a new stack", highlight=False)
                    schedule.note_miss(goal)
                    break
                is_fit = journey.is_fit
                progress.show(journey.kills, goal)
    results.write()
    return results


class Progress:
    """One line a kill: what it was, what came of it, how long it took, and how long the rest will."""

    def __init__(self, console: Console, schedule: Schedule) -> None:
        self._console, self._schedule = console, schedule
        self._started, self._count = time.monotonic(), 0

    def begin(self) -> None:
        """The clock starts with the first release, not with the stack."""
        if not self._count:
            self._started = time.monotonic()

    def show(self, kills: Sequence[Kill], goal: Cell) -> None:
        """The kills of one release."""
        if goal not in {kill.cell for kill in kills}:
            self._console.print(f"  {goal}: missed its phase, is repeated", highlight=False)
        done = self._schedule.done.total() - len(kills)
        self._count += len(kills)
        mean_seconds = (time.monotonic() - self._started) / max(1, self._count)
        left_minutes = mean_seconds * max(0, self._schedule.kill_count - self._schedule.done.total()) / 60
        for number, kill in enumerate(kills, done + 1):
            self._console.print(
                f"{time.strftime('%H:%M:%S')} kill {number} of {self._schedule.kill_count}: [bold]{kill.cell}[/bold] {_told(kill)}; "
                f"{kill.elapsed_seconds:.0f} s, {mean_seconds:.0f} s on average, {left_minutes:.0f} min left",
                highlight=False,
                soft_wrap=True,
            )


def _told(kill: Kill) -> str:
    share = "no share" if not kill.weight_bps else f"share {kill.weight_bps} bps, 0 after {kill.to_nothing_seconds} s"
    settled = "[red]inconsistent[/red]" if kill.troubles else f"consistent after {kill.consistent_seconds} s"
    missed = "".join(f"; [red]{reason}[/red]" for reason in missed_goals(kill).values())
    return f"{share}, held {kill.held_seconds} s, {kill.failed_count} failed, {kill.ending or 'no ending'}, {settled}{missed}"


def main() -> int:
    """Run, print, and say by the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--cells", type=parse_cells)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--root", type=Path, help="keep the stacks' directories here")
    options, console = parser.parse_args(), wide_console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack is stopped on the way out
    cells = options.cells or (QUICK_CELLS if options.quick else ALL_CELLS)
    kill_count = options.kills or (KILL_COUNT if cells is ALL_CELLS else len(cells))
    with tempfile.TemporaryDirectory(prefix="interlock-killmatrix-") as temporary:
        root = (options.root or Path(temporary)).absolute()
        results = run(Asked(cells, kill_count, options.seed, options.json, options.resume, root), console)
    print_results(results, console)
    is_whole = len(results.kills) >= kill_count
    return 0 if is_whole and not any(missed_goals(kill) for kill in results.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
