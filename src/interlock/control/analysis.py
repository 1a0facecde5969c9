"""The analysis loop: once a second read the journal, judge, record, and renew the lease, or stop."""

from collections.abc import Callable
from dataclasses import asdict, replace

from interlock.control.counting import PairCounter
from interlock.control.policy import judge_policy
from interlock.control.resume import INCUMBENT, NO_EVIDENCE, TRAFFIC
from interlock.control.session import ReleaseSession
from interlock.control.unchanged import require_unchanged
from interlock.errors import ConcurrencyError, TrafficNotConverged
from interlock.judge.evaluate import judge_final, judge_tick
from interlock.judge.readings import Judgement, JudgeOutcome
from interlock.model.plane import PlaneState
from interlock.plan.phases import Phase

TICK_SECONDS = 1.0
CONVERGE_SECONDS = 5.0
NOT_READY_SECONDS = 3.0  # one late `/ping` on a busy machine is no outage; three seconds without one is
SIGHT_SECONDS = 3.0  # journal segments come every half second, and a busy machine may be late with a few of them
HALT = JudgeOutcome.HALT


class Analysis:
    """The judge at work on one release: what it has counted, and how long since it could see."""

    def __init__(self, session: ReleaseSession, *, on_tick: Callable[[Phase, Judgement], None] | None = None) -> None:
        self._session = session
        self._services = session.services
        self._policy = judge_policy(session.profile)
        self._on_tick = on_tick
        self._counter = PairCounter(session)
        self._last_tick_at = session.services.clock.monotonic()
        self._ready_at = self._seen_at = self._last_tick_at
        self._phase: Phase | None = None
        self._incumbent_pid: int | None = None

    def watch(self, phase: Phase) -> Judgement:
        """
        Give the candidate the phase's share and judge it once a second until the phase is over or the judge halts.

        A phase does not end while the judge is blind (its last look could judge nothing, or no pair came for 3 s): it is held at its share
        until the judge sees again, or halted for lack of evidence. Nothing more is given to a candidate that nobody can watch.

        Raises:
            TrafficNotConverged: the plane did not take the share over.
            ArtifactError: the candidate's files are no longer those that were judged; asked before its first share.
            ConcurrencyError: this release has lost the plane.
        """
        self.move_to(phase)
        return self._hold(phase)

    def record_counts(self) -> None:
        """Write down the count table: with the profile's text, all it takes to judge again."""
        self._session.record("counts", tally=self._counter.tally.to_dict())

    def settle(self) -> Judgement:
        """Hold the present share for one more pair deadline: until then an answer of the last seconds may be missing."""
        assert self._phase is not None, "there is nothing to settle before the first phase"
        return self._hold(replace(self._phase, bake_seconds=self._session.profile.judge.pair_deadline_seconds))

    def _hold(self, phase: Phase) -> Judgement:
        clock, started = self._services.clock, self._services.clock.monotonic()
        while True:
            clock.sleep(max(0.0, self._last_tick_at + TICK_SECONDS - clock.monotonic()))
            judgement = self._tick(phase)
            is_over = clock.monotonic() - started >= phase.bake_seconds
            sees = not judgement.is_blind and self._counter.silent_seconds <= SIGHT_SECONDS
            if judgement.outcome == HALT or (is_over and sees):
                return judgement

    def final_look(self) -> Judgement:
        """
        The one look, declared before the canary, at which the candidate can pass.

        It is taken one pair deadline after the last step, still at its share.
        """
        if (judgement := self.settle()).outcome == HALT:
            return judgement
        judgement = judge_final(self._counter.tally, self._policy)
        try:
            self._take_traffic_from(judgement)
        finally:
            self._session.record("final look", **described(judgement))
        self.record_counts()
        return judgement

    def move_to(self, phase: Phase) -> None:
        """Ask for the phase's share and return after it was read back. Does nothing when the candidate has that phase already."""
        if self._phase == phase:
            return
        if phase.weight_bps > 0 and not (self._phase and self._phase.weight_bps):
            require_unchanged(self._session, before="the first share of users")
            self._last_tick_at = self._services.clock.monotonic()  # nobody was on the candidate meanwhile: no gap in the evidence
        traffic, token = self._services.traffic, self._session.release.token
        lease_seconds = self._session.profile.canary.lease_seconds
        traffic.set_mirroring(enabled=True, token=token)
        traffic.set_weight(phase.weight_bps, lease_seconds=lease_seconds, token=token)
        deadline = self._services.clock.monotonic() + CONVERGE_SECONDS
        while (observed := traffic.observe().candidate_weight_bps) != phase.weight_bps:
            if self._services.clock.monotonic() > deadline:
                raise TrafficNotConverged(f"the plane serves {observed} bps after {CONVERGE_SECONDS:g} s, wanted {phase.weight_bps} bps")
            self._services.clock.sleep(0.05)
        self._counter.begin(phase)
        self._session.record("phase", phase=phase.name, weight_bps=observed, bake_seconds=phase.bake_seconds)
        self._phase = phase

    def _tick(self, phase: Phase) -> Judgement:
        clock = self._services.clock
        gap_seconds, self._last_tick_at = clock.monotonic() - self._last_tick_at, clock.monotonic()
        state = self._services.traffic.observe()
        self._counter.count()
        judgement = self._plane_problem(state, phase) or self._judge(gap_seconds)
        try:
            self._take_traffic_from(judgement)
        finally:
            self._session.record("tick", phase=phase.name, **described(judgement), **_infrastructure(state))
        if self._on_tick:
            self._on_tick(phase, judgement)
        if judgement.outcome == HALT:
            self.record_counts()
        else:
            lease_seconds = self._session.profile.canary.lease_seconds
            self._services.traffic.renew(lease_seconds=lease_seconds, token=self._session.release.token)
        return judgement

    def _take_traffic_from(self, judgement: Judgement) -> None:
        """
        A halt restores the incumbent first of all, before anything is written: users are on the candidate.

        Whoever calls writes the judgement down in any case: a plane that did not answer once makes no convicted candidate a failure.
        """
        if judgement.outcome == HALT:
            self._services.traffic.restore_incumbent(reason=judgement.reason, token=self._session.release.token)

    def _judge(self, gap_seconds: float) -> Judgement:
        """The judge's answer, or a halt for lack of evidence when nobody could see for too long."""
        judgement = judge_tick(self._counter.tally, self._policy)
        if not judgement.is_blind:
            self._seen_at = self._last_tick_at
        blind_seconds = max(gap_seconds, self._counter.silent_seconds, self._last_tick_at - self._seen_at)
        allowed_seconds = self._session.profile.canary.max_evidence_gap_seconds
        if judgement.outcome != HALT and blind_seconds > allowed_seconds:
            reason = (
                f"LACK_OF_EVIDENCE: nothing could be judged for {blind_seconds:.1f} s, at most {allowed_seconds:g} s; {judgement.reason}"
            )
            return _halted(NO_EVIDENCE, reason)
        return judgement

    def _plane_problem(self, state: PlaneState, phase: Phase) -> Judgement | None:
        """What is wrong with the plane itself, if anything: it halts, whatever the predictions look like."""
        if state.token != self._session.release.token or state.release_id != self._session.release.release_id:
            why = f"; the incumbent was restored last for: {state.last_restore_reason}" if state.last_restore_reason else ""
            raise ConcurrencyError(f"this release has lost the plane, which is held by {state.release_id or 'nobody'}{why}")
        if state.candidate_weight_bps != phase.weight_bps:
            return _halted(TRAFFIC, f"the plane serves {state.candidate_weight_bps} bps, asked for {phase.weight_bps} bps")
        if state.incumbent is None:
            return _halted(INCUMBENT, "the incumbent's server has gone")
        if state.candidate is None:
            return _halted("capacity", "the candidate's server has gone")
        self._incumbent_pid = self._incumbent_pid or state.incumbent.pid
        if state.incumbent.pid != self._incumbent_pid:
            return _halted(INCUMBENT, f"the incumbent's server had ended and was started again, as process {state.incumbent.pid}")
        if state.incumbent.ready and state.candidate.ready:
            self._ready_at = self._last_tick_at
        elif (waited_seconds := self._last_tick_at - self._ready_at) > NOT_READY_SECONDS:
            arm, decided_by = ("candidate", "capacity") if state.incumbent.ready else ("incumbent", INCUMBENT)
            return _halted(decided_by, f"the {arm}'s server has not answered its health probe for {waited_seconds:.1f} s")
        return None


def described(judgement: Judgement) -> dict[str, object]:
    """A judgement as plain values, for evidence and artifacts."""
    return asdict(judgement)


def _infrastructure(state: PlaneState) -> dict[str, object]:
    return {
        "weight_bps": state.candidate_weight_bps,
        "incumbent_mib": state.incumbent.resident_mib if state.incumbent else None,
        "candidate_mib": state.candidate.resident_mib if state.candidate else None,
    }


def _halted(decided_by: str, reason: str) -> Judgement:
    return Judgement(outcome=HALT, reason=reason, decided_by=decided_by, signals=(), e_value=0.0, halting_line=0.0)
