"""
The canary judge against its acceptance tables T1 to T4, with the rules others use on the same streams.

    python -m benchmarks.judge [--quick] [--json FILE]

Goals: our false halts stay below alpha at 95 % confidence, and no delay exceeds the design's by 15 %. Exits 1 where one is missed.
Aims are printed the same way and do not change the exit code. --quick: fewer repetitions, under a minute.
"""

import argparse
import json
import math
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from benchmarks.judge_rivals import Ints
from benchmarks.judge_runs import Halts, run
from benchmarks.judge_streams import ALPHA, RESTARTS, SINCE_START, Scenario, scenarios
from interlock.judge.bounds import share_bounds
from interlock.terminal import wide_console

PROCESSES = 2
LIMIT_BETA = 0.05  # of each one-sided Clopper-Pearson limit
DELAY_SLACK = 1.15
WALD_AIM = 1.5
TAIL_AIMS_REQUESTS = {
    "p99 x1.5": 36_000.0,  # half of the requests of T4
    "p99 2 % +500 ms": 4500.0,  # half of the design's 9,000; who knows the incumbent's quantile and the best bet needs 3,700
}
FULL = {"T1": (2000, 1000), "T2": (2000, 1000), "T3": (2000, 1000), "T4": (400, 300)}  # (within tolerance, regressions)
QUICK = {"T1": (400, 250), "T2": (400, 200), "T3": (500, 300), "T4": (100, 60)}
CALM_PART = 0.6  # of the repetitions, for rows so far within tolerance that a handful of halts would be news
TITLES = {
    "T1": "T1 divergence of labels, tolerance .02, in pairs",
    "T2": "T2 divergence of scores, tolerance .02, in pairs",
    "T3": "T3 errors of split traffic, 10 % on the candidate, in requests",
    "T4": "T4 latency of split traffic, 10 % on the candidate, in requests",
}
LEGEND = """\
Within tolerance: share of repetitions that halt; ! = above alpha .05 at 95 % confidence. Regressions: median delay of the halts after
onset, (times Wald's bound), share found if not all; + = sooner than the judge's own process (with restarts where it has them) by a
rule that no row of the table shows to exceed alpha. Wald's bound is ln(1/alpha) over the nats a request gives the best test: KL of the
two Bernoulli laws (T1), max over stakes of E ln(1 + stake (x - m)) with the law known (T2, T3), KL of exceeding the tolerated multiple
of the incumbent's quantile, that quantile known, over the candidate's share (T4). It bounds the mean; a median may lie below.
Argo: each minute's measurement fails above the tolerance (tuned: 2.5 x; errors 4 %), the 4th failure halts. Kayenta: every 5 minutes,
Mann-Whitney at 98 % on all minute values of both arms, halts on "High" against a quarter of the Hodges-Lehmann shift; its null is
equality, not tolerance, and its control for divergence is an incumbent at .005 against itself. Pocock, O'Brien-Fleming: one-sided,
a look a minute. Peeked: the test for one look, at every look. Mixtures: Howard and Ramdas', tuned for 1,000 pairs, at every pair.
Ours: a look at every pair (T1, T2), every 10 requests (T3), every minute of 600 requests (T4: 600 is the least it can say).
Drifting: the running mean stays within tolerance, single minutes do not; restarts ask about every minute and halt by design."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one scenario. delay: median, in requests after onset, NaN without halts. halted: after onset."""

    table: str
    scenario: str
    method: str
    repetitions: int
    halted: int
    delay_requests: float
    wald_multiple: float

    @property
    def share(self) -> float:
        """Share of the repetitions that halted."""
        return self.halted / self.repetitions

    @property
    def limits(self) -> tuple[float, float]:
        """Clopper-Pearson limits of the share, each at LIMIT_BETA."""
        bounds = share_bounds(self.halted, self.repetitions, beta=LIMIT_BETA)
        return bounds if bounds is not None else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Goal:
    """
    A number, the most it may be, and what it is compared with: the design's delay, else the same.

    An aim is a goal that does not change the exit code.
    """

    name: str
    measured: float
    most: float
    compared: float
    is_aim: bool = False

    @property
    def met(self) -> bool:
        """NaN is a miss."""
        return self.measured <= self.most


Cells = dict[str, Cell]  # by method
Figures = list[tuple[Scenario, Cells]]


def cell_of(scenario: Scenario, method: str, halts: Ints) -> Cell:
    """The summary of one method's halts. A halt before the onset finds nothing."""
    found = halts[halts > scenario.onset]
    delay = float(np.median(found)) - scenario.onset if found.size else math.nan
    return Cell(scenario.table, scenario.label, method, halts.size, int(found.size), delay, delay / scenario.bound)


def repetitions_of(scenario: Scenario, repetitions: dict[str, tuple[int, int]]) -> int:
    """How often to draw a scenario."""
    planned = repetitions[scenario.table][not scenario.within_tolerance]
    return round(CALM_PART * planned) if scenario.is_calm else planned


def measure(repetitions: dict[str, tuple[int, int]], console: Console) -> Figures:
    """Every scenario, two at a time."""
    planned = scenarios()
    halts: dict[int, Halts] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool, Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("streams", total=len(planned))
        jobs = {pool.submit(run, each, repetitions_of(each, repetitions)): i for i, each in enumerate(planned)}
        for job in as_completed(jobs):
            halts[jobs[job]] = job.result()
            progress.advance(task)
    return [(each, {name: cell_of(each, name, found) for name, found in halts[i].items()}) for i, each in enumerate(planned)]


def goals_of(figures: Figures) -> list[Goal]:
    """False halts and delays of our own processes, then the aims."""
    goals = []
    for scenario, cells in figures:
        ours = [(name, delay) for name, delay in zip((SINCE_START, RESTARTS), scenario.published, strict=True) if name in cells]
        title = f"{scenario.table} {scenario.label}"
        if scenario.within_tolerance:
            goals += [
                Goal(f"{title}: halts, {name}, 95 % limit", cells[name].limits[1], ALPHA, ALPHA)
                for name, _ in ours
                if _bounded(scenario, name)
            ]
        else:
            goals += [
                Goal(f"{title}: delay, {name}", cells[name].delay_requests, DELAY_SLACK * delay, delay)
                for name, delay in ours
                if delay == delay
            ]
    return goals + list(aims_of(figures))


def aims_of(figures: Figures) -> Iterator[Goal]:
    """How near to what is possible we want to be."""
    for scenario, cells in figures:
        if scenario.table == "T1" and scenario.effect >= 0.04 and not scenario.onset:
            multiple = cells[RESTARTS].wald_multiple
            yield Goal(f"T1 {scenario.label}: times Wald's bound, {RESTARTS}", multiple, WALD_AIM, WALD_AIM, is_aim=True)
        if scenario.table == "T4" and scenario.label in TAIL_AIMS_REQUESTS:
            delay, aim = cells[SINCE_START].delay_requests, TAIL_AIMS_REQUESTS[scenario.label]
            yield Goal(f"T4 {scenario.label}: delay, {SINCE_START}", delay, aim, aim, is_aim=True)


def _bounded(scenario: Scenario, method: str) -> bool:
    """Restarts ask about every window, not about the running mean: drift within the latter is theirs to halt."""
    return not (method == RESTARTS and (scenario.table, scenario.key) == ("T1", 2))


def exceeds_alpha(columns: Figures, method: str) -> bool:
    """Whether some row within tolerance shows the method halting more often than alpha."""
    return any(s.within_tolerance and _bounded(s, method) and cells[method].limits[0] > ALPHA for s, cells in columns)


def is_sooner(scenario: Scenario, cells: Cells, method: str) -> bool:
    """Whether a rival finds this regression sooner than our own process."""
    own = cells.get(RESTARTS, cells[SINCE_START])
    return method not in (SINCE_START, RESTARTS) and not scenario.within_tolerance and cells[method].delay_requests < own.delay_requests


def text_of(scenario: Scenario, cells: Cells, method: str, *, sound: bool) -> str:
    """One cell of a printed table."""
    cell = cells[method]
    if scenario.within_tolerance:
        return f"{cell.share:.1%}" + (" !" if cell.limits[0] > ALPHA and _bounded(scenario, method) else "")
    if not cell.halted:
        return "never"
    found = "" if cell.share >= 0.995 else f" {cell.share:.0%}"
    return f"{cell.delay_requests:,.0f} ({cell.wald_multiple:.1f}x){found}" + (" +" if sound and is_sooner(scenario, cells, method) else "")


def print_table(columns: Figures, console: Console) -> None:
    """One acceptance table, and in a sentence who was sooner."""
    scenario, cells = columns[0]
    table = Table(Column("method", no_wrap=True), *(each.label for each, _ in columns), title=TITLES[scenario.table], title_justify="left")
    for method in cells:
        sound = not exceeds_alpha(columns, method)
        table.add_row(method, *(text_of(each, row, method, sound=sound) for each, row in columns))
    table.add_row("the design", *(_design_text(each) for each, _ in columns), style="dim")
    console.print(table)
    for sound, start in ((True, "Sooner than ours and not shown to exceed alpha"), (False, "Sooner than ours, but halting too often")):
        names = [_sooner_text(columns, m) for m in cells if exceeds_alpha(columns, m) is not sound]
        console.print(f"{start}: {'; '.join(name for name in names if name) or 'none'}.")
    console.print()


def _design_text(scenario: Scenario) -> str:
    return " / ".join(f"{delay:,.0f}" for delay in scenario.published if delay == delay) or "-"


def _sooner_text(columns: Figures, method: str) -> str:
    """The regressions a rival finds sooner, and the most it halts within tolerance; empty if none."""
    where = [f"{s.label} {cells[method].delay_requests:,.0f}" for s, cells in columns if is_sooner(s, cells, method)]
    worst = max(cells[method].share for s, cells in columns if s.within_tolerance)
    return f"{method} ({', '.join(where)}; {worst:.1%} within tolerance)" if where else ""


def print_goals(goals: list[Goal], console: Console) -> None:
    """Every goal and aim, with its ratio to the design's number."""
    table = Table("goal", "measured", "compared with", "ratio", "at most", "")
    for goal in goals:
        numbers = [f"{number:,.3g}" if number < 100 else f"{number:,.0f}" for number in (goal.measured, goal.compared, goal.most)]
        verdict = ("met" if goal.met else "missed") + (" (aim)" if goal.is_aim else "")
        table.add_row(goal.name, *numbers[:2], f"{goal.measured / goal.compared:.2f}", numbers[2], verdict)
    console.print(table)


def written(figures: Figures, goals: list[Goal]) -> str:
    """Everything as JSON; what is not a number is null."""

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    cells = [{**asdict(cell), "halt_share": cell.share, "limits": cell.limits} for _, row in figures for cell in row.values()]
    lines = {"cells": cells, "goals": [{**asdict(goal), "met": goal.met} for goal in goals]}
    return json.dumps({name: [{k: plain(v) for k, v in line.items()} for line in rows] for name, rows in lines.items()}, indent=1)


def main() -> int:
    """Run, print, and say by the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options, console = parser.parse_args(), wide_console(markup=False)
    figures = measure(QUICK if options.quick else FULL, console)
    for name in TITLES:
        print_table([(scenario, cells) for scenario, cells in figures if scenario.table == name], console)
    console.print(LEGEND)
    goals = goals_of(figures)
    print_goals(goals, console)
    if options.json:
        options.json.write_text(written(figures, goals), encoding="utf-8")
    return 0 if all(goal.met for goal in goals if not goal.is_aim) else 1


if __name__ == "__main__":
    sys.exit(main())
