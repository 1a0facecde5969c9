"""From when on did every answer come from one version? Proved only by a long run to the end, and no failure is forgotten."""

import pytest

from interlock.demo.history import History, Response, first_moment_all_from

INCUMBENT, CANDIDATE = "late-flight/1", "late-flight/2"


def answers(*runs: tuple[str, int], start: float = 100.0, interval: float = 0.02) -> list[Response]:
    """Responses one after the other; a run named "failed" is of failed requests that the incumbent's name is stamped on."""
    names = [name for name, count in runs for _ in range(count)]
    return [
        Response(
            start + number * interval, 5.0, INCUMBENT if name == "failed" else name, "incumbent", "status 500" if name == "failed" else ""
        )
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([(INCUMBENT, 200)], 100.0, id="from the first answer on"),
        pytest.param([(CANDIDATE, 50), (INCUMBENT, 200)], 101.0, id="from the first answer after the candidate's last"),
        pytest.param([(INCUMBENT, 200), (CANDIDATE, 1), (INCUMBENT, 200)], 104.02, id="one late answer of the candidate starts it again"),
        pytest.param([(INCUMBENT, 200), ("failed", 1), (INCUMBENT, 200)], 104.02, id="a failed request is nobody's answer"),
        pytest.param([(INCUMBENT, 200), ("", 1), (INCUMBENT, 200)], 104.02, id="an answer without a stamp is nobody's"),
        pytest.param([(INCUMBENT, 200), (CANDIDATE, 1)], None, id="the newest answer decides"),
        pytest.param([(INCUMBENT, 200), (CANDIDATE, 1), (INCUMBENT, 149)], None, id="a short run proves nothing"),
        pytest.param([(CANDIDATE, 500)], None, id="never"),
        pytest.param([], None, id="no traffic is no recovery"),
    ],
)
def test_recovery(runs: list[tuple[str, int]], expected: float | None) -> None:
    moment = first_moment_all_from(INCUMBENT, answers(*runs))
    assert moment == (None if expected is None else pytest.approx(expected))


def test_many_answers_in_a_moment_prove_nothing() -> None:
    burst = answers((INCUMBENT, 1000), interval=0.001)
    assert first_moment_all_from(INCUMBENT, burst) is None
    assert first_moment_all_from(INCUMBENT, burst, min_observed_seconds=0.5) == 100.0


def test_few_answers_in_a_long_time_prove_nothing() -> None:
    sparse = answers((INCUMBENT, 149), interval=0.1)
    assert first_moment_all_from(INCUMBENT, sparse) is None
    assert first_moment_all_from(INCUMBENT, sparse, min_response_count=149) == 100.0


def test_a_history_counts_every_request_once() -> None:
    history = History(started_at=100.0)
    responses = answers((INCUMBENT, 60), (CANDIDATE, 20), ("failed", 10), (INCUMBENT, 10))
    for response in responses:
        history.record_sent()
        history.record(response)
    history.record_sent()
    snapshot = history.snapshot(recent_count=15)
    assert (snapshot.total_count, snapshot.failed_count, snapshot.in_flight_count) == (101, 10, 1)
    assert snapshot.failures == {"status 500": 10}
    assert snapshot.recent == tuple(responses[-15:])
    assert [(s.after_seconds, dict(s.served_by), s.failed_count) for s in snapshot.seconds] == [
        (0, {INCUMBENT: 50}, 0),
        (1, {INCUMBENT: 20, CANDIDATE: 20}, 10),
    ]


def test_since_is_inclusive_and_keeps_the_order() -> None:
    history = History(started_at=100.0)
    responses = answers((INCUMBENT, 5))
    for response in responses:
        history.record(response)
    assert history.responses_since(responses[2].received_at) == tuple(responses[2:])
    assert history.responses_since(0.0) == tuple(responses)
    assert history.responses_since(1000.0) == ()
