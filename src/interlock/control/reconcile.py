"""
What became of releases whose process cannot say so any more: traffic, registry, evidence and Prefect are brought to one ending.

Everything is read before it is written, the ending is recorded last, and what a newer release has claimed is left alone: cut anywhere and
run again, it ends the same.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from interlock.control.ending import DECISION, FAILED, record_ending
from interlock.control.intake import RELEASE_DEPLOYMENT, tag_ending
from interlock.control.releases import ReleaseIndex
from interlock.control.resume import ARCHIVED, Opened, Plan, ProcessMark, plan_resume
from interlock.control.rollback import restore_registry, restore_traffic
from interlock.errors import ConcurrencyError, ReleaseError
from interlock.model.plane import PlaneState
from interlock.model.release import ModelVersion
from interlock.ports import Clock, EvidenceStore, FlowRun, Registry, Runs, Traffic

CRASH_GRACE_SECONDS = 10.0  # Prefect's own runner says Crashed about 4 s after the process died; twice that on a busy machine
START_GRACE_SECONDS = 120.0  # a run without a process may be starting one
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciler:
    """
    One look after the other at the releases that have no ending.

    `is_alive` is None when it cannot be known (another machine); `is_running` asks for a process of a flow run, of which only the number
    is known. `write_report` is asked for the report of what was ended, last of all; when it fails, only the report is missing.
    """

    traffic: Traffic
    registry: Registry
    evidence: EvidenceStore
    clock: Clock
    runs: Runs
    index: ReleaseIndex
    is_alive: Callable[[ProcessMark], bool | None]
    is_running: Callable[[int], bool]
    write_report: Callable[[str], object] = lambda release_id: None
    _lost: set[str] = field(default_factory=set)
    _gone_since: dict[str, float] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """After a start: whatever was under way has lost the plane, but for one that has begun since; and the registry says who serves."""
        under_way = {opened.release_id for opened in self.index.unfinished()}
        self._lost |= under_way - {self.traffic.observe().release_id}
        try:
            self.poll()
        finally:
            self._follow_traffic()

    def lose(self, release_id: str) -> None:
        """The lease of this release ran out: it can do nothing any more, and is ended now."""
        self._lost.add(release_id)
        self.poll()

    def poll(self) -> None:
        """
        End what has to be ended, and free what dead runs hold.

        Raises:
            ReleaseError: the first that kept something from being ended; the next call tries again.
        """
        with self._turn:
            troubles = [error for opened in self.index.unfinished() if (error := self._tried(opened)) is not None]
            try:
                self._free_runs()
            except ReleaseError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def _tried(self, opened: Opened) -> ReleaseError | None:
        try:
            self._look_at(opened)
        except ReleaseError as error:
            return error
        return None

    def _look_at(self, opened: Opened) -> None:
        is_alive, has_lost_plane = self._lives(opened), opened.release_id in self._lost
        if is_alive is not False and not has_lost_plane:
            return
        records = self.index.read(opened.release_id)
        if self.index.ending(opened.release_id) is None:
            plane = self.traffic.observe()
            plan = plan_resume(opened, records, plane, is_alive=is_alive, has_lost_plane=has_lost_plane)
            if plan is not None:
                self._carry_out(plan, opened, plane)
                self.index.read(opened.release_id)
        self._lost.discard(opened.release_id)

    def _lives(self, opened: Opened) -> bool | None:
        return self.is_alive(opened.process) if opened.process else None

    def _carry_out(self, plan: Plan, opened: Opened, plane: PlaneState) -> None:
        """Traffic, registry, then the record, which says that the others are done."""
        reason = plan.reason
        try:
            if plan.restores_traffic:
                plane = restore_traffic(self.traffic, self.clock, reason=reason, token=opened.token)
            if plane.incumbent is not None:
                self._restore_registry(plane.incumbent.version, opened.candidate, token=opened.token, candidate_stage=plan.candidate_stage)
        except ConcurrencyError as error:
            reason = f"{reason}; what a newer release holds was left alone ({error})"
        name = plan.decision.value if plan.decision else "Failed"
        if plan.decision or plan.candidate_stage == ARCHIVED:
            self._tag(opened, name, reason)
        payload = {"reason": reason, "ended_by": "the plane"}
        if plan.decision:
            record_ending(self.evidence, opened.release_id, DECISION, {"decision": plan.decision.value, **payload})
        else:
            record_ending(self.evidence, opened.release_id, FAILED, payload)
        log.warning("release %s was ended as %s: %s", opened.release_id, name, reason)
        self._report(opened.release_id)

    def _restore_registry(self, incumbent: ModelVersion, candidate: ModelVersion | None, *, token: int, candidate_stage: str) -> None:
        if self.registry.read_champion(incumbent.name) is not None:  # a model that nobody champions is not ours to change
            restore_registry(
                self.registry, self.clock, incumbent=incumbent, candidate=candidate, token=token, candidate_stage=candidate_stage
            )

    def _tag(self, opened: Opened, name: str, reason: str) -> None:
        candidate = opened.candidate
        with contextlib.suppress(ReleaseError):  # for people; the ending stands without it
            self.registry.set_tags(candidate.name, candidate.version, tag_ending(name, reason, opened.release_id), token=opened.token)

    def _follow_traffic(self) -> None:
        """Champion and Production are who serves; another version that calls itself champion is archived."""
        state = self.traffic.observe()
        if state.incumbent is None or state.release_id is not None:
            return
        incumbent = state.incumbent.version
        champion = self.registry.read_champion(incumbent.name)
        usurper = ModelVersion(incumbent.name, champion, "unknown") if champion not in (None, incumbent.version) else None
        self._restore_registry(incumbent, usurper, token=state.token, candidate_stage=ARCHIVED)

    def _report(self, release_id: str) -> None:
        try:
            self.write_report(release_id)
        except Exception as error:  # noqa: BLE001 - evidence and registry are right, and stand without their picture
            log.warning("the report of %s could not be written: %s", release_id, error)

    def _free_runs(self) -> None:
        """Say of every run whose process is gone how it ended: nobody else does, and it would hold the one place for ever."""
        now, gone = self.clock.monotonic(), set()
        for run in self.runs.read_under_way(RELEASE_DEPLOYMENT):
            opened = self.index.of_run(run.run_id)
            grace_seconds = self._grace_seconds(run, opened)
            if grace_seconds is None:
                continue
            gone.add(run.run_id)
            if now - self._gone_since.setdefault(run.run_id, now) >= grace_seconds:
                self._end_run(run, opened)
        self._gone_since = {run_id: since for run_id, since in self._gone_since.items() if run_id in gone}

    def _grace_seconds(self, run: FlowRun, opened: Opened | None) -> float | None:
        """How long to wait until this run is called dead; None while its process lives, or cannot be seen from here."""
        if opened is not None and opened.process is not None:
            return CRASH_GRACE_SECONDS if self.is_alive(opened.process) is False else None
        if run.pid is not None:
            return None if self.is_running(run.pid) else CRASH_GRACE_SECONDS
        return START_GRACE_SECONDS if run.state_type == "PENDING" else None

    def _end_run(self, run: FlowRun, opened: Opened | None) -> None:
        ending = self.index.ending(opened.release_id) if opened else None
        if ending is not None and ending["kind"] == DECISION:
            self.runs.end(run.run_id, state_type="COMPLETED", state_name=str(ending["decision"]), message=str(ending["reason"]))
            return
        reason = str(ending["reason"]) if ending else "its process is gone, and it has recorded nothing"
        self.runs.end(run.run_id, state_type="CRASHED", state_name="Crashed", message=reason)
