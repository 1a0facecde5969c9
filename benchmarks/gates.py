"""
Do the gates see? Planted defects, healthy candidates, and what each gate costs beside the bare library call.

    python -m benchmarks.gates [--quick] [--part NAME] [--json FILE]

The policy is profiles/demo.yaml, but where a row says otherwise; models, files, model servers, Evidently and the reading process are
real, and every gate is called as a release calls it. The goals, and why these:

defects   at least 60, each refused by the gate that is meant for it, for the reason that was planted, 0 missed; and every gate passes the
          good candidate in the same set-up: a gate that refuses everything has seen nothing.
healthy   at least 30 candidates with nothing wrong, at most 1 refused.
cost      each gate takes at most 1.15 times as long as the bare library call on the same data.

Exits 1 where a goal is missed.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.gates_part import Goal, Part
from interlock.terminal import wide_console

PARTS = {"defects": "benchmarks.gates_defects", "healthy": "benchmarks.gates_healthy", "cost": "benchmarks.gates_cost"}


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and says with the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(prog="benchmarks.gates")
    parser.add_argument("--quick", action="store_true", help="some defects and candidates of every kind; a few minutes")
    parser.add_argument("--part", choices=PARTS, help="one of the three alone")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    console, parts = wide_console(), dict[str, Part]()
    for name in [options.part] if options.part else PARTS:
        parts[name] = importlib.import_module(PARTS[name]).table(options.quick)
        show_part(console, parts[name])
    show_goals(console, [goal for part in parts.values() for goal in part.goals])
    if options.json:
        options.json.write_text(json.dumps(content(parts), indent=1) + "\n", encoding="utf-8")
    return 0 if is_met(parts) else 1


def is_met(parts: Mapping[str, Part]) -> bool:
    """Whether every goal of every part was met; a part without goals has shown nothing."""
    return all(part.goals and all(goal.is_met for goal in part.goals) for part in parts.values())


def content(parts: Mapping[str, Part]) -> dict[str, object]:
    """What goes into the JSON file."""
    machine = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    found = {name: {"goals": [asdict(goal) for goal in part.goals], **part.values} for name, part in parts.items()}
    return {"machine": machine, "is_met": is_met(parts), **found}


def show_part(console: Console, part: Part) -> None:
    """One table."""
    table = Table(*part.columns, title=part.title)
    for row in part.rows:
        table.add_row(*row)
    console.print(table, markup=False)


def show_goals(console: Console, goals: list[Goal]) -> None:
    """Each goal as met or missed."""
    table = Table("goal", "found", "wanted", "", title=f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for goal in goals:
        table.add_row(goal.name, goal.value, goal.wanted, "[green]met[/green]" if goal.is_met else "[red]missed[/red]")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
