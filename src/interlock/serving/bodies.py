"""
Reads request bodies into bounded memory: a limit for one body, and a budget for all that are held at the same time.

MLflow's server has neither, and one client can then take all memory of the machine, the incumbent's with it.
"""

from typing import Any

# 16 MiB: 100,000 rows of 20 numbers as JSON.
MAX_BODY_BYTES = 16 * 1024 * 1024
# A client that sends too much is heard out, so that it reads the 413 and not a reset connection; beyond four times the limit it is cut off.
MAX_DRAINED_BYTES = 4 * MAX_BODY_BYTES
# Small requests may queue by the hundred thousand; sixteen of the largest fill the budget, and the next is told to come again.
MAX_HELD_BYTES = 256 * 1024 * 1024


class BodyRefused(Exception):
    """The body was not taken; carries the status and MLflow's kind of error code and message."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(status, error_code, message)
        self.status = status
        self.error_code = error_code
        self.message = message


def _too_large() -> BodyRefused:
    return BodyRefused(413, "BAD_REQUEST", f"The request body exceeds {MAX_BODY_BYTES} bytes. Send fewer rows at once.")


def _too_many() -> BodyRefused:
    return BodyRefused(503, "TEMPORARILY_UNAVAILABLE", "Too many large requests at once. Send it again, or send fewer rows at once.")


class BodyBudget:
    """The bytes of all bodies that are being read or answered. Event loop only."""

    def __init__(self, *, held_limit_bytes: int = MAX_HELD_BYTES) -> None:
        self._held_limit_bytes = held_limit_bytes
        self.held_bytes = 0

    async def read(self, protocol: Any, length: int | None) -> bytes:
        """
        The whole body, which counts until `release`. `length` is the announced one, None if the body comes in chunks.

        Raises:
            BodyRefused: it is larger than the limit, or the budget is spent.
        """
        if length is None:
            return await self._read_chunks(protocol)
        if length > MAX_BODY_BYTES:
            await _drain(protocol)
            raise _too_large()
        if not self._take(length):
            await _drain(protocol)
            raise _too_many()
        try:
            return bytes(await protocol())  # the HTTP layer reads no more than was announced
        except BaseException:
            self.release(length)
            raise

    def release(self, size: int) -> None:
        """The body was answered."""
        self.held_bytes -= size

    async def _read_chunks(self, protocol: Any) -> bytes:
        body, refused, seen = bytearray(), None, 0
        try:
            async for chunk in protocol:
                seen += len(chunk)
                if refused is None:
                    refused = _too_large() if seen > MAX_BODY_BYTES else None if self._take(len(chunk)) else _too_many()
                if refused is None:
                    body += chunk
                elif seen > MAX_DRAINED_BYTES:
                    break
            if refused is not None:
                raise refused
        except BaseException:
            self.release(len(body))
            raise
        return bytes(body)

    def _take(self, size: int) -> bool:
        if self.held_bytes + size > self._held_limit_bytes:
            return False
        self.held_bytes += size
        return True


async def _drain(protocol: Any) -> None:
    seen = 0
    async for chunk in protocol:
        seen += len(chunk)
        if seen > MAX_DRAINED_BYTES:
            return
