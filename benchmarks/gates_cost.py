"""
Part of `benchmarks.gates`: what a gate costs beside the bare library call on the same data.

A gate is called as a release calls it, evidence and all; only reading the rows and loading the models is done before the clock starts, for
both sides. Gate and bare call take turns, so that other work on the machine meets both. Readiness, traffic and liveness have no library
call to be set beside.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any, TypeAlias

import mlflow
import pandas as pd

from benchmarks.gates_bare import (
    Recorder,
    ask_alone,
    ask_both,
    draw_drift,
    evaluate,
    evaluate_whole,
    load_latency,
    load_memory,
    measure_drift,
    scan_files,
)
from benchmarks.gates_part import Goal, Part
from benchmarks.gates_plane import BenchPlane
from benchmarks.gates_wide import COLUMN_COUNT, Wide, measure_wide
from benchmarks.gates_world import SENDER_TIMEOUT_SECONDS, World, open_world
from interlock.adapters.datasets import Dataset, read_rows
from interlock.adapters.evidently_drift import draw_page
from interlock.control.gates import run
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Verdict
from interlock.profile.reader import LoadedProfile

ROUND_COUNTS = (3, 15)  # at least, at most
TIMED_SECONDS = 40.0  # of each comparison: short ones get more rounds
MOST_RATIO = 1.15
WIDE_ROW_COUNT, QUICK_WIDE_ROW_COUNT = 1_000_000, 100_000
MOST_SECONDS, MOST_MIB = 60.0, 4096.0
ANY_LATENCY = {"max_ms": 1e9, "max_ratio_to_incumbent": 1e9, "slack_ms": 1e9}  # nothing is undecided: the gate looks once, as the bare load


Sides: TypeAlias = list[tuple[Callable[[ReleaseSession], object], list[float]]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A gate, and the bare call beside it. remark: where one side does more. is_goal: False for figures that are shown only."""

    gate: str
    run: Callable[[ReleaseSession], Verdict]
    beside: str
    bare: Callable[[ReleaseSession], object]
    remark: str
    is_goal: bool = True


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of each round, first the gate's. was_judged: every call of the gate measured something."""

    comparison: Comparison
    gate_seconds: tuple[float, ...]
    bare_seconds: tuple[float, ...]
    was_judged: bool

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return statistics.median(self.gate_seconds) / statistics.median(self.bare_seconds)

    @property
    def goal(self) -> Goal:
        """A gate that measured nothing was not timed, whatever its clock says."""
        name = f"{self.comparison.gate}: time beside {self.comparison.beside}"
        value = f"{self.ratio:.2f}x" if self.was_judged else "it was not judged"
        return Goal(name, value, f"<= {MOST_RATIO}x", self.was_judged and self.ratio <= MOST_RATIO)


@dataclass(frozen=True, slots=True)
class Setting:
    """Two servers that answer, rows that are read once, and sessions of one candidate in any number."""

    world: World
    plane: BenchPlane
    loaded: LoadedProfile
    read_rows: Callable[[str], Dataset]

    def session(self, **services: Any) -> ReleaseSession:
        """A release that has just loaded its candidate."""
        chosen = {"read_rows": self.read_rows, "draw_drift": lambda _: lambda *_: None, **services}
        session = self.world.session(self.world.good, self.plane, loaded=self.loaded, **chosen)
        session.record("loaded", candidate=self.world.good.label, start_seconds=1.0)
        return session

    def asked_of_candidate(self, gate: Callable[[ReleaseSession], Verdict]) -> list[pd.DataFrame]:
        """The rows of every request that this gate sends to the candidate."""
        candidate, recorder = self.plane.observe().candidate, Recorder(SENDER_TIMEOUT_SECONDS)
        assert candidate is not None
        gate(self.session(open_sender=recorder.open))
        return recorder.frames(candidate.port)


def table(quick: bool) -> Part:
    """Every gate that has a library call beside it, then the drift gate on many rows. Quick: fewer of those."""
    with open_world() as world, _tracking(world), world.serving.plane(world.incumbent, world.good) as (plane, _):
        loaded = world.changed("latency", p50=ANY_LATENCY, p95=ANY_LATENCY, p99=ANY_LATENCY)
        setting = Setting(world, plane, loaded, cache(partial(read_rows, data_directory=world.data.directory.parent)))
        timed = []
        for comparison in comparisons(setting):
            one = measure(comparison, setting.session)
            timed.append(one)
            print(f"cost  {' | '.join(_row(one))}", flush=True)
        wide = measure_wide(world.root, row_count=QUICK_WIDE_ROW_COUNT if quick else WIDE_ROW_COUNT)
    return summary(timed, wide)


def comparisons(setting: Setting) -> list[Comparison]:
    """In the order in which a release asks the gates."""
    parity, disagreement = setting.asked_of_candidate(run.run_parity), setting.asked_of_candidate(run.run_disagreement)
    return [
        Comparison("artifact", run.run_artifact, "picklescan and bandit", scan_files, "two programs start, the gate starts one"),
        Comparison("evaluation", run.run_evaluation, "mlflow.models.evaluate", evaluate, "gives no bounds; writes into its store"),
        Comparison("parity", run.run_parity, "the same requests", partial(ask_alone, frames=parity), "nothing is answered offline"),
        Comparison("latency", run.run_latency, "the same load", load_latency, "one look; an undecided gate has a second one"),
        Comparison("memory", run.run_memory, "the same load", load_memory, "nobody waits for a reading"),
        Comparison(
            "disagreement", run.run_disagreement, "the same requests", partial(ask_both, frames=disagreement), "nothing is compared"
        ),
        Comparison("drift", run.run_drift, "Evidently's distances", measure_drift, "gives no bounds; looks for no nulls and no ranges"),
        *_shown(),
    ]


def _shown() -> Iterator[Comparison]:
    """Other ways to look at two of them, which are no goals."""
    yield Comparison(
        "evaluation",
        run.run_evaluation,
        "mlflow.models.evaluate, all rows alone",
        evaluate_whole,
        "no slices and no bounds: 6 of the gate's 14 numbers",
        is_goal=False,
    )
    yield Comparison(
        "drift and its page",
        _drift_with_page,
        "Evidently's distances and page",
        draw_drift,
        "the gate's shows a sample",
        is_goal=False,
    )


def _drift_with_page(session: ReleaseSession) -> Verdict:
    return run.run_drift(replace(session, services=replace(session.services, draw_drift=lambda _: draw_page)))


def measure(comparison: Comparison, open_session: Callable[[], ReleaseSession]) -> Timed:
    """Both once, untimed, then both in every round, in alternating order."""
    verdicts = list[Verdict]()

    def ask_gate(session: ReleaseSession) -> None:
        verdicts.append(comparison.run(session))

    gate_seconds, bare_seconds = list[float](), list[float]()
    sides: Sides = [(ask_gate, gate_seconds), (comparison.bare, bare_seconds)]
    for side, _ in sides:
        side(open_session())
    least, most = ROUND_COUNTS
    while len(gate_seconds) < least or (len(gate_seconds) < most and sum(gate_seconds + bare_seconds) < TIMED_SECONDS):
        for side, seconds in reversed(sides) if len(gate_seconds) % 2 else sides:
            session, started = open_session(), time.monotonic()
            side(session)
            seconds.append(time.monotonic() - started)
    return Timed(comparison, tuple(gate_seconds), tuple(bare_seconds), all(verdict.measurements for verdict in verdicts))


def summary(timed: Sequence[Timed], wide: Wide) -> Part:
    """The table, its goals, and the seconds of every round for the JSON file."""
    return Part(
        title="Each gate beside the bare library call, medians",
        columns=("gate", "beside", "gate s", "bare s", "ratio", "unlike"),
        rows=(*(_row(one) for one in timed), _wide_row(wide)),
        goals=(*(one.goal for one in timed if one.comparison.is_goal), *_wide_goals(wide)),
        values={"gates": [_values(one) for one in timed], "wide": asdict(wide)},
    )


@contextmanager
def _tracking(world: World) -> Iterator[None]:
    """MLflow's evaluation wants a store for what it finds."""
    former = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{world.root}/tracking.db")
    try:
        yield
    finally:
        mlflow.set_tracking_uri(former)


def _wide_goals(wide: Wide) -> tuple[Goal, Goal]:
    what, is_judged = f"drift: {wide.row_count:,} rows x {COLUMN_COUNT} columns", wide.measurement_count > 0
    return (
        Goal(f"{what}, read and judged", f"{wide.seconds:.0f} s", f"<= {MOST_SECONDS:g} s", is_judged and wide.seconds <= MOST_SECONDS),
        Goal(f"{what}, peak memory", f"{wide.peak_mib:.0f} MiB", f"<= {MOST_MIB:g} MiB", is_judged and wide.peak_mib <= MOST_MIB),
    )


def _row(one: Timed) -> tuple[str, ...]:
    seconds = (f"{statistics.median(each):.2f}" for each in (one.gate_seconds, one.bare_seconds))
    ratio = f"{one.ratio:.2f}x" if one.was_judged else "-"
    return one.comparison.gate, one.comparison.beside, *seconds, ratio, one.comparison.remark


def _wide_row(wide: Wide) -> tuple[str, ...]:
    what = f"{wide.row_count:,} rows x {COLUMN_COUNT} columns: read {wide.read_seconds:.1f} s, then judged; {wide.peak_mib:.0f} MiB at most"
    return "drift", "nothing", f"{wide.seconds:.1f}", "", "", what


def _values(one: Timed) -> dict[str, Any]:
    return {
        "gate": one.comparison.gate,
        "beside": one.comparison.beside,
        "gate_seconds": [round(seconds, 3) for seconds in one.gate_seconds],
        "bare_seconds": [round(seconds, 3) for seconds in one.bare_seconds],
        "ratio": round(one.ratio, 3),
        "round_count": len(one.gate_seconds),
        "was_judged": one.was_judged,
        "is_goal": one.comparison.is_goal,
    }
