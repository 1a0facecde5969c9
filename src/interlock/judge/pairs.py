"""
Joins the legs of the prediction journal into pairs: the same input, scored by both arms.

Every leg that is offered after the judging began ends in exactly one PairResult (or is still waiting, or belongs to a request from
before): nothing is lost silently. No clock: the caller supplies the largest collector time it knows.
"""

import math
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from interlock.errors import PolicyError
from interlock.judge.comparators import Compare, Difference
from interlock.model.journal import Arm, Leg, Role

# Ids remembered after they were settled, to tell a duplicate or a late half from a new request: at 1,000 pairs/s a few minutes, 20 MB.
_REMEMBERED_COUNT = 100_000
# The plane reports a client that left before any answer began this long after the request (`envoy_settings.LOST_AFTER_SECONDS`).
LOST_AFTER_SECONDS = 21.0
CLIENT_LEFT_STATUS = 499

_MAX_WAITING_COUNT = 200_000  # halves; more means the other side of the journal is gone, and memory must stay bounded


class Fate(StrEnum):
    """What became of a pair, or of a leg that made none."""

    JUDGED = "judged"
    CANDIDATE_MISSING = "candidate_missing"
    INCUMBENT_MISSING = "incumbent_missing"
    DROPPED = "dropped"
    CLIENT_LEFT = "client_left"
    BROKEN = "broken"
    DUPLICATE = "duplicate"
    LATE = "late"


class PairResult(NamedTuple):
    """
    One settled request.

    at_seconds: collector time of the live half (of the half that came, if one is missing).
    divergence: D in [0, 1]; None when the pair says nothing about the predictions.
    live_arm: the arm that the traffic split chose for the user's own request; None when no leg was seen that tells it.
    is_unreadable: the incumbent answered 2xx with something the comparator could not read.
    *_latency_ms: None when that arm gave no answer of its own.
    signed: by how much the candidate's answer is larger, in [-1, 1]; None unless both are quantities.
    segment, key: as on the legs; empty when the client named none.
    first_at_seconds: collector time of the half that came first: when the request was asked, near enough, however slow its other half.
    compares_latency: False when the incumbent refused the input: the candidate's own latency is lost in the rescue.
    """

    fate: Fate
    at_seconds: float
    divergence: float | None = None
    candidate_failed: bool = False
    incumbent_failed: bool = False
    live_arm: Arm | None = None
    candidate_latency_ms: float | None = None
    incumbent_latency_ms: float | None = None
    is_unreadable: bool = False
    signed: float | None = None
    segment: str = ""
    key: str = ""
    first_at_seconds: float = -math.inf
    compares_latency: bool = True

    @property
    def candidate_role(self) -> Role:
        """Whether a user waited for the candidate's answer."""
        return Role.LIVE if self.live_arm is Arm.CANDIDATE else Role.MIRROR

    @property
    def incumbent_role(self) -> Role:
        """Whether a user waited for the incumbent's answer."""
        return Role.MIRROR if self.live_arm is Arm.CANDIDATE else Role.LIVE


class PairJoiner:
    """
    Holds halves until their other half comes or `deadline_seconds` pass on the collector's clock.

    A mirrored copy whose live half is missing waits for `LOST_AFTER_SECONDS` more: the plane says only then that the client had left.
    Requests whose live half reached the collector before `judging_since_seconds` are ignored. A mirrored half that stays alone within
    one deadline after that moment is ignored too: its live half may have come before.
    """

    def __init__(self, *, deadline_seconds: float, judging_since_seconds: float, compare: Compare) -> None:
        if not (math.isfinite(deadline_seconds) and deadline_seconds > 0 and math.isfinite(judging_since_seconds)):
            raise PolicyError(f"pairing deadline is {deadline_seconds!r} s since {judging_since_seconds!r}, needs a finite number above 0")
        self._compare = compare
        self._deadline = deadline_seconds
        self._since = judging_since_seconds
        self._waiting: dict[str, Leg] = {}
        self._settled: list[PairResult] = []
        self._remembered: dict[str, bool] = {}  # id -> it expired, i.e. a second half is late rather than a duplicate
        self._remembered_before: dict[str, bool] = {}
        self._explained: deque[tuple[float, int]] = deque()

    @property
    def waiting_count(self) -> int:
        """Halves that still wait for the other one."""
        return len(self._waiting)

    def offer(self, legs: Iterable[Leg]) -> None:
        """Take legs in any order. Duplicates and late halves are counted and change nothing else."""
        waiting = self._waiting
        for leg in legs:
            expired = self._remembered.get(leg.request_id)
            if expired is None:
                expired = self._remembered_before.get(leg.request_id)
            if expired is not None:
                self._settle_without_data(leg, Fate.LATE if expired else Fate.DUPLICATE)
            elif not _is_sound(leg):
                self._settle_without_data(leg, Fate.BROKEN)
            elif (other := waiting.get(leg.request_id)) is None:
                waiting[leg.request_id] = leg
            elif other.arm is leg.arm:
                self._settle_without_data(leg, Fate.DUPLICATE)
            else:
                del waiting[leg.request_id]
                self._remember(leg.request_id, expired=False)
                self._join(leg, other)
        while len(waiting) > _MAX_WAITING_COUNT:
            oldest = next(iter(waiting))
            self._settle_without_data(waiting.pop(oldest), Fate.DROPPED)
            self._remember(oldest, expired=True)

    def collect(self, now_seconds: float, explained_missing_count: int = 0) -> list[PairResult]:
        """
        Everything settled since the last call. Idempotent: a second call with nothing new returns nothing.

        Args:
            now_seconds: the largest collector time known; halves received a deadline or longer before it are alone for good.
            explained_missing_count: mirrors and captures the plane gave up on since the last call. So many lone halves are
                discarded as dropped instead of judged. What finds no lone half within two deadlines is counted as dropped as well,
                so that every reported drop shows in the missing share and none excuses a failure later.
        """
        if explained_missing_count > 0:
            self._explained.append((now_seconds, explained_missing_count))
        alone = [leg for leg in self._waiting.values() if leg.received_at_seconds + self._patience(leg) <= now_seconds]
        for leg in sorted(alone, key=lambda leg: leg.received_at_seconds):
            del self._waiting[leg.request_id]
            self._remember(leg.request_id, expired=True)
            self._settle_alone(leg)
        self._lapse_explanations(now_seconds)
        settled, self._settled = self._settled, []
        return settled

    def _patience(self, leg: Leg) -> float:
        return self._deadline + (LOST_AFTER_SECONDS if leg.role is Role.MIRROR else 0.0)

    def _join(self, one: Leg, other: Leg) -> None:
        candidate, incumbent = (one, other) if one.arm is Arm.CANDIDATE else (other, one)
        live = one if one.role is Role.LIVE else other
        if live.received_at_seconds < self._since:
            return
        if candidate.role is incumbent.role or candidate.input_digest != incumbent.input_digest:
            self._settle_without_data(live, Fate.BROKEN)
            return
        if live.status_code == CLIENT_LEFT_STATUS:
            self._settled.append(PairResult(Fate.CLIENT_LEFT, live.received_at_seconds, live_arm=live.arm))
            return
        difference = self._difference(candidate, incumbent)
        candidate_failed, incumbent_failed = _failures(candidate, incumbent)
        self._settled.append(
            PairResult(
                Fate.JUDGED,
                live.received_at_seconds,
                difference.divergence if difference else None,
                candidate_failed,
                incumbent_failed,
                live.arm,
                candidate.latency_ms,
                incumbent.latency_ms,
                is_unreadable=difference is None and _answered(incumbent),
                signed=difference.signed if difference else None,
                segment=live.segment,
                key=live.key,
                first_at_seconds=min(one.received_at_seconds, other.received_at_seconds),
                compares_latency=not _is_refusal(incumbent),
            )
        )

    def _difference(self, candidate: Leg, incumbent: Leg) -> Difference | None:
        """None when the incumbent gave no good answer, or one that cannot be read."""
        if not _answered(incumbent):
            return None
        return self._compare(incumbent.prediction, candidate.prediction if _answered(candidate) else None)

    def _settle_alone(self, leg: Leg) -> None:
        """A half whose other half never came: explained by a drop, or the candidate's failure, or of no use."""
        boundary = self._since + (self._deadline if leg.role is Role.MIRROR else 0.0)
        if leg.received_at_seconds < boundary:
            return
        if leg.status_code == CLIENT_LEFT_STATUS:
            self._settled.append(PairResult(Fate.CLIENT_LEFT, leg.received_at_seconds, live_arm=_live_arm(leg)))
        elif self._take_explanation():
            self._settled.append(PairResult(Fate.DROPPED, leg.received_at_seconds, live_arm=_live_arm(leg)))
        elif leg.arm is Arm.CANDIDATE:
            self._settled.append(PairResult(Fate.INCUMBENT_MISSING, leg.received_at_seconds, live_arm=_live_arm(leg)))
        else:
            self._settled.append(
                PairResult(
                    Fate.CANDIDATE_MISSING,
                    leg.received_at_seconds,
                    1.0 if _answered(leg) else None,
                    candidate_failed=True,
                    incumbent_failed=leg.failed,
                    live_arm=_live_arm(leg),
                    incumbent_latency_ms=leg.latency_ms,
                    segment=leg.segment,
                    key=leg.key,
                    first_at_seconds=leg.received_at_seconds,
                )
            )

    def _settle_without_data(self, leg: Leg, fate: Fate) -> None:
        self._settled.append(PairResult(fate, leg.received_at_seconds))

    def _take_explanation(self) -> bool:
        if not self._explained:
            return False
        at, count = self._explained[0]
        if count > 1:
            self._explained[0] = (at, count - 1)
        else:
            self._explained.popleft()
        return True

    def _lapse_explanations(self, now_seconds: float) -> None:
        while self._explained and self._explained[0][0] + 2 * self._deadline <= now_seconds:
            at, count = self._explained.popleft()
            self._settled.extend([PairResult(Fate.DROPPED, at)] * count)

    def _remember(self, request_id: str, *, expired: bool) -> None:
        self._remembered[request_id] = expired
        if len(self._remembered) >= _REMEMBERED_COUNT:
            self._remembered_before, self._remembered = self._remembered, {}


def _live_arm(leg: Leg) -> Arm:
    """The arm that the split chose: a mirrored copy goes to the other one."""
    is_candidate = (leg.arm is Arm.CANDIDATE) == (leg.role is Role.LIVE)
    return Arm.CANDIDATE if is_candidate else Arm.INCUMBENT


def _answered(leg: Leg) -> bool:
    return 200 <= leg.status_code < 300


def _is_refusal(leg: Leg) -> bool:
    return 400 <= leg.status_code < 500


def _failures(candidate: Leg, incumbent: Leg) -> tuple[bool, bool]:
    """
    Whether candidate and incumbent failed on this input.

    The MLflow scoring protocol answers 400 when a model raises, so a refusal (4xx) of what the other arm answers is a failure. What the
    incumbent refuses too is the client's fault: a candidate answer that Envoy replaced by the incumbent's refusal says nothing then.
    """
    is_refused = _is_refusal(incumbent)
    candidate_failed = candidate.failed or (400 <= candidate.status_code < 500 and not is_refused)
    if is_refused and candidate.role is Role.LIVE and candidate.status_code == 0:
        candidate_failed = False
    return candidate_failed, incumbent.failed or (is_refused and 200 <= candidate.status_code < 300)


def _is_sound(leg: Leg) -> bool:
    """Whether the journal's own facts make sense; a leg without them cannot be trusted to be what it says."""
    latency = leg.latency_ms
    sane_latency = latency is None or (math.isfinite(latency) and latency >= 0)
    return bool(leg.request_id) and math.isfinite(leg.received_at_seconds) and sane_latency
