"""The memory gate: what the candidate's server holds resident, at its peak and from request to request, beside the incumbent's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from interlock.control.gates.edge import judge_required, judged
from interlock.control.gates.growth import LEAST_READING_COUNT, WARM_UP_SHARE, growth_per_1000_requests
from interlock.control.gates.load import ArmReadings, Load, Pause, Targets, offer_load, told_failures
from interlock.errors import NoSamples, ServiceError
from interlock.model.plane import PlaneState, ServerState
from interlock.model.redaction import redacted
from interlock.model.verdict import Measurement, Verdict
from interlock.profile.gates import Memory

GATE = "memory"
REQUIRED = (
    "failed_request_count",
    "ended_count",
    "peak_mib",
    "peak_next_to_incumbent_mib",
    "growth_mib_per_1000_requests",
    "growth_above_incumbent_mib_per_1000_requests",
)
READING_COUNT = 60  # over the whole load; each costs some 10 ms
ENOUGH_UNREADABLE = 3  # in a row: a plane that does not answer costs a time-out each


@dataclass(frozen=True, slots=True)
class Reading:
    """Both servers as the plane saw them when each had answered so many requests, and had no other under way."""

    request_count: int
    candidate: ServerState | None
    incumbent: ServerState | None


def judge_memory(
    policy: Memory, targets: Targets, *, observe: Callable[[], PlaneState], payloads: Sequence[bytes], error: float
) -> Verdict:
    """
    Does the candidate's server stay within its memory, absolutely and beside the incumbent's, while it serves `request_count` requests?

    Both servers get the same requests, `requests_per_second` together. The peak is the kernel's own, from the server's start on, so that
    loading counts. The growth is that of resident memory after the first fifth of the requests, and that of what it is above the
    incumbent's: what the machine does to both is in both. A reading that is unknown, not finite or not above zero: INCONCLUSIVE.
    A server that fails a request, ends or is started again has not done the work that was to be weighed: FAIL, with its last words.

    error: of each bound on a growth.
    """
    return judged(GATE, lambda: _judge(policy, targets, observe=observe, payloads=payloads, error=error))


def memory_measurements(
    policy: Memory, arm: ArmReadings, readings: Sequence[Reading], *, has_ended: bool, error: float
) -> tuple[Measurement, ...]:
    """The required measurements, then how much the server grew in the warm-up, which decides nothing by itself but is in the peak."""
    failed, needed = len(arm.failures), policy.request_count
    peak, incumbent_peak = _peak([each.candidate for each in readings]), _peak([each.incumbent for each in readings])
    beside = math.nan if incumbent_peak is None else incumbent_peak * policy.max_ratio_to_incumbent
    ours, theirs = [_resident(each.candidate) for each in readings], [_resident(each.incumbent) for each in readings]
    above = [candidate - incumbent for candidate, incumbent in zip(ours, theirs, strict=True)]
    requests = [each.request_count for each in readings]

    def growth(name: str, limit: float, mib: Sequence[float]) -> Measurement:
        found = growth_per_1000_requests(requests, mib, request_count=needed, error=error)
        value, bounds = (found.value, found.bounds) if found else (None, None)
        return Measurement(name, value, limit, "lower", "MiB", len(readings), LEAST_READING_COUNT, bounds)

    return (
        # One failure is proof, however few requests were sent.
        Measurement("failed_request_count", float(failed), 0.0, "lower", "requests", arm.answered_count + failed, 1 if failed else needed),
        Measurement("ended_count", float(has_ended), 0.0, "lower", "ends", len(readings), 1),
        Measurement("peak_mib", peak, policy.max_resident_mib, "lower", "MiB", arm.answered_count, needed),
        Measurement("peak_next_to_incumbent_mib", peak, beside, "lower", "MiB", arm.answered_count, needed),
        growth("growth_mib_per_1000_requests", policy.max_growth_mib_per_1000_requests, ours),
        growth("growth_above_incumbent_mib_per_1000_requests", policy.max_growth_above_incumbent_mib_per_1000_requests, above),
        _warm_up(requests, ours, needed),
    )


def _judge(policy: Memory, targets: Targets, *, observe: Callable[[], PlaneState], payloads: Sequence[bytes], error: float) -> Verdict:
    if not payloads:
        raise NoSamples("there is no payload to send: the memory gate needs at least one row")
    watch = _Watch(observe)
    watch.read(0)
    load = Load(policy.request_count, 0, policy.requests_per_second)
    pause = Pause(math.ceil(policy.request_count / READING_COUNT), watch.read)
    found = offer_load(load, targets, payloads=payloads, pause=pause)
    failure = targets.candidate_failure()
    has_ended = failure is not None or not is_same_server([each.candidate for each in watch.readings])
    measurements = memory_measurements(policy, found.candidate, _of_one_incumbent(watch.readings), has_ended=has_ended, error=error)
    remarks = told_failures(found, targets)
    if failure is not None and not found.candidate.failures:
        remarks.append(redacted(failure))
    return judge_required(GATE, measurements, required=REQUIRED, remarks=remarks)


class _Watch:
    """Looks at both servers, and keeps what it saw."""

    def __init__(self, observe: Callable[[], PlaneState]) -> None:
        self._observe, self._unreadable_count = observe, 0
        self.readings: list[Reading] = []

    def read(self, request_count: int) -> None:
        """One look. ServiceError when the plane has not answered for the third time in a row."""
        try:
            state = self._observe()
        except ServiceError:
            self._unreadable_count += 1
            if self._unreadable_count >= ENOUGH_UNREADABLE:
                raise
            return
        self._unreadable_count = 0
        self.readings.append(Reading(request_count, state.candidate, state.incumbent))


def is_same_server(states: Sequence[ServerState | None]) -> bool:
    """Whether it was one process from the first reading to the last; also when nobody has looked."""
    return len({(state.pid, state.restart_count) if state else None for state in states}) <= 1


def _of_one_incumbent(readings: Sequence[Reading]) -> Sequence[Reading]:
    """The readings, without the incumbent where another process took its place: two processes have no growth."""
    if is_same_server([each.incumbent for each in readings]):
        return readings
    return [replace(each, incumbent=None) for each in readings]


def _resident(state: ServerState | None) -> float:
    return _usable(state.resident_mib) if state else math.nan


def _peak(states: Sequence[ServerState | None]) -> float | None:
    """The largest that the kernel or any reading saw; None unless every reading can be used."""
    seen = [(_usable(state.peak_resident_mib), _usable(state.resident_mib)) if state else (math.nan, math.nan) for state in states]
    largest = max((mib for pair in seen for mib in pair), default=math.nan)
    return None if any(math.isnan(mib) for pair in seen for mib in pair) or math.isnan(largest) else largest


def _usable(mib: float | None) -> float:
    """NaN for what is unknown, not finite or not above zero: a process without memory is none."""
    return mib if mib is not None and math.isfinite(mib) and mib > 0 else math.nan


def _warm_up(requests: Sequence[int], mib: Sequence[float], request_count: int) -> Measurement:
    """Shown, so that what is left out of the growth is not out of sight."""
    within = [value for at, value in zip(requests, mib, strict=True) if at < request_count * WARM_UP_SHARE]
    value = within[-1] - within[0] if within else None
    return Measurement("warm_up_growth_mib", value, math.nan, "lower", "MiB", len(within), 1)
