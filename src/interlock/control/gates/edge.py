"""The edge of every gate: the only place where an unexpected exception becomes a verdict, and that verdict is never PASS."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from interlock.errors import ReleaseError
from interlock.model.redaction import one_line
from interlock.model.verdict import Measurement, Verdict, inconclusive, judge_measurements

logger = logging.getLogger(__name__)


def judged(gate: str, judge: Callable[[], Verdict]) -> Verdict:
    """
    The gate's own verdict, or INCONCLUSIVE with the reason when judging raised.

    A release looks at all gates even after a FAIL, so that one broken gate must not hide what the others have to say.
    """
    try:
        return judge()
    except ReleaseError as error:
        return inconclusive(gate, one_line(error))
    except Exception as error:  # the outcome changes: a gate that raised has proved nothing
        logger.warning("gate %s raised %s", gate, type(error).__name__)
        logger.debug("gate %s", gate, exc_info=True)
        return inconclusive(gate, f"it could not be judged, {type(error).__name__}: {one_line(error)}")


def judge_required(gate: str, measurements: Sequence[Measurement], *, required: Iterable[str], remarks: Iterable[str] = ()) -> Verdict:
    """
    The verdict from the required measurements alone; the others stand beside them and decide nothing.

    To recompute it from stored evidence: `judge_measurements` over the stored measurements whose names are required.
    `remarks` say what a number cannot (which column, whose failure); they are added to the reason and never touch the outcome.
    """
    wanted = tuple(required)
    verdict = judge_measurements(gate, [m for m in measurements if m.name in wanted], required=wanted)
    return replace(verdict, measurements=tuple(measurements), reason="; ".join([verdict.reason, *remarks]))
