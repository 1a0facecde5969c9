"""Single requests to one model server on this machine, by the MLflow scoring protocol."""

import json
from types import TracebackType
from typing import Self

import httpx

from interlock.errors import ServiceRefused, ServiceUnavailable

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_CONNECTIONS = 64  # the latency gate keeps at most 32 requests in flight to one server


class ScoringClient:
    """Sends payloads to http://127.0.0.1:PORT/invocations on kept connections. Safe to share between threads; close it."""

    def __init__(self, port: int, *, timeout_seconds: float) -> None:
        self._port = port
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            headers={"content-type": "application/json"},
            trust_env=False,  # a proxy of the environment has no business between two processes of one machine
        )

    def send(self, payload: bytes) -> None:
        """Return when the payload was answered with predictions; raises as `ask` does."""
        self.ask(payload)

    def ask(self, payload: bytes) -> str:
        """
        The body of the answer, once the payload was answered with predictions.

        Raises:
            ServiceUnavailable: no answer in time, or a status that may heal.
            ServiceRefused: another status than 200, or 200 without predictions (an error page is no answer, nor is what is not UTF-8).
        """
        try:
            response = self._client.post("/invocations", content=payload)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"the model server on port {self._port} does not answer ({type(error).__name__})") from error
        if response.status_code in TRANSIENT_STATUS:
            raise ServiceUnavailable(f"the model server on port {self._port} answered {response.status_code}")
        if response.status_code != httpx.codes.OK:
            raise ServiceRefused(f"the model server on port {self._port} answered {response.status_code} to a prediction request")
        if (text := _answer(response)) is None:
            raise ServiceRefused(f"the model server on port {self._port} answered 200 without predictions")
        return text

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _answer(response: httpx.Response) -> str | None:
    """The body as text; None when it is not UTF-8 or holds no predictions. 0, false and an empty text are predictions."""
    try:
        text = response.content.decode()  # `response.text` would write one sign for all bytes that it cannot read
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text if isinstance(body, dict) and body.get("predictions") not in (None, []) else None
