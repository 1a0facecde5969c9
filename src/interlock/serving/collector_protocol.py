"""
The collector's HTTP face. Its clients are few and known: Envoy, Prometheus, and the live page, all on loopback.

Spoken by hand because two messages arrive for every request of a user: side by side, a leg cost 112 us of CPU with uvicorn
and 82 us this way.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

_MOST_HEAD_BYTES = 64 * 1024
_MOST_BODY_BYTES = 16 * 1024 * 1024
_REASONS = {200: b"OK", 204: b"No Content", 400: b"Bad Request", 404: b"Not Found", 503: b"Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `leg`, `segment` and `key` are the headers that describe a captured leg, empty in other requests."""

    method: bytes
    path: bytes
    leg: bytes
    body: bytes
    segment: bytes = b""
    key: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back."""

    status: int
    body: bytes = b""
    content_type: bytes = b"text/plain"


class CollectorProtocol(asyncio.Protocol):
    """
    One kept connection. Reads requests with a Content-Length (or none) and answers in order.

    Whatever it does not understand ends the connection; that is the whole error handling a loopback service needs.
    """

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._answer = answer
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete now."""
        assert self._transport is not None
        self._received += data
        try:
            while (request := self._take_request()) is not None:
                self._transport.write(_encode(self._answer(request)))
        except ValueError:
            self._transport.close()

    def _take_request(self) -> Request | None:
        """The first complete request, removed from what was received; None until there is one. Raises ValueError on nonsense."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > _MOST_HEAD_BYTES:
                raise ValueError("no end of the headers")
            return None
        first, *lines = bytes(self._received[:end]).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        length = int(headers.get(b"content-length", b"0"))
        if not 0 <= length <= _MOST_BODY_BYTES or b"transfer-encoding" in headers:
            raise ValueError("a body without a usable length")
        whole = end + 4 + length
        if len(self._received) < whole:
            return None
        method, target, _ = first.split(b" ")
        body = bytes(self._received[end + 4 : whole])
        del self._received[:whole]
        return Request(
            method,
            target.partition(b"?")[0],
            headers.get(b"x-leg", b""),
            body,
            headers.get(b"x-leg-segment", b""),
            headers.get(b"x-leg-key", b""),
        )


def _encode(answer: Answer) -> bytes:
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, _REASONS[answer.status])
    if answer.status == 204:
        return head + b"\r\n"
    return head + b"content-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (answer.content_type, len(answer.body), answer.body)
