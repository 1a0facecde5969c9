"""The rollback that a person asks for: whatever the plane does now, with or without a release."""

import logging

from interlock.control.records import receipt_values
from interlock.control.rollback import roll_back
from interlock.control.session import Services
from interlock.errors import EvidenceError, ServiceError
from interlock.model.plane import RollbackReceipt

logger = logging.getLogger(__name__)


def roll_back_plane(services: Services, *, reason: str) -> RollbackReceipt:
    """
    Traffic, registry, capacity back on the incumbent, each observed; the receipt goes into the evidence of the release under way.

    Without a release it gets a record of its own. A record that cannot be written does not stop a rollback: it only moves towards
    the incumbent.

    Raises:
        RollbackFailed: a step was not observed.
    """
    state = services.traffic.observe()
    candidate = state.candidate.version if state.candidate else None
    receipt = roll_back(services.traffic, services.registry, services.clock, reason=reason, candidate=candidate, token=None)
    release_id = state.release_id or f"rollback-{services.clock.utc_now():%Y%m%dT%H%M%S%f}"
    try:
        services.evidence.append(release_id, "rollback", receipt_values(receipt))
    except (ServiceError, EvidenceError) as error:
        logger.warning("the receipt was not recorded: %s", error)
    return receipt
