"""Rollback: traffic first, then registry, then capacity; each step asked, observed, and only then reported."""

import contextlib
from collections.abc import Callable

from interlock.errors import ConcurrencyError, RollbackFailed, ServiceError, ServiceRefused, TrafficError, TrafficNotConverged
from interlock.model.plane import PlaneState, RollbackReceipt, RollbackStep
from interlock.model.release import ModelVersion
from interlock.ports import Clock, Registry, Traffic

TRAFFIC_BUDGET_SECONDS = 20.0  # worst recovery allowed; after it a person has to look
AFTERWARDS_BUDGET_SECONDS = 60.0  # traffic is safe by then: time for a registry that is restarting, or a server that ends slowly
POLL_SECONDS = 0.05
PROBE_COUNT = 20  # at a candidate share of 25 % or more, 20 answers miss it with probability .003; the weight itself is read back too
ARCHIVED, PRODUCTION = "Archived", "Production"


def roll_back(
    traffic: Traffic, registry: Registry, clock: Clock, *, reason: str, candidate: ModelVersion | None, token: int | None
) -> RollbackReceipt:
    """
    Put all traffic on the incumbent, then the registry in line, then free the candidate's capacity. Idempotent.

    Without a token (a person asks) a registry that a newer release has claimed is left alone, and the receipt says so.

    Raises:
        ConcurrencyError: a newer release than this token's has begun; what it has is left alone.
        RollbackFailed: a step was not observed within its budget; says which, and what was observed.
    """
    started = clock.monotonic()
    state = restore_traffic(traffic, clock, reason=reason, token=token)
    incumbent = _incumbent_of(state)
    steps = [RollbackStep("traffic", f"{incumbent.label} answers 100 % of requests", clock.monotonic() - started)]
    said = f"champion and Production are version {incumbent.version}"
    try:
        restore_registry(registry, clock, incumbent=incumbent, candidate=candidate, token=state.token if token is None else token)
    except ConcurrencyError as error:
        if token is not None:
            raise
        said = f"left alone: {error}"
    steps.append(RollbackStep("registry", said, clock.monotonic() - started))
    _free_capacity(traffic, clock, token=token)
    steps.append(RollbackStep("capacity", "the candidate's server has ended", clock.monotonic() - started))
    return RollbackReceipt(reason, incumbent.label, tuple(steps), clock.monotonic() - started)


def restore_traffic(traffic: Traffic, clock: Clock, *, reason: str, token: int | None = None) -> PlaneState:
    """
    All traffic on the incumbent, proved by reading the split back and by who answers on the live listener.

    Raises:
        ConcurrencyError: a newer release than this token's has begun.
        RollbackFailed: not observed within 20 s.
    """
    deadline = clock.monotonic() + TRAFFIC_BUDGET_SECONDS
    observed = "nothing was observed"
    while True:
        try:
            traffic.restore_incumbent(reason=reason, token=token)
            state = traffic.observe()
            served = traffic.probe(PROBE_COUNT)
            incumbent = _incumbent_of(state)
            if state.candidate_weight_bps == 0 and served.get(incumbent.label, 0) == PROBE_COUNT:
                return state
            observed = f"candidate weight {state.candidate_weight_bps} bps, answers came from {dict(served)}"
        except (ServiceError, TrafficError) as error:
            observed = str(error)
        if clock.monotonic() > deadline:
            raise RollbackFailed(
                f"the incumbent was not observed to serve all traffic within {TRAFFIC_BUDGET_SECONDS:g} s ({observed}): page the on-call, "
                "see docs/runbooks/rollback-failed.md"
            )
        clock.sleep(POLL_SECONDS)


def restore_registry(
    registry: Registry,
    clock: Clock,
    *,
    incumbent: ModelVersion,
    candidate: ModelVersion | None,
    token: int,
    candidate_stage: str = ARCHIVED,
) -> None:
    """
    Champion and Production back on the incumbent, the candidate archived; read back. Idempotent, also when it was cut in the middle.

    A candidate that the registry does not have any more has nothing to be restored.

    candidate_stage: another stage than Archived is put back where a promotion has moved it; a stage that a person chose meanwhile stays.

    Raises:
        ConcurrencyError: a newer release than this token's has claimed the model; nothing was changed.
        RollbackFailed: not observed within 60 s, or the registry refuses the incumbent; traffic is on the incumbent nevertheless.
    """
    other = candidate if candidate is not None and candidate.version != incumbent.version else None

    def restore() -> None:
        with contextlib.suppress(ServiceRefused):  # it was deleted: that must not keep the champion from coming back
            if other and candidate_stage != ARCHIVED and registry.read_version(other.name, other.version).stage == PRODUCTION:
                registry.set_stage(other.name, other.version, candidate_stage, token=token)  # first: else the champion's move archives it
        try:
            registry.set_champion(incumbent.name, incumbent.version, token=token)
        except ServiceRefused as error:
            raise RollbackFailed(
                f"the registry refuses {incumbent.label} as champion ({error}); it serves all traffic: register it again or release another"
            ) from error
        with contextlib.suppress(ServiceRefused):
            if other and candidate_stage == ARCHIVED:
                registry.set_stage(other.name, other.version, ARCHIVED, token=token)

    _until_it_works(restore, clock, what="the registry was not restored; traffic is on the incumbent")


def _free_capacity(traffic: Traffic, clock: Clock, *, token: int | None) -> None:
    def free() -> None:
        traffic.end(token=token)  # may take longer than the answer is waited for: what counts is what is observed
        if (left := traffic.observe().candidate) is not None:
            raise TrafficNotConverged(f"the candidate's server, process {left.pid}, still runs")

    _until_it_works(free, clock, what="traffic and registry are restored, the candidate's server was not seen to end")


def _until_it_works(act: Callable[[], None], clock: Clock, *, what: str) -> None:
    deadline = clock.monotonic() + AFTERWARDS_BUDGET_SECONDS
    while True:
        try:
            return act()
        except RollbackFailed:  # waiting does not heal it
            raise
        except (ServiceError, TrafficError) as error:
            if clock.monotonic() > deadline:
                raise RollbackFailed(f"{what} ({error}) after {AFTERWARDS_BUDGET_SECONDS:g} s: run `interlock rollback` again") from error
        clock.sleep(1.0)


def _incumbent_of(state: PlaneState) -> ModelVersion:
    if state.incumbent is None:
        raise RollbackFailed("the plane has no incumbent to go back to: adopt one with `interlock adopt`")
    return state.incumbent.version
