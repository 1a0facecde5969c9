"""The memory gate weighs a server that has worked, and passes none that it could not weigh."""

import math
from collections.abc import Callable

import pytest

from interlock.control.gates.memory import judge_memory
from interlock.errors import EvidenceError, ServiceUnavailable
from interlock.model.verdict import Outcome, Verdict
from interlock.profile.schema import Memory

POLICY = Memory(request_count=50, max_resident_mib=900.0, max_ratio_to_incumbent=1.3)


def judge(
    candidate: float | Callable[[], float | None] | None = 500.0,
    incumbent: float | None = 480.0,
    *,
    send: Callable[[bytes], None] = lambda _: None,
    payloads: tuple[bytes, ...] = (b"a", b"b"),
) -> Verdict:
    read = candidate if callable(candidate) else lambda: candidate
    return judge_memory(POLICY, read_candidate_mib=read, read_incumbent_mib=lambda: incumbent, send_candidate=send, payloads=payloads)


@pytest.mark.parametrize(
    ("candidate", "incumbent", "outcome"),
    [
        pytest.param(500.0, 480.0, Outcome.PASS, id="within both limits passes"),
        pytest.param(624.0, 480.0, Outcome.PASS, id="exactly at the ratio passes"),
        pytest.param(624.1, 480.0, Outcome.FAIL, id="beyond the incumbent fails"),
        pytest.param(901.0, 890.0, Outcome.FAIL, id="beyond the absolute limit fails"),
        pytest.param(None, 480.0, Outcome.INCONCLUSIVE, id="an unknown candidate is not a pass"),
        pytest.param(500.0, None, Outcome.INCONCLUSIVE, id="an unknown incumbent is not a pass"),
        pytest.param(math.nan, 480.0, Outcome.INCONCLUSIVE, id="nan is not a pass"),
        pytest.param(0.0, 480.0, Outcome.INCONCLUSIVE, id="a process without memory is not a pass"),
        pytest.param(500.0, math.inf, Outcome.INCONCLUSIVE, id="an infinite incumbent is no yardstick"),
    ],
)
def test_readings_are_judged(candidate: float | None, incumbent: float | None, outcome: Outcome) -> None:
    assert judge(candidate, incumbent).outcome is outcome


def test_memory_is_read_after_the_work() -> None:
    sent: list[bytes] = []
    verdict = judge(lambda: 500.0 if len(sent) == 50 else 1.0, send=sent.append)
    assert [m.value for m in verdict.measurements] == [0.0, 500.0, 500.0]


def test_a_dead_process_is_the_reason() -> None:
    def gone() -> float | None:
        raise EvidenceError("process 4711 of the candidate is gone: read its log")

    verdict = judge(gone)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "process 4711 of the candidate is gone" in verdict.reason


def test_a_candidate_that_dies_at_work_fails_and_is_not_asked_for_ever() -> None:
    asked = 0

    def dies(_: bytes) -> None:
        nonlocal asked
        asked += 1
        if asked > 20:
            raise ServiceUnavailable("connection refused")

    verdict = judge(None, send=dies)
    assert verdict.outcome is Outcome.FAIL
    assert "connection refused" in verdict.reason
    assert asked == 25


def test_without_payloads_nothing_is_proved() -> None:
    assert judge(payloads=()).outcome is Outcome.INCONCLUSIVE
