"""One planted defect: the gate that is meant for it, how it is planted, and what the gate must say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.gates_world import World
from interlock.control.gates import run
from interlock.control.gates.run_liveness import run_liveness
from interlock.control.session import ReleaseSession
from interlock.errors import ArtifactError, ServiceRefused, Tampered
from interlock.model.verdict import Verdict

Answer = Literal["PASS", "INCONCLUSIVE", "FAIL", "REFUSED"]

GATES: dict[str, Callable[[ReleaseSession], Verdict]] = {
    "artifact": run.run_artifact,
    "readiness": run.run_readiness,
    "traffic": run.run_traffic,
    "evaluation": run.run_evaluation,
    "parity": run.run_parity,
    "latency": run.run_latency,
    "memory": run.run_memory,
    "disagreement": run.run_disagreement,
    "drift": run.run_drift,
    "liveness": run_liveness,
}


@dataclass(frozen=True)
class Seen:
    """What a gate said. REFUSED: it was no gate, but the plane or the release that would not go on."""

    answer: str
    reason: str


@dataclass(frozen=True)
class Defect:
    """
    because: what must stand in the reason: a gate that refuses a candidate for something else has not seen its defect.

    wanted: FAIL where the candidate is at fault, INCONCLUSIVE where what would prove it good is missing.
    """

    name: str
    gate: str
    show: Callable[[World], Seen]
    because: str
    wanted: Answer = "FAIL"
    is_quick: bool = False

    def is_caught(self, seen: Seen) -> bool:
        """Whether the gate said what it must, and for this reason."""
        return seen.answer == self.wanted and self.because in seen.reason


def judged_by(gate: str, session: ReleaseSession) -> Seen:
    """The gate, called as a release calls it."""
    verdict = GATES[gate](session)
    return Seen(verdict.outcome.name, verdict.reason)


def refusal_of(attempt: Callable[[], object]) -> Seen:
    """What became of something that must not succeed."""
    try:
        attempt()
    except (ArtifactError, ServiceRefused, Tampered) as error:
        return Seen("REFUSED", str(error))
    return Seen("PASS", "nobody minded")
