"""One release under way: asked for, followed through its evidence and Envoy's split, and known to be in a phase."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.killmatrix_phases import Turns, endings, phase_at
from benchmarks.killmatrix_stack import PROFILE_NAME, Rig
from interlock.adapters.prefect_api import PrefectApi
from interlock.demo.driver import MODEL_NAME
from interlock.demo.models import set_fault
from interlock.errors import ReleaseError, ServiceUnavailable
from interlock.model.plane import ALL_TRAFFIC_BPS

SUBMIT_SECONDS = 60.0
INTAKE_SECONDS = 60.0  # Prefect hands a run out within seconds; the start of its process takes the rest
LONG_POLL_SECONDS, SHORT_POLL_SECONDS = 0.02, 0.003
ENDED_STATES = {"Promoted", "Held", "Rejected", "RolledBack", "Failed", "Crashed", "Cancelled", "TimedOut"}


@dataclass(slots=True)
class Followed:
    """One release and what has been seen of it. `is_to_halt`: its candidate gets a fault as soon as it has live traffic."""

    rig: Rig
    run_id: str
    incumbent: str
    candidate: str
    is_to_halt: bool
    path: Path
    started_at: float
    records: list[dict[str, Any]] = field(default_factory=list)
    turns: Turns = field(default_factory=Turns)
    has_fault: bool = False
    had_weight: bool = False
    weight_bps: int | None = 0

    @property
    def release_id(self) -> str:
        """As its evidence names it."""
        return self.path.stem

    @property
    def is_ended(self) -> bool:
        """Whether the evidence says how it ended."""
        return bool(endings(self.records))

    def look(self) -> str:
        """Read on, look at the split, switch the fault on when it is due; returns the phase now."""
        self.read()
        phase = phase_at(self.records, time.time(), self.turns)
        if phase in ("canary", "promote", "bake", "rollback"):
            self._look_at_split(phase)
        if phase == "canary" and self.is_to_halt and self.had_weight and not self.has_fault:
            set_fault(self.rig.conditions, self.rig.fault_keys[self.candidate], "skew")
            self.has_fault = True
        return phase_at(self.records, time.time(), self.turns)

    def read(self) -> None:
        """The records that came since the last time."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        self.records += [json.loads(line) for line in lines[len(self.records) :]]

    def phase_at(self, at: float) -> str:
        """The phase at a moment since the epoch, by everything that is known by now."""
        self.read()
        return phase_at(self.records, at, self.turns)

    def poll_seconds(self) -> float:
        """How soon to look again: a promotion is over in some ten milliseconds."""
        is_near = not self.is_to_halt and any(record["kind"] == "final look" for record in self.records)
        return SHORT_POLL_SECONDS if is_near else LONG_POLL_SECONDS

    def remove_fault(self) -> None:
        """The candidate is good again. Idempotent."""
        if self.has_fault:
            set_fault(self.rig.conditions, self.rig.fault_keys[self.candidate], None)

    def run_state(self) -> str:
        """What Prefect says of the run."""
        try:
            return PrefectApi(self.rig.addresses.prefect_url).read_state(self.run_id)[0]
        except ReleaseError:
            return "unknown"

    def _look_at_split(self, phase: str) -> None:
        self.weight_bps = weight_bps = self.rig.watch.read_weight()
        now = time.time()
        if weight_bps == ALL_TRAFFIC_BPS and now < self.turns.all_traffic_at:
            self.turns = replace(self.turns, all_traffic_at=now)
        elif weight_bps == 0 and self.had_weight and phase == "canary" and now < self.turns.halted_at and self.has_fault:
            self.turns = replace(self.turns, halted_at=now)
        self.had_weight = self.had_weight or bool(weight_bps)


def open_release(rig: Rig, *, is_to_halt: bool) -> Followed:
    """
    Ask Prefect for a release of the model that does not serve, as a new version; returns when its evidence has begun.

    Raises:
        ServiceUnavailable: Prefect took no run, or none began, in time.
    """
    services = rig.demo.services
    serving = services.traffic.observe().incumbent
    assert serving is not None, "the rig has adopted an incumbent"
    incumbent = serving.version.version
    candidate = rig.register_other(incumbent)
    known, started_at = _evidence(rig), time.monotonic()
    run_id = _submit(rig, candidate)
    deadline = time.monotonic() + INTAKE_SECONDS
    while not (found := _evidence(rig) - known):
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"run {run_id} has not begun after {INTAKE_SECONDS:g} s: see logs/prefect-worker.log")
        time.sleep(LONG_POLL_SECONDS)
    return Followed(rig, run_id, incumbent, candidate, is_to_halt, found.pop(), started_at)


def _evidence(rig: Rig) -> set[Path]:
    return set((rig.state / "evidence").glob(f"{MODEL_NAME}-*.jsonl"))


def _submit(rig: Rig, version: str) -> str:
    """Again while Prefect's SQLite is busy, as the intake does: the key makes it one run."""
    key, deadline = f"killmatrix:{time.time_ns()}", time.monotonic() + SUBMIT_SECONDS
    parameters = {"model_name": MODEL_NAME, "version": version, "profile_name": PROFILE_NAME}
    while True:
        try:
            return PrefectApi(rig.addresses.prefect_url).submit("release/release", parameters, idempotency_key=key)
        except ReleaseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
