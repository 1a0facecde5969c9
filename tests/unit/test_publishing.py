"""Nothing that people look at holds up or ends a release."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from tasks import publishing
from tasks.publishing import await_published, publish


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(publishing, "get_run_logger", lambda: log)
    return log


def test_artifacts_are_made_in_order_and_waited_for(log: Log) -> None:
    made: list[int] = []

    def maker(number: int) -> Callable[[], None]:
        return lambda: made.append(number)

    for number in range(20):
        publish("x", maker(number))
    await_published()
    assert (made, log.lines) == (list(range(20)), [])


def test_one_that_cannot_be_shown_is_said_and_the_others_are(log: Log) -> None:
    made: list[str] = []

    def broken() -> None:
        raise OSError("Prefect does not answer")

    publish("the gates", broken)
    publish("the ticks", lambda: made.append("ticks"))
    await_published()
    assert made == ["ticks"]
    assert log.lines == ["the gates could not be shown: Prefect does not answer"]


def test_a_cancellation_in_one_of_them_does_not_end_the_thread_that_shows_the_others(log: Log) -> None:
    made: list[str] = []

    def cancelled() -> None:
        raise asyncio.CancelledError

    publish("the gates", cancelled)
    publish("the ticks", lambda: made.append("ticks"))
    await_published()
    assert made == ["ticks"]
    assert log.lines == ["the gates could not be shown: "]


def test_a_prefect_that_is_away_holds_nobody_up(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "AWAIT_SECONDS", 0.2)
    back, began = threading.Event(), time.monotonic()
    publish("the gates", lambda: back.wait(30))
    publish("the ticks", lambda: None)
    assert time.monotonic() - began < 1
    await_published()
    assert 0.2 <= time.monotonic() - began < 3
    assert log.lines == ["2 artifacts could not be shown within 0.2 s: is the Prefect server up?"]
    back.set()
    monkeypatch.setattr(publishing, "AWAIT_SECONDS", 10.0)
    await_published()
