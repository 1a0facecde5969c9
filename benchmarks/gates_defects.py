"""Planted defects, each shown to the gate that is meant for it; and the good candidate, shown to every gate in the same way."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

from benchmarks.gates_defect import GATES, Defect, Seen, judged_by
from benchmarks.gates_defects_offline import OFFLINE
from benchmarks.gates_defects_release import RELEASE, ready, with_users
from benchmarks.gates_defects_served import SERVED, judge_served
from benchmarks.gates_part import Goal, Part
from benchmarks.gates_world import World, open_world
from interlock.model.redaction import one_line

DEFECTS: tuple[Defect, ...] = (*OFFLINE, *SERVED, *RELEASE)
SERVED_GATES = ("parity", "latency", "memory", "disagreement")
LEAST_DEFECT_COUNT = 60
TOLD_CHARACTERS = 150


@dataclass(frozen=True)
class Shown:
    """A defect, and what its gate said."""

    defect: Defect
    seen: Seen | None
    error: str
    elapsed_seconds: float

    @property
    def is_caught(self) -> bool:
        """Whether the gate saw it."""
        return self.seen is not None and self.defect.is_caught(self.seen)

    @property
    def got(self) -> str:
        """The gate's answer in a word."""
        return self.seen.answer if self.seen else "ERROR"

    @property
    def reason(self) -> str:
        """All that was said."""
        return self.seen.reason if self.seen else self.error


def controls() -> tuple[Defect, ...]:
    """The good candidate before every gate: a gate that refuses everything has caught nothing."""

    def control(gate: str) -> Defect:
        if gate in SERVED_GATES:
            return Defect("nothing: the good candidate", gate, lambda world: judge_served(world, gate, world.good), "", "PASS")
        if gate == "readiness":
            return Defect("nothing: the good candidate", gate, ready, "", "PASS")
        if gate == "traffic":
            return Defect("nothing: 60 requests a second", gate, with_users(216_000), "", "PASS")
        if gate == "liveness":
            return Defect("nothing: every gate is alive", gate, _alive, "", "PASS")
        return Defect("nothing: the good candidate", gate, lambda world: judged_by(gate, world.session(world.good)), "", "PASS")

    return tuple(map(control, GATES))


def table(quick: bool) -> Part:
    """Every defect, or some of each gate; then the controls."""
    chosen = [defect for defect in DEFECTS if defect.is_quick or not quick]
    with open_world() as world:
        planted, beside = show(chosen, world), show(controls(), world)
    return part_of(planted, beside, least_count=0 if quick else LEAST_DEFECT_COUNT)


def show(defects: Iterable[Defect], world: World) -> list[Shown]:
    """One after the other; each is told on standard error as it comes."""
    console, found = Console(stderr=True, highlight=False, markup=False), list[Shown]()
    for defect in defects:
        one = show_one(defect, world)
        told = f"{'' if one.is_caught else 'MISSED '}{defect.gate}: {defect.name}: {one.got} ({one.elapsed_seconds:.1f} s)"
        console.print(told, soft_wrap=True)
        found.append(one)
    return found


def show_one(defect: Defect, world: World) -> Shown:
    """Plant it and ask. Whatever goes wrong with that is a miss."""
    started = time.monotonic()
    try:
        seen, error = defect.show(world), ""
    except Exception as raised:  # noqa: BLE001 - the others are to be seen all the same
        seen, error = None, f"{type(raised).__name__}: {one_line(raised)}"
    return Shown(defect, seen, error, time.monotonic() - started)


def part_of(planted: list[Shown], beside: list[Shown], *, least_count: int) -> Part:
    """The table, its goals and its figures."""
    return Part(
        title=f"{len(planted)} planted defects, each before the gate that is meant for it",
        columns=("defect", "gate", "wanted", "got", "seconds", "because"),
        rows=tuple(_row(one) for one in [*planted, *beside]),
        goals=goals_of(planted, beside, least_count=least_count),
        values={"planted": [_values(one) for one in planted], "controls": [_values(one) for one in beside]},
    )


def goals_of(planted: list[Shown], beside: list[Shown], *, least_count: int) -> tuple[Goal, ...]:
    """All are seen, there are enough of them, and the gates do not refuse whatever comes."""
    missed, refused = [one for one in planted if not one.is_caught], [one for one in beside if not one.is_caught]
    unshown = sorted(set(GATES) - {one.defect.gate for one in planted})
    return (
        Goal("planted defects", str(len(planted)), f">= {least_count}", len(planted) >= least_count and bool(planted)),
        Goal("planted defects missed", _told(missed), "0", not missed),
        Goal("gates without a planted defect", ", ".join(unshown) or "0", "0", not unshown),
        Goal("gates that refuse the good candidate", _told(refused), "0", not refused),
    )


def _alive(world: World) -> Seen:
    with world.serving.plane(world.incumbent) as (plane, _):
        return judged_by("liveness", world.session(world.good, plane))


def _told(shown: list[Shown]) -> str:
    return f"{len(shown)}: " + "; ".join(f"{one.defect.gate}, {one.defect.name}" for one in shown) if shown else "0"


def _row(one: Shown) -> tuple[str, ...]:
    missed = "" if one.is_caught else "MISSED "
    return (
        one.defect.name,
        one.defect.gate,
        one.defect.wanted,
        f"{missed}{one.got}",
        f"{one.elapsed_seconds:.1f}",
        decisive(one.reason, one.defect.because),
    )


def decisive(reason: str, because: str) -> str:
    """The part of the reason that tells what was seen; its beginning where nothing of the kind stands there."""
    parts = reason.split("; ")
    part = next((part for part in parts if because and because in part), parts[0])
    start = max(0, part.find(because) - TOLD_CHARACTERS // 2) if because and len(part) > TOLD_CHARACTERS else 0
    return part[start : start + TOLD_CHARACTERS].strip()


def _values(one: Shown) -> dict[str, object]:
    defect = one.defect
    known = {"defect": defect.name, "gate": defect.gate, "wanted": defect.wanted, "because": defect.because}
    return {**known, "got": one.got, "is_caught": one.is_caught, "seconds": round(one.elapsed_seconds, 2), "reason": one.reason}
