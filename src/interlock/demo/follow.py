"""Follows one release through its evidence, switches its fault on when its canary is under way, and times what happens."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interlock.demo.models import set_fault
from interlock.demo.scenarios import Scenario
from interlock.demo.traffic import LiveTraffic
from interlock.errors import ServiceUnavailable

POLL_SECONDS = 0.05
RELEASE_LIMIT_SECONDS = 420.0  # gates 60 s, canary 160 s, and room for a machine that is busy with something else

Record = Mapping[str, Any]
ENDINGS = {"decision", "failed"}


@dataclass(slots=True)
class Followed:
    """Monotonic moments of one release, and the records it wrote."""

    records: list[Record] = field(default_factory=list)
    canary_at: float | None = None
    fault_at: float | None = None
    fault_requests: int = 0
    halted_at: float | None = None
    halt_requests: int = 0
    halt: Record | None = None

    @property
    def ending(self) -> Record | None:
        """The record of the decision."""
        return next((record for record in self.records if record["kind"] in ENDINGS), None)


class Follower:
    """Reads the evidence of the release of one candidate as it grows."""

    def __init__(self, *, evidence: Path, conditions: Path, traffic: LiveTraffic, on_record: Callable[[Record], None]) -> None:
        self._evidence = evidence
        self._conditions = conditions
        self._traffic = traffic
        self._on_record = on_record

    def follow(self, scenario: Scenario, candidate: str) -> Followed:
        """
        Wait for the release of `candidate` and return when it has ended.

        Raises:
            ServiceUnavailable: it did not end within 420 s.
        """
        followed, deadline = Followed(), time.monotonic() + RELEASE_LIMIT_SECONDS
        path: Path | None = None
        while followed.ending is None:
            path = path or self._find(candidate)
            if path:
                self._read(path, followed)
            self._switch_fault_on(scenario, followed)
            if time.monotonic() > deadline:
                last = followed.records[-1]["kind"] if followed.records else "nothing; see logs/prefect-worker.log"
                raise ServiceUnavailable(
                    f"the release of {candidate} has not ended after {RELEASE_LIMIT_SECONDS:g} s; it recorded last: {last}"
                )
            time.sleep(POLL_SECONDS)
        return followed

    def _find(self, candidate: str) -> Path | None:
        for path in self._evidence.glob("*.jsonl"):
            with path.open(encoding="utf-8") as file:
                first = file.readline()
            if first.endswith("\n") and json.loads(first).get("candidate") == candidate:
                return path
        return None

    def _read(self, path: Path, followed: Followed) -> None:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        for line in lines[len(followed.records) :]:
            record = json.loads(line)
            followed.records.append(record)
            self._note(record, followed)
            self._on_record(record)

    def _note(self, record: Record, followed: Followed) -> None:
        if record["kind"] == "phase" and record["weight_bps"] > 0 and followed.canary_at is None:
            followed.canary_at = time.monotonic()
        if record.get("outcome") == "HALT" and followed.halt is None:
            followed.halt, followed.halted_at = record, time.monotonic()
            followed.halt_requests = self._traffic.snapshot().total_count

    def _switch_fault_on(self, scenario: Scenario, followed: Followed) -> None:
        is_due = followed.canary_at is not None and time.monotonic() >= followed.canary_at + scenario.fault_after_seconds
        if scenario.fault and is_due and followed.fault_at is None and followed.halt is None:
            followed.fault_at = set_fault(self._conditions, scenario.key, scenario.fault)
            followed.fault_requests = self._traffic.snapshot().total_count
            self._on_record({"kind": "fault", "fault": scenario.fault})
