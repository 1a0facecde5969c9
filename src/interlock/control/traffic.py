"""The last move of a good release: the candidate becomes the incumbent."""

import contextlib

from interlock.control.session import ReleaseSession
from interlock.errors import ServiceError, ServiceUnavailable, TrafficNotConverged
from interlock.model.release import ModelVersion
from interlock.ports import Traffic

PROBE_COUNT = 20
CONVERGE_SECONDS = 15.0  # the former incumbent's server has up to 8 s to finish its requests
POLL_SECONDS = 0.1


def finalise_promotion(session: ReleaseSession) -> None:
    """
    Make the candidate the incumbent, and prove it by who answers on the live listener.

    Raises:
        TrafficNotConverged: the plane does not say so, or others answer, after 15 s.
    """
    services, candidate = session.services, session.release.candidate
    with contextlib.suppress(ServiceUnavailable):  # the plane may have done it and answered too late: what counts is what is observed
        services.traffic.promote(token=session.release.token)
    deadline = services.clock.monotonic() + CONVERGE_SECONDS
    while (observed := _look(services.traffic, candidate)) is not None:
        if services.clock.monotonic() > deadline:
            raise TrafficNotConverged(f"{observed}, wanted {candidate.label} only")
        services.clock.sleep(POLL_SECONDS)
    session.record("finalised", incumbent=candidate.label, probes={candidate.label: PROBE_COUNT})


def _look(traffic: Traffic, candidate: ModelVersion) -> str | None:
    """What is not yet as it should be; None when the candidate alone serves. A plane that does not answer for a moment says nothing."""
    try:
        state, served = traffic.observe(), traffic.probe(PROBE_COUNT)
    except ServiceError as error:
        return f"the plane could not be observed ({error})"
    incumbent = state.incumbent.version.label if state.incumbent else "nobody"
    if incumbent == candidate.label and served.get(candidate.label, 0) == PROBE_COUNT and state.candidate_weight_bps == 0:
        return None
    return f"the incumbent is {incumbent} and answers came from {dict(served)}"
