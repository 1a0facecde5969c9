"""
Part of `benchmarks.gates`: healthy candidates through every gate that asks one. A gate that rejects them is turned off by its users.

Nothing is known to be wrong with any of them: they are the demonstration's model trained again (`gates_retrained`). Incumbent and candidate
answer from real model servers, the policy is profiles/demo.yaml as it stands.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gates_part import Goal, Part
from benchmarks.gates_retrained import NotMade, Retrained, healthy_candidates
from benchmarks.gates_world import World, open_world
from interlock.control.gates.run import (
    run_artifact,
    run_disagreement,
    run_drift,
    run_evaluation,
    run_latency,
    run_memory,
    run_parity,
)
from interlock.control.records import verdict_values
from interlock.control.session import ReleaseSession
from interlock.errors import ReleaseError
from interlock.model.verdict import Outcome, Verdict

GATES: dict[str, Callable[[ReleaseSession], Verdict]] = {
    "artifact": run_artifact,
    "evaluation": run_evaluation,
    "parity": run_parity,
    "latency": run_latency,
    "memory": run_memory,
    "disagreement": run_disagreement,
    "drift": run_drift,
}
CANDIDATE_COUNT, QUICK_COUNT, MOST_REJECTED = 30, 4, 1
NOT_ASKED = "-"


@dataclass(frozen=True, slots=True)
class Judged:
    """
    What became of one candidate.

    trouble: why it was not made or not served, if so. seconds: of its server's start and the judging. load: of the machine afterwards,
    which may explain slow answers.
    """

    kind: str
    name: str
    verdicts: tuple[Verdict, ...]
    seconds: float = 0.0
    trouble: str = ""
    is_made: bool = True
    load: float = 0.0

    @property
    def worst(self) -> Outcome | None:
        """Its release ends with the worst of its verdicts; without all of them it does not get on. None: there was no candidate."""
        if not self.is_made:
            return None
        missing = [Outcome.INCONCLUSIVE] if len(self.verdicts) < len(GATES) else []
        return max([*(verdict.outcome for verdict in self.verdicts), *missing])

    @property
    def reason(self) -> str:
        """Why it is rejected: what it lacks, then the reasons of its worst gates."""
        worst = [verdict.reason for verdict in self.verdicts if verdict.outcome is self.worst is not Outcome.PASS]
        return "; ".join(filter(None, [self.trouble, *worst]))


def table(quick: bool) -> Part:
    """All healthy candidates, or one of each kind, judged one after the other beside one incumbent."""
    with open_world() as world:
        candidates = healthy_candidates(world.data, quick=quick)
        judged = []
        for number, candidate in enumerate(candidates, start=1):
            one = judge(world, candidate)
            judged.append(one)
            print(f"healthy {number}/{len(candidates)}  {' | '.join(_row(one))}", flush=True)
    return summary(judged, wanted_count=QUICK_COUNT if quick else CANDIDATE_COUNT)


def judge(world: World, candidate: Retrained) -> Judged:
    """Make the candidate, serve it, ask every gate."""
    directory = world.root / "retrained"
    try:
        candidate.save(directory)
    except NotMade as error:
        return Judged(candidate.kind, candidate.name, (), trouble=str(error), is_made=False)
    version, started = world.keep(directory), time.monotonic()
    limit_mib = world.loaded.profile.limits.resident_mib
    try:
        with world.serving.plane(world.incumbent, version, memory_limit_mib=limit_mib) as (plane, start_seconds):
            # The page that Evidently draws is for people and decides nothing.
            session = world.session(version, plane, draw_drift=lambda _: lambda *_: None)
            session.record("loaded", candidate=version.label, digest=version.digest, start_seconds=round(start_seconds, 2))
            verdicts = tuple(run(session) for run in GATES.values())
    except ReleaseError as error:
        return Judged(candidate.kind, candidate.name, (), time.monotonic() - started, str(error))
    return Judged(candidate.kind, candidate.name, verdicts, time.monotonic() - started, load=os.getloadavg()[0])


def summary(judged: Sequence[Judged], *, wanted_count: int) -> Part:
    """The table, its goals, and every verdict with its measurements for the JSON file."""
    made = [one for one in judged if one.is_made]
    counts = Counter(one.worst for one in made)
    failed, undecided = counts[Outcome.FAIL], counts[Outcome.INCONCLUSIVE]
    is_few = failed + undecided <= MOST_REJECTED and bool(made)
    rejected = f"{failed + undecided} of {len(made)} ({failed} FAIL, {undecided} INCONCLUSIVE)"
    return Part(
        title="Healthy candidates through every gate, profile demo",
        columns=("candidate", *GATES, "seconds", "load", "why not"),
        rows=tuple(_row(one) for one in judged),
        goals=(
            Goal("healthy candidates judged", str(len(made)), f">= {wanted_count}", len(made) >= wanted_count),
            Goal("healthy candidates rejected", rejected, f"<= {MOST_REJECTED}", is_few),
        ),
        values={
            "rejected_count": failed + undecided,
            "failed_count": failed,
            "inconclusive_count": undecided,
            "median_seconds": round(statistics.median(one.seconds for one in made), 1) if made else None,
            "candidates": [_values(one) for one in judged],
        },
    )


def _row(one: Judged) -> tuple[str, ...]:
    outcomes = {verdict.gate: verdict.outcome.name for verdict in one.verdicts}
    return (
        f"{one.kind}: {one.name}",
        *(outcomes.get(gate, NOT_ASKED) for gate in GATES),
        f"{one.seconds:.0f}",
        f"{one.load:.1f}",
        one.reason,
    )


def _values(one: Judged) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "outcome": one.worst.name if one.worst is not None else None,
        "trouble": one.trouble or None,
        "seconds": round(one.seconds, 1),
        "load": round(one.load, 1),
        "verdicts": [verdict_values(verdict) for verdict in one.verdicts],
    }
