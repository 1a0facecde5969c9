"""The rollback: all traffic to the incumbent, proved, with a receipt."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from interlock.errors import ReleaseError
from interlock.model.release import Decision
from tasks.conclusion import failed
from tasks.evidence import publish_receipt
from tasks.traffic import restore_plane


@flow(name="rollback", flow_run_name="rollback: {reason}", timeout_seconds=180)
def rollback(reason: str) -> State[str]:
    """
    Put all traffic on the incumbent, then the registry in line; ends as RolledBack with the seconds of each step. Idempotent.

    Args:
        reason: why, for the record.
    """
    try:
        receipt = restore_plane(reason)
    except ReleaseError as error:
        return failed(error)
    publish_receipt(receipt)
    message = f"{receipt.incumbent} serves all traffic, observed after {receipt.steps[0].elapsed_seconds:.2f} s"
    return Completed(name=Decision.ROLLED_BACK.value, message=message, data=Decision.ROLLED_BACK.value)
