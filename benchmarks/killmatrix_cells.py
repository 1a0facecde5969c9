"""What is killed, how, and in which phase of a release; and which of these is due next. Nothing here touches a process."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

TARGETS = ("flow run", "worker", "prefect", "mlflow", "supervisor", "fuse", "envoy", "candidate", "incumbent")
SIGNALS = ("SIGKILL", "SIGSTOP")
PHASES = ("gates", "shadow", "canary", "promote", "bake", "rollback")
GIVE_UP_AFTER = 4  # misses of one cell, one after the other: the phase is too short for it, and the result says so

# How long after the beginning of a phase its moments are drawn from: what each lasted on two idle cores. Promotion is the time between
# Envoy's new weight and the registry's answer; a moment that comes too late is a miss and is drawn again.
PHASE_SECONDS = {"gates": 9.0, "shadow": 2.0, "canary": 9.0, "promote": 0.04, "bake": 5.0, "rollback": 1.2}
BEGINS_SECONDS = {"gates": 0.0, "shadow": 10.0, "canary": 12.0, "rollback": 15.0, "promote": 22.0, "bake": 22.1}
FREEZE_MARGIN_SECONDS = 10.0  # a frozen process is continued when the lease has been over for so long

# What a release lives through, in which phases, and how long until the stack is whole again: such kills are done on the way to another.
# Between the tasks of a flow Prefect must answer, and MLflow in the promotion.
SURVIVED = {
    ("fuse", "SIGKILL"): (1.8, ("gates", "shadow", "canary")),
    ("fuse", "SIGSTOP"): (17.0, ("gates",)),
    ("mlflow", "SIGKILL"): (7.0, ("gates", "shadow")),
    ("prefect", "SIGKILL"): (7.0, ("gates",)),
}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One process, one signal, one phase."""

    target: str
    signal: str
    phase: str

    def __str__(self) -> str:
        return f"{self.target}:{self.signal}:{self.phase}"


ALL_CELLS = tuple(Cell(*each) for each in product(TARGETS, SIGNALS, PHASES))
# Four ride along, so that six releases are enough; a run and a candidate that die in the canary are cases of test_end_to_end.py.
QUICK_CELLS = tuple(
    Cell(target, signal, phase)
    for target, signal, phase in (
        ("prefect", "SIGKILL", "gates"),
        ("mlflow", "SIGKILL", "gates"),
        ("mlflow", "SIGKILL", "shadow"),
        ("fuse", "SIGKILL", "shadow"),
        ("candidate", "SIGKILL", "gates"),
        ("incumbent", "SIGKILL", "canary"),
        ("supervisor", "SIGKILL", "canary"),
        ("envoy", "SIGKILL", "canary"),
        ("flow run", "SIGKILL", "promote"),
        ("flow run", "SIGKILL", "rollback"),
    )
)


def parse_cells(text: str) -> tuple[Cell, ...]:
    """`TARGET:SIGNAL:PHASE,...`; `*` stands for every one. ValueError names what is unknown."""
    found: list[Cell] = []
    for part in text.split(","):
        words = part.strip().split(":")
        if len(words) != 3:
            raise ValueError(f"{part!r} is no TARGET:SIGNAL:PHASE")
        choices = [_chosen(word, known) for word, known in zip(words, (TARGETS, SIGNALS, PHASES), strict=True)]
        found += [Cell(*each) for each in product(*choices)]
    return tuple(dict.fromkeys(found))


def _chosen(word: str, known: Sequence[str]) -> Sequence[str]:
    if word == "*":
        return known
    if word not in known:
        raise ValueError(f"{word!r} is none of {', '.join(known)}")
    return (word,)


def moment_seconds(cell: Cell, seed: str) -> float:
    """How long after the beginning of its phase this kill comes; the same for the same seed."""
    return random.Random(f"{seed}:{cell}").uniform(0.0, PHASE_SECONDS[cell.phase])


def path_to(phase: str) -> tuple[str, ...]:
    """The phases a release goes through, when it is meant to reach this one: a rollback comes out of the canary."""
    return ("gates", "shadow", "canary", "rollback") if phase == "rollback" else ("gates", "shadow", "canary", "promote", "bake")


def _survived_after(cell: Cell) -> float:
    """Seconds until the stack is whole again, when a release survives this kill; infinity when it does not."""
    seconds, phases = SURVIVED.get((cell.target, cell.signal), (math.inf, ()))
    return seconds if cell.phase in phases else math.inf


@dataclass(slots=True)
class Schedule:
    """Which cell is due: those with the fewest kills first, in an order of the seed. Counts what was done and what was missed."""

    cells: Sequence[Cell]
    kill_count: int
    seed: int
    done: Counter[Cell] = field(default_factory=Counter)
    missed: Counter[Cell] = field(default_factory=Counter)
    given_up: set[Cell] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        """Enough kills were done, or nothing is left that can be hit."""
        return self.done.total() >= self.kill_count or not self._open(self.cells)

    def next_goal(self) -> Cell:
        """The cell that the next release is for."""
        return self._neediest(self._open(self.cells))

    def on_the_way(self, phase: str, goal: Cell) -> Cell | None:
        """A kill in a phase before the goal's that the release survives, with the stack whole again in time; None when none is due."""
        left_seconds = BEGINS_SECONDS[goal.phase] - BEGINS_SECONDS[phase] - PHASE_SECONDS[phase] / 2
        fitting = [cell for cell in self._due(phase) if cell != goal and _survived_after(cell) <= left_seconds]
        return self._neediest(fitting) if fitting else None

    def afterwards(self, phase: str) -> Cell | None:
        """A kill in a phase after the goal's, of a release that survived; None when none is due."""
        due = self._due(phase)
        return self._neediest(due) if due else None

    def note_hit(self, cell: Cell) -> None:
        """This cell was hit once more."""
        self.done[cell] += 1
        self.missed[cell] = 0

    def note_miss(self, cell: Cell) -> None:
        """This cell was missed; after too many in a row it is left out."""
        self.missed[cell] += 1
        if self.missed[cell] >= GIVE_UP_AFTER:
            self.given_up.add(cell)

    def _open(self, cells: Iterable[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell not in self.given_up]

    def _due(self, phase: str) -> list[Cell]:
        share = -(-self.kill_count // len(self.cells))  # rounded up: how many each cell gets in the end
        return [cell for cell in self._open(self.cells) if cell.phase == phase and self.done[cell] < share]

    def _neediest(self, cells: Sequence[Cell]) -> Cell:
        """The fewest kills, then the fewest misses; among equals one that a release does not survive, since the others ride along."""
        order = {cell: random.Random(f"{self.seed}:{cell}").random() for cell in cells}
        return min(cells, key=lambda c: (self.done[c], self.missed[c], _survived_after(c) < math.inf, order[c]))
