"""
Live traffic of the demonstration: real flights, one request each, at a steady rate that does not wait for answers.

A user's request failed when anything but a 200 with one finite prediction came within the user's deadline. Nothing is retried here.
"""

import asyncio
import itertools
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import aiohttp
import pandas as pd

from interlock.demo.history import History, Response, Snapshot, first_moment_all_from
from interlock.errors import TrafficNotConverged

SERVED_BY_HEADER = "x-interlock-served-by"
ARM_HEADER = "x-interlock-arm"
USER_DEADLINE_SECONDS = 10.0
POLL_SECONDS = 0.1
SEGMENT_HEADER = "interlock-segment"
_JSON = {"content-type": "application/json"}


class LiveTraffic:
    """
    Replays `rows` in order, again from the first after the last, from a thread of its own; `segments` names each row's, if given.

    Use it as a context manager, or call `start` and `stop`. It runs once.
    """

    def __init__(self, base_url: str, rows: pd.DataFrame, requests_per_second: float, *, segments: Sequence[str] = ()) -> None:
        self._url = f"{base_url.rstrip('/')}/invocations"
        bodies = [_body(list(rows.columns), row) for row in rows.to_numpy().tolist()]
        self._requests = [(body, {SEGMENT_HEADER: name}) for body, name in zip(bodies, segments or [""] * len(bodies), strict=True)]
        self._requests_per_second = requests_per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._replay()), name="live-traffic", daemon=True)
        self._history = History(time.monotonic())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether requests are being sent, or answers still awaited."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to send."""
        self._history = History(time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and return when every request under way was answered or ran into the user's deadline. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def snapshot(self, recent_count: int = 600) -> Snapshot:
        """What users got so far, with the last `recent_count` responses."""
        return self._history.snapshot(recent_count)

    def first_moment_all_from(self, label: str, since: float) -> float | None:
        """
        The monotonic moment, at or after `since`, from which on every response came from `label`; None while that is not proved.

        See `history.first_moment_all_from`. With `since` the moment a fault became active, the difference is the time to recover.
        """
        return first_moment_all_from(label, self._history.responses_since(since))

    def wait_until_all_from(self, label: str, since: float, *, timeout_seconds: float) -> float:
        """
        Wait until `first_moment_all_from` has an answer, and return it.

        Raises:
            TrafficNotConverged: it had none within `timeout_seconds` from now; says who answered last.
        """
        deadline = time.monotonic() + timeout_seconds
        while (moment := self.first_moment_all_from(label, since)) is None:
            if time.monotonic() >= deadline:
                seen = [response.failure or response.served_by or "no stamp" for response in self.snapshot(50).recent]
                counts = ", ".join(f"{name}: {seen.count(name)}" for name in sorted(set(seen))) or "none"
                raise TrafficNotConverged(f"not all answers come from {label} after {timeout_seconds:g} s; the last 50 responses: {counts}")
            time.sleep(POLL_SECONDS)
        return moment

    async def _replay(self) -> None:
        """Send each request when it is due, whatever became of the ones before."""
        timeout = aiohttp.ClientTimeout(total=USER_DEADLINE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0), headers=_JSON) as session:
            under_way: set[asyncio.Task[None]] = set()
            started_at = time.monotonic()
            for number, (body, headers) in enumerate(itertools.cycle(self._requests)):
                due_at = started_at + number / self._requests_per_second
                await asyncio.sleep(max(0.0, due_at - time.monotonic()))
                if self._stopping.is_set():
                    break
                task = asyncio.create_task(self._send(session, body, headers, due_at))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)

    async def _send(self, session: aiohttp.ClientSession, body: bytes, headers: Mapping[str, str], due_at: float) -> None:
        """Send one request and record how it ended."""
        self._history.record_sent()
        stamps: Mapping[str, str] = {}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                stamps = answer.headers
                failure = judge_answer(answer.status, await answer.read())
        except Exception as error:  # noqa: BLE001 - whatever it was, this user has no answer: it is counted, never lost
            failure = type(error).__name__
        received_at = time.monotonic()
        latency_ms = (received_at - due_at) * 1000
        served_by, arm = stamps.get(SERVED_BY_HEADER, ""), stamps.get(ARM_HEADER, "")
        self._history.record(Response(received_at, latency_ms, served_by, arm, failure))


def judge_answer(status_code: int, body: bytes) -> str:
    """Why this is no usable answer, or "" when it is a 200 with exactly one finite prediction."""
    if status_code != 200:
        return f"status {status_code}"
    try:
        predictions = json.loads(body)["predictions"]
    except (ValueError, KeyError, TypeError):
        return "no predictions"
    if not isinstance(predictions, list) or len(predictions) != 1:
        return "not one prediction"
    prediction = predictions[0]
    is_number = isinstance(prediction, int | float) and not isinstance(prediction, bool)
    return "" if is_number and math.isfinite(prediction) else "no finite prediction"


def _body(columns: list[str], row: list[float]) -> bytes:
    return json.dumps({"dataframe_split": {"columns": columns, "data": [row]}}, allow_nan=False).encode()
