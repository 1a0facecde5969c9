"""The kill matrix for people: two tables of target and signal by phase, the goals, and every kill that missed one."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.killmatrix_cells import PHASES, SIGNALS, TARGETS
from benchmarks.killmatrix_record import GOALS, Kill, Results, missed_goals


def print_results(results: Results, console: Console) -> None:
    """Everything, at 140 columns."""
    kills = results.kills
    console.print(_matrix("seconds until the candidate's share was 0, worst (longest hold without a renewal)", kills, share_cell))
    console.print(_matrix("failed user requests / outage in seconds, worst; consistent k of n", kills, user_cell))
    console.print(_goals(kills))
    for kill in kills:
        for reason in missed_goals(kill).values():
            console.print(f"[red]missed[/red] {kill.cell} ({kill.release_id}): {escape(reason)}", highlight=False)
    if results.misses:
        told = ", ".join(f"{cell} {count}" for cell, count in sorted(results.misses.items()))
        console.print(f"signals that came after their phase, and were repeated: {told}", highlight=False)


def share_cell(kills: Sequence[Kill]) -> str:
    """`2.4 (1.1)`; `own` when every release kept its share by renewing it, to a decision of its own; `-` when none had one."""
    if not any(kill.weight_bps or kill.held_seconds for kill in kills):
        return "-"
    given_back = [kill.to_nothing_seconds for kill in kills if not kill.is_survived and kill.to_nothing_seconds is not None]
    worst = f"{max(given_back):.1f}" if given_back else "own"
    return f"{worst} ({max(kill.held_seconds for kill in kills):.1f})"


def user_cell(kills: Sequence[Kill]) -> str:
    """`0 · 2/2`, or with failures `31 / 1.4 · 1/2`."""
    worst = max(kills, key=lambda kill: (kill.failed_count, kill.outage_seconds))
    failed = f"{worst.failed_count} / {worst.outage_seconds:.1f}" if worst.failed_count else "0"
    return f"{failed} · {sum(not kill.troubles for kill in kills)}/{len(kills)}"


def _matrix(title: str, kills: Sequence[Kill], show: Callable[[Sequence[Kill]], str]) -> Table:
    table = Table("target", "signal", *PHASES, title=title, title_justify="left", title_style="bold")
    for target in TARGETS:
        for signal in SIGNALS:
            row = [[kill for kill in kills if (kill.target, kill.signal, kill.phase) == (target, signal, phase)] for phase in PHASES]
            if any(row):
                table.add_row(target, signal, *(_coloured(each, show) for each in row))
    return table


def _coloured(kills: Sequence[Kill], show: Callable[[Sequence[Kill]], str]) -> str:
    if not kills:
        return ""
    return f"[red]{show(kills)}[/red]" if any(missed_goals(kill) for kill in kills) else show(kills)


def _goals(kills: Sequence[Kill]) -> Table:
    table = Table("goal", "kills that missed it", "worst", "", title=f"{len(kills)} kills", title_justify="left", title_style="bold")
    worst = (
        max((kill.held_seconds for kill in kills), default=0.0),
        max((kill.failed_count for kill in kills if GOALS[1] in missed_goals(kill)), default=0),
        max((kill.outage_seconds for kill in kills if kill.target in ("envoy", "incumbent")), default=0.0),
        sum(bool(kill.troubles) for kill in kills),
        min((kill.requests_per_second for kill in kills), default=0.0),
    )
    for goal, value in zip(GOALS, worst, strict=True):
        count = sum(goal in missed_goals(kill) for kill in kills)
        table.add_row(goal, str(count), f"{value:.4g}", "[red]missed[/red]" if count else "met")
    return table
