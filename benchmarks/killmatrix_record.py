"""One kill as it was measured, what it misses of the goals, and the file that all kills are kept in. Pure but for the file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.killmatrix_cells import FREEZE_MARGIN_SECONDS, Cell, Schedule
from interlock.plane.state_directory import write_json

LEASE_SECONDS = 5.0  # profiles/killmatrix.yaml; a test holds the two together
HELD_GOAL_SECONDS = LEASE_SECONDS + 5.0
FREEZE_SECONDS = LEASE_SECONDS + FREEZE_MARGIN_SECONDS
OUTAGE_GOAL_SECONDS = 2.0
RATE_GOAL = 100.0
MAY_FAIL_USERS = ("envoy", "incumbent")  # whose death or freeze users may notice, for no longer than the goal above

GOALS = (
    f"no share held for more than {HELD_GOAL_SECONDS:g} s (lease + 5) without a renewal",
    "0 failed user requests, unless Envoy or the incumbent's server was hit",
    f"Envoy or the incumbent's server hit: outage of {OUTAGE_GOAL_SECONDS:g} s at most",
    "consistent afterwards",
    f"{RATE_GOAL:g} requests a second at least",
)


@dataclass(frozen=True, slots=True)
class Kill:
    """
    One kill. Times in seconds from the signal, unless named otherwise.

    to_nothing_seconds: until Envoy gave the candidate nothing; None when it had nothing, or kept it to the end of what was watched.
    held_seconds:       the longest that a share was held since a renewal. renewed_seconds: when the lease was renewed last, if it was.
    is_survived:        the release went on and ended in its own decision. ending: all endings in the evidence, and Prefect's state.
    outage_seconds:     from the first to the last failed request, by when each was due.
    troubles:           what was not as it should be in the end; empty when everything was consistent after consistent_seconds.
    """

    target: str
    signal: str
    phase: str
    seed: str
    release_id: str
    moment_seconds: float
    weight_bps: int | None
    to_nothing_seconds: float | None
    held_seconds: float
    renewed_seconds: float | None
    is_survived: bool
    ending: str
    run_state: str
    request_count: int
    requests_per_second: float
    failed_count: int
    failures: Mapping[str, int]
    outage_seconds: float
    slowest_ms: float
    supervisor_start_count: int
    consistent_seconds: float | None
    troubles: Sequence[str]
    repair: str
    elapsed_seconds: float

    @property
    def cell(self) -> Cell:
        """Which cell this kill belongs to."""
        return Cell(self.target, self.signal, self.phase)


def missed_goals(kill: Kill) -> dict[str, str]:
    """The goals that this kill missed, each with its number."""
    missed = {}
    if kill.held_seconds > HELD_GOAL_SECONDS:
        missed[GOALS[0]] = f"a share was held for {kill.held_seconds:.1f} s"
    if kill.failed_count and kill.target not in MAY_FAIL_USERS:
        missed[GOALS[1]] = f"{kill.failed_count} requests failed ({_told(kill.failures)})"
    if kill.target in MAY_FAIL_USERS and kill.outage_seconds > OUTAGE_GOAL_SECONDS:
        missed[GOALS[2]] = f"{kill.failed_count} requests failed over {kill.outage_seconds:.1f} s ({_told(kill.failures)})"
    if kill.troubles:
        missed[GOALS[3]] = "; ".join(kill.troubles)
    if kill.requests_per_second < RATE_GOAL:
        missed[GOALS[4]] = f"{kill.requests_per_second:.0f} requests a second"
    return missed


def _told(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in failures.items())


@dataclass(slots=True)
class Results:
    """Every kill so far; written as a whole after each, so that a run can be ended at any time and be continued."""

    path: Path | None
    seed: int
    requests_per_second: float
    kills: list[Kill] = field(default_factory=list)
    misses: dict[str, int] = field(default_factory=dict)

    def add(self, kill: Kill) -> None:
        """Keep one more."""
        self.kills.append(kill)
        self.write()

    def note_miss(self, cell: Cell) -> None:
        """This cell's phase was over before the signal came."""
        self.misses[str(cell)] = self.misses.get(str(cell), 0) + 1

    def write(self) -> None:
        """The whole file anew."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """What the file says: how it was measured, the goals, every kill with what it missed."""
        kills = [{**asdict(kill), "missed": missed_goals(kill)} for kill in self.kills]
        return {
            "benchmark": "killmatrix",
            "seed": self.seed,
            "asked_requests_per_second": self.requests_per_second,
            "lease_seconds": LEASE_SECONDS,
            "freeze_seconds": FREEZE_SECONDS,
            "goals": {goal: sum(goal in missed_goals(kill) for kill in self.kills) for goal in GOALS},
            "misses": self.misses,
            "kills": kills,
        }

    def resume(self, schedule: Schedule) -> None:
        """Read the file of an earlier run and count what it has done."""
        if self.path and self.path.exists():
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            self.kills = [Kill(**{key: value for key, value in kill.items() if key != "missed"}) for kill in saved["kills"]]
            self.misses, self.seed = saved["misses"], saved["seed"]
            schedule.seed = self.seed
            schedule.done.update(kill.cell for kill in self.kills)
