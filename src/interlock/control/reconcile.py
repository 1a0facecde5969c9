"""
What became of releases whose process cannot say so any more: traffic, registry, evidence and Prefect are brought to one ending.

Everything is read before it is written, the ending is recorded last, and what a newer release has claimed is left alone: cut anywhere and
run again, it ends the same.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from interlock.control.closing import close_release
from interlock.control.ending import DECISION
from interlock.control.intake import RELEASE_DEPLOYMENT
from interlock.control.releases import ReleaseIndex
from interlock.control.resume import ARCHIVED, PRODUCTION, Opened, Plan, ProcessMark, plan_resume
from interlock.control.rollback import restore_registry, restore_traffic
from interlock.errors import EvidenceError, ReleaseError
from interlock.model.plane import PlaneState
from interlock.model.release import ModelVersion
from interlock.ports import Clock, EvidenceStore, FlowRun, Registry, Runs, Traffic

CRASH_GRACE_SECONDS = 10.0  # Prefect's own runner says Crashed about 4 s after the process died; twice that on a busy machine
START_GRACE_SECONDS = 120.0  # a run without a process may be starting one
UNSEEN_GRACE_SECONDS = 180.0  # a living release that has lost the plane ends within 140 s (rollback's budgets), and one begins within 130 s
FOLLOW_SECONDS = 10.0  # three requests to MLflow; nobody's traffic depends on it
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciler:
    """
    One look after the other at the releases that have no ending.

    `is_alive` is None when it cannot be known (another machine); `is_running` asks for a process of a flow run, of which only the number
    is known, None likewise. `write_report` is asked for the report of what was ended, last of all; when it fails, it is missing, no more.
    """

    traffic: Traffic
    registry: Registry
    evidence: EvidenceStore
    clock: Clock
    runs: Runs
    index: ReleaseIndex
    is_alive: Callable[[ProcessMark], bool | None]
    is_running: Callable[[str, int], bool | None]
    write_report: Callable[[str], object] = lambda release_id: None
    _lost: set[str] = field(default_factory=set)
    _gone_since: dict[str, float] = field(default_factory=dict)
    _without_plane_since: dict[str, float] = field(default_factory=dict)
    _is_starting: bool = False
    _followed_at: float | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """
        After a start: whatever was under way has lost the plane, but for one that has begun since; and the registry says who serves.

        What did not work of it is tried again by every `poll`.
        """
        self._is_starting, self._followed_at = True, None
        self.poll()

    def lose(self, release_id: str) -> None:
        """The lease of this release ran out: it can do nothing any more, and is ended now."""
        self._lost.add(release_id)
        self.poll()

    def poll(self) -> None:
        """
        End what has to be ended, free what dead runs hold, and keep the registry saying who serves.

        Raises:
            ReleaseError: the first that kept something from being done; the next call tries again.
        """
        with self._turn:
            unfinished = self.index.unfinished()
            looks = [partial(self._look_at, opened) for opened in unfinished]
            steps: list[Callable[[], None]] = [partial(self._notice_start, unfinished), *looks, self._free_runs, self._follow_traffic]
            troubles = [error for step in steps if (error := _tried(step)) is not None]
        if troubles:
            raise troubles[0]

    def _notice_start(self, unfinished: Sequence[Opened]) -> None:
        if self._is_starting:
            self._lost |= {opened.release_id for opened in unfinished} - {self.traffic.observe().release_id or ""}
            self._is_starting = False

    def _look_at(self, opened: Opened) -> None:
        is_alive = self.is_alive(opened.process) if opened.process else None
        has_lost_plane = opened.release_id in self._lost or (is_alive is None and self._is_long_without_plane(opened))
        if is_alive is not False and not has_lost_plane:
            return
        records = self.index.read(opened.release_id)
        if not records:  # passed over: what it has decided is not known
            return
        if self.index.ending(opened.release_id) is None:
            plane = self.traffic.observe()
            plan = plan_resume(opened, records, plane, is_alive=is_alive, has_lost_plane=has_lost_plane)
            if plan is not None:
                self._carry_out(plan, opened, plane)
                self.index.read(opened.release_id)
        self._lost.discard(opened.release_id)
        self._without_plane_since.pop(opened.release_id, None)

    def _is_long_without_plane(self, opened: Opened) -> bool:
        """Whether a release whose process cannot be seen has gone without the plane for longer than a living one needs to end."""
        if self.traffic.observe().release_id == opened.release_id:
            self._without_plane_since.pop(opened.release_id, None)
            return False
        now = self.clock.monotonic()
        return now - self._without_plane_since.setdefault(opened.release_id, now) >= UNSEEN_GRACE_SECONDS

    def _carry_out(self, plan: Plan, opened: Opened, plane: PlaneState) -> None:
        """Traffic, registry, then the record, which says that the others are done."""

        def put_back() -> None:
            state = restore_traffic(self.traffic, self.clock, reason=plan.reason, token=opened.token) if plan.restores_traffic else plane
            if state.incumbent is not None:
                self._restore_registry(state.incumbent.version, opened.candidate, token=opened.token, candidate_stage=plan.candidate_stage)

        ending = close_release(self.registry, self.evidence, plan, opened=opened, put_back=put_back)
        log.warning("release %s was ended as %s: %s", opened.release_id, ending.get("decision", "Failed"), ending["reason"])
        self._report(opened.release_id)

    def _restore_registry(self, incumbent: ModelVersion, candidate: ModelVersion | None, *, token: int, candidate_stage: str) -> None:
        if self.registry.read_champion(incumbent.name) is not None:  # a model that nobody champions is not ours to change
            restore_registry(
                self.registry, self.clock, incumbent=incumbent, candidate=candidate, token=token, candidate_stage=candidate_stage
            )

    def _follow_traffic(self) -> None:
        """While no release is under way: champion and Production are who serves, whatever was cut, or slipped out of a hand."""
        now = self.clock.monotonic()
        if (self._followed_at is not None and now - self._followed_at < FOLLOW_SECONDS) or self.index.unfinished():
            return
        state = self.traffic.observe()
        if state.incumbent is None or state.release_id is not None:
            return
        incumbent = state.incumbent.version
        champion = self.registry.read_champion(incumbent.name)
        stage = self.registry.read_version(incumbent.name, incumbent.version).stage if champion else PRODUCTION
        if champion and (champion, stage) != (incumbent.version, PRODUCTION):
            self._restore_registry(incumbent, self._usurper(incumbent, champion), token=state.token, candidate_stage=ARCHIVED)
            log.warning("the registry is in line with traffic again: %s is champion and in Production", incumbent.label)
        self._followed_at = now

    def _usurper(self, incumbent: ModelVersion, champion: str) -> ModelVersion | None:
        """Another version that calls itself champion and in Production, which nobody has released; what waits in Staging may wait there."""
        if champion == incumbent.version or self.registry.read_version(incumbent.name, champion).stage != PRODUCTION:
            return None
        return ModelVersion(incumbent.name, champion, "unknown")

    def _report(self, release_id: str) -> None:
        try:
            self.write_report(release_id)
        except Exception as error:  # noqa: BLE001 - evidence and registry are right, and stand without their picture
            log.warning("the report of %s could not be written: %s", release_id, error)

    def _free_runs(self) -> None:
        """Say of every run whose process is gone how it ended: nobody else does, and it would hold the one place for ever."""
        gone: set[str] = set()
        under_way = self.runs.read_under_way(RELEASE_DEPLOYMENT)
        troubles = [error for run in under_way if (error := _tried(partial(self._free_run, run, gone))) is not None]
        self._gone_since = {run_id: since for run_id, since in self._gone_since.items() if run_id in gone}
        if troubles:
            raise troubles[0]

    def _free_run(self, run: FlowRun, gone: set[str]) -> None:
        opened, now = self.index.of_run(run.run_id), self.clock.monotonic()
        if (grace_seconds := self._grace_seconds(run, opened)) is None:
            return
        gone.add(run.run_id)
        if now - self._gone_since.setdefault(run.run_id, now) >= grace_seconds:
            self._end_run(run, opened)

    def _grace_seconds(self, run: FlowRun, opened: Opened | None) -> float | None:
        """How long to wait until this run is called dead; None while its process lives, or cannot be seen from here."""
        if opened is None or opened.process is None:
            if run.pid is not None:
                return CRASH_GRACE_SECONDS if self.is_running(run.run_id, run.pid) is False else None
            return START_GRACE_SECONDS if run.state_type == "PENDING" else None
        if (is_alive := self.is_alive(opened.process)) is True:
            return None
        if run.pid not in (None, opened.process.pid) and self.is_running(run.run_id, run.pid) is not False:
            return None  # started again, in another process, which has not opened its release yet
        if is_alive is None:
            return UNSEEN_GRACE_SECONDS if self.index.ending(opened.release_id) else None
        return CRASH_GRACE_SECONDS

    def _end_run(self, run: FlowRun, opened: Opened | None) -> None:
        ending = self.index.ending(opened.release_id) if opened else None
        reason = str(ending["reason"]) if ending else "its process is gone, and it has recorded nothing"
        if ending is not None and ending["kind"] == DECISION:
            self.runs.end(run.run_id, state_type="COMPLETED", state_name=str(ending["decision"]), message=reason)
        elif run.state_type == "CANCELLING":  # a person wants it so: it is not tried again
            self.runs.end(run.run_id, state_type="CANCELLED", state_name="Cancelled", message=reason)
        else:
            self.runs.end(run.run_id, state_type="CRASHED", state_name="Crashed", message=reason)


def _tried(step: Callable[[], None]) -> ReleaseError | None:
    try:
        step()
    except ReleaseError as error:
        return error
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a record that is not as we write them: it stops nobody else
        return EvidenceError(f"a release cannot be ended, its evidence is not as it should be ({type(error).__name__}: {error})")
    return None
