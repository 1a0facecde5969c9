"""What came of each release of the demonstration, as a table for people and as JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

MEDIAN_RECOVERY_GOAL_SECONDS = 10.0
WORST_RECOVERY_GOAL_SECONDS = 20.0
ROLLBACK_P95_GOAL_SECONDS = 1.0
MEMORY_GOAL_MIB = 3072.0
DEMO_GOAL_SECONDS = 720.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    One release as it ended.

    requests_until_halt: live requests between the fault and the halt. detect_seconds: fault active -> halt decided.
    recover_seconds: fault active -> 100 % of responses from the incumbent. All None for a release without a fault.
    """

    key: str
    title: str
    candidate: str
    decision: str
    decided_by: str
    reason: str
    as_expected: bool
    requests_until_halt: int | None
    detect_seconds: float | None
    recover_seconds: float | None
    failed_request_count: int
    release_seconds: float


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """Figures of the whole demonstration. `rollback_seconds`: ask -> observed, of every rollback that was run."""

    outcomes: tuple[Outcome, ...]
    total_request_count: int
    failed_request_count: int
    rollback_seconds: tuple[float, ...]
    peak_memory_mib: float
    elapsed_seconds: float
    addresses: dict[str, str]

    @property
    def recoveries(self) -> list[float]:
        """Seconds to recover of every release that had to."""
        return [o.recover_seconds for o in self.outcomes if o.recover_seconds is not None]

    @property
    def rollback_p95_seconds(self) -> float:
        """The 95th percentile of ask -> observed."""
        ordered = sorted(self.rollback_seconds)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] if ordered else float("inf")

    def goals(self) -> list[tuple[str, str, str, bool]]:
        """Name, figure, goal, met."""
        recoveries = self.recoveries or [float("inf")]
        median, worst = statistics.median(recoveries), max(recoveries)
        return [
            ("every release ended as it should", _count(self.outcomes), "all", all(o.as_expected for o in self.outcomes)),
            ("failed user requests", f"{self.failed_request_count} of {self.total_request_count:,}", "0", self.failed_request_count == 0),
            ("median time to recover", f"{median:.1f} s", "10 s", median <= MEDIAN_RECOVERY_GOAL_SECONDS),
            ("worst time to recover", f"{worst:.1f} s", "20 s (mandate 300 s)", worst <= WORST_RECOVERY_GOAL_SECONDS),
            (
                f"rollback, ask to observed, p95 of {len(self.rollback_seconds)}",
                f"{self.rollback_p95_seconds:.2f} s",
                "1 s",
                self.rollback_p95_seconds <= ROLLBACK_P95_GOAL_SECONDS,
            ),
            ("memory of the stack, two versions", f"{self.peak_memory_mib:,.0f} MiB", "3,072 MiB", self.peak_memory_mib <= MEMORY_GOAL_MIB),
            ("whole demonstration", f"{self.elapsed_seconds / 60:.1f} min", "12 min", self.elapsed_seconds <= DEMO_GOAL_SECONDS),
        ]

    @property
    def is_good(self) -> bool:
        """All releases ended as they should and no user request failed: what the exit code says."""
        return all(o.as_expected for o in self.outcomes) and bool(self.outcomes) and self.failed_request_count == 0


def print_figures(figures: DemoFigures, console: Console) -> None:
    """The table, the goals, and where to look."""
    columns = (
        "candidate",
        "what it is",
        "decision",
        "decided by",
        "requests\nuntil halt",
        "detect",
        "recover",
        "failed user\nrequests",
        "as it\nshould",
    )
    table = Table(*columns, title="Releases", title_justify="left")
    for o in figures.outcomes:
        row = (o.candidate, o.title, o.decision, o.decided_by, _maybe(o.requests_until_halt, "{:,}"), _maybe(o.detect_seconds, "{:.1f} s"))
        table.add_row(*row, _maybe(o.recover_seconds, "{:.1f} s"), str(o.failed_request_count), "yes" if o.as_expected else "[red]NO[/red]")
    console.print(table)
    goals = Table("figure", "measured", "goal", "", title="Goals", title_justify="left")
    for name, measured, goal, met in figures.goals():
        goals.add_row(name, measured, goal, "met" if met else "[red]missed[/red]")
    console.print(goals)
    for name, address in figures.addresses.items():
        console.print(f"{name}: {address}", highlight=False)


def write_figures(figures: DemoFigures, path: Path) -> None:
    """The same as JSON."""
    goals = [{"name": n, "measured": m, "goal": g, "met": met} for n, m, g, met in figures.goals()]
    path.write_text(json.dumps({**asdict(figures), "goals": goals}, indent=1), encoding="utf-8")


def _count(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(o.as_expected for o in outcomes)} of {len(outcomes)}"


def _maybe(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
