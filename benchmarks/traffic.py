"""
The traffic plane under load: what Envoy costs, how fast it follows a weight, and what users see of a broken candidate.

    python -m benchmarks.traffic [--quick] [--json FILE]

Everything runs on this machine and shares its cores, so costs are compared within one run, in turns. The journal is written every
.1 s here, every .5 s in the product: add up to .4 s to "counted" and "HALT". The goals, and why these:

cost      Envoy adds at most 1 ms to the median at 1 connection: the fastest model servers we know take .8 to 1.1 ms, and the plane must not
          cost more than the model. Captured and mirrored it passes at least 1,000 requests/s: what one core of such a server answers.
          Holding an answer back until it is seen to be usable makes the median at most 1.5 times as long. Nothing fails.
weights   the last request for the arm that was left is asked at most 10 ms after the change in the median and 250 ms in the worst case,
          a quarter of the second that a rollback may take. Nothing fails.
faults    0 user-visible failures for every fault; no answer later than the candidate's deadline + 1 s; counted against the candidate within
          2 s of the first request that met the fault, and within its deadline + 2 s where nobody can tell it from a slow answer before;
          HALT by the judge (the tests' policy: alpha .01) within 5 s, which leaves the release its look once a second.
start     Envoy serves within 2 s of its start: it must be back within that after a kill.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.traffic_change import Changes, measure_changes
from benchmarks.traffic_cost import CONNECTIONS, WAYS, measure_cost
from benchmarks.traffic_cost import Table as Costs
from benchmarks.traffic_faults import DEADLINE_SECONDS, WAITING_FAULTS, FaultFigures, measure_faults
from benchmarks.traffic_start import measure_starts
from interlock.terminal import wide_console

ADDED_MS_LIMIT = 1.0
MIRRORED_PER_SECOND_LIMIT = 1000.0
CONTAINED_RATIO_LIMIT = 1.5
CHANGE_MEDIAN_MS_LIMIT, CHANGE_MAX_MS_LIMIT = 10.0, 250.0
SLOWEST_MS_LIMIT = (DEADLINE_SECONDS + 1) * 1e3
COUNTED_MS_LIMIT, COUNTED_AFTER_DEADLINE_MS_LIMIT = 2000.0, (DEADLINE_SECONDS + 2) * 1e3
HALTED_MS_LIMIT = 5000.0
START_SECONDS_LIMIT = 2.0
NEVER_MS = float("inf")


@dataclass(frozen=True)
class Goal:
    """A limit, and what was found."""

    name: str
    found: float
    limit: float
    is_minimum: bool = False

    @property
    def met(self) -> bool:
        """Whether the limit was kept."""
        return self.found >= self.limit if self.is_minimum else self.found <= self.limit


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and says with the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(prog="benchmarks.traffic")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, changes and seconds; about 3 minutes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    console = wide_console()
    costs = measure_cost(rounds=3 if options.quick else 7, seconds=1.0 if options.quick else 3.0)
    show_costs(console, costs)
    changes = measure_changes(50 if options.quick else 200)
    show_changes(console, changes)
    faults = measure_faults(seconds=6.0 if options.quick else 12.0)
    show_faults(console, faults)
    starts = measure_starts(5 if options.quick else 20)
    goals = [*cost_goals(costs), *change_goals(changes), *fault_goals(faults), Goal("start: slowest, s", max(starts), START_SECONDS_LIMIT)]
    show_goals(console, goals, starts)
    if options.json:
        options.json.write_text(json.dumps(_content(costs, changes, faults, starts, goals), indent=2) + "\n")
    return 0 if all(goal.met for goal in goals) else 1


def cost_goals(costs: Costs) -> list[Goal]:
    """What Envoy may cost."""
    alone, many = CONNECTIONS
    added_ms = costs["Envoy", alone].p50_ms - costs["direct", alone].p50_ms
    ratio = costs["Envoy, captured, contained", alone].p50_ms / costs["Envoy, captured", alone].p50_ms
    mirrored = costs["Envoy, captured, mirrored", many].requests_per_second
    return [
        Goal("cost: ms added to the median at 1 connection", added_ms, ADDED_MS_LIMIT),
        Goal("cost: requests/s, captured and mirrored", mirrored, MIRRORED_PER_SECOND_LIMIT, is_minimum=True),
        Goal("cost: median contained / not contained", ratio, CONTAINED_RATIO_LIMIT),
        Goal("cost: failed requests", sum(one.failed for one in costs.values()), 0),
    ]


def change_goals(changes: Changes) -> list[Goal]:
    """How fast a weight must be in force."""
    last = [one.last_ms for one in changes.changes]
    return [
        Goal("weights: ms until the last request for the old arm, median", statistics.median(last), CHANGE_MEDIAN_MS_LIMIT),
        Goal("weights: the same, slowest", max(last), CHANGE_MAX_MS_LIMIT),
        Goal("weights: failed requests", changes.failed, 0),
    ]


def fault_goals(faults: list[FaultFigures]) -> list[Goal]:
    """What users may see of a broken candidate, and how soon it must be known."""
    counted = {one.fault: NEVER_MS if one.counted_ms is None else one.counted_ms for one in faults}
    at_once = max(ms for fault, ms in counted.items() if fault not in WAITING_FAULTS)
    waiting = max(ms for fault, ms in counted.items() if fault in WAITING_FAULTS)
    halted = max(NEVER_MS if one.halted_ms is None else one.halted_ms for one in faults)
    return [
        Goal("faults: user-visible failures", sum(one.failed for one in faults), 0),
        Goal("faults: slowest answer, ms", max(one.slowest_ms for one in faults), SLOWEST_MS_LIMIT),
        Goal("faults: counted, ms", at_once, COUNTED_MS_LIMIT),
        Goal("faults: counted where only the deadline tells, ms", waiting, COUNTED_AFTER_DEADLINE_MS_LIMIT),
        Goal("faults: HALT, ms", halted, HALTED_MS_LIMIT),
    ]


def show_costs(console: Console, costs: Costs) -> None:
    """Every way at every number of connections, and each as a ratio to direct."""
    table = Table(title=f"cost of a request, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    headings = ("requests/s", "p50 ms", "p99 ms", "p50 / direct", "requests/s / direct", "Envoy CPU us", "collector CPU us")
    table.add_column("way")
    for heading in ("connections", *headings):
        table.add_column(heading, justify="right")
    for count in CONNECTIONS:
        direct = costs["direct", count]
        for way in WAYS:
            one = costs[way, count]
            shares = f"{one.p50_ms / direct.p50_ms:.1f}", f"{one.requests_per_second / direct.requests_per_second:.3f}"
            cpu = f"{one.envoy_cpu_us:.0f}", f"{one.collector_cpu_us:.0f}"
            table.add_row(way, str(count), f"{one.requests_per_second:,.0f}", f"{one.p50_ms:.3f}", f"{one.p99_ms:.3f}", *shares, *cpu)
    console.print(table)


def show_changes(console: Console, changes: Changes) -> None:
    """How soon a weight was in force."""
    found = changes.summary()
    table = Table(
        "asked ->", "median ms", "max ms", title=f"{found['changes']} changes of weight, {found['requests']:,} requests meanwhile"
    )
    table.add_row("first answer of the new arm", f"{found['first_median_ms']:.1f}", f"{found['first_max_ms']:.1f}")
    table.add_row("last request for the old arm", f"{found['last_median_ms']:.1f}", f"{found['last_max_ms']:.1f}")
    console.print(table)


def show_faults(console: Console, faults: list[FaultFigures]) -> None:
    """One line a fault."""
    table = Table(
        title=f"candidate with half of 100 requests/s, deadline {DEADLINE_SECONDS:g} s; ms from the first request that met the fault"
    )
    table.add_column("fault")
    for heading in ("requests", "failed for users", "slowest answer ms", "counted ms", "HALT ms"):
        table.add_column(heading, justify="right")
    for one in faults:
        times = ["never" if ms is None else f"{ms:.0f}" for ms in (one.counted_ms, one.halted_ms)]
        table.add_row(one.fault, str(one.requests), str(one.failed), f"{one.slowest_ms:.0f}", *times)
    console.print(table)


def show_goals(console: Console, goals: list[Goal], starts: list[float]) -> None:
    """Each goal as met or missed."""
    console.print(f"Envoy from start to its first answer: median {statistics.median(starts) * 1e3:.0f} ms of {len(starts)}")
    table = Table("goal", "found", "limit", "")
    for goal in goals:
        sign = ">=" if goal.is_minimum else "<="
        found, limit = (f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.2f}" for value in (goal.found, goal.limit))
        table.add_row(goal.name, found, f"{sign} {limit}", "[green]met[/green]" if goal.met else "[red]missed[/red]")
    console.print(table)


def _content(costs: Costs, changes: Changes, faults: list[FaultFigures], starts: list[float], goals: list[Goal]) -> dict[str, object]:
    return {
        "costs": [{"way": way, "connections": count, **asdict(one)} for (way, count), one in costs.items()],
        "changes": changes.summary(),
        "faults": [asdict(one) for one in faults],
        "start_seconds": starts,
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
    }


if __name__ == "__main__":
    sys.exit(main())
