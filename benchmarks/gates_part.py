"""What each part of the gates' benchmark hands over: a table, the goals it met or missed, and its figures for the JSON file."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """One promise of the benchmark: what was found, what was wanted, and whether that was met."""

    name: str
    value: str
    wanted: str
    is_met: bool


@dataclass(frozen=True)
class Part:
    """One table of the benchmark. `values` goes into the JSON file under the part's name; the cells of `rows` are printed as they are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    goals: tuple[Goal, ...]
    values: dict[str, Any] = field(default_factory=dict)
