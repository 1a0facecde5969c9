"""How much live traffic there is, by what the plane has counted in the last hour."""

from interlock.errors import NoSamples
from interlock.model.plane import LiveTraffic
from interlock.ports import Clock, Traffic

LEAST_SEEN_SECONDS = 5.0  # a rate read over less is a matter of luck


def read_last_hour(traffic: Traffic, clock: Clock) -> LiveTraffic:
    """
    The live traffic of the last hour. A plane that was just started, or taken over, has seen less: then that, after 5 s at the earliest.

    Raises:
        NoSamples: the plane's count has not gone on while it was waited for.
    """
    seen = traffic.capture_counts().last_hour
    if seen.seen_seconds < LEAST_SEEN_SECONDS:
        clock.sleep(LEAST_SEEN_SECONDS - seen.seen_seconds + 0.1)
        seen = traffic.capture_counts().last_hour
    if seen.seen_seconds < LEAST_SEEN_SECONDS:
        raise NoSamples(
            f"live traffic was counted for {seen.seen_seconds:.1f} s, needs {LEAST_SEEN_SECONDS:g}: see whether the plane was restarted"
        )
    return seen
