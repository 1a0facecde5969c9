"""What Envoy's capture filter posts for each leg (plane/capture.lua), read into a `Leg`."""

import hashlib
import zlib

from interlock.model.journal import Arm, Leg, Role

_MOST_BYTES = 1024 * 1024  # of an unpacked answer: a few bytes of gzip can hold gigabytes
_MOST_SEGMENT_BYTES = 64
_ARMS = {arm.value.encode(): arm for arm in Arm}
_ROLES = {role.value.encode(): role for role in Role}


class Malformed(Exception):
    """Not a message of our capture filter."""


def parse_leg(line: bytes, bodies: bytes, *, received_at_seconds: float, segment: bytes = b"", key: bytes = b"") -> Leg:
    """
    The leg that a header line and the two joined bodies describe.

    The line has nine fields, separated by one space: request id, arm, role, status, latency in us, length of the request body, length
    of the response body, content encoding of the response, served by (the rest of the line; - = nobody). A number of -1 = not there.
    A segment over 64 bytes or not UTF-8 is none; of the key only a digest is kept, since it may name a person.
    Without a request body (it was over the capture limit) the digest is empty and the prediction None: nothing could be compared with it.
    """
    try:
        request_id, arm, role, status, latency, asked_size, answered_size, encoding, served_by = line.split(b" ", 8)
        asked = bodies[: max(int(asked_size), 0)] if int(asked_size) >= 0 else None
        answered = bodies[len(asked or b"") :] if int(answered_size) >= 0 else None
        if max(int(asked_size), 0) + max(int(answered_size), 0) != len(bodies):
            raise Malformed(f"{len(bodies)} bytes of bodies, announced {asked_size!r} + {answered_size!r}")
        return Leg(
            request_id=request_id.decode(),
            arm=_ARMS[arm],
            role=_ROLES[role],
            received_at_seconds=received_at_seconds,
            status_code=int(status),
            latency_ms=float(latency) / 1000 if float(latency) >= 0 else None,
            input_digest=hashlib.sha256(asked).hexdigest()[:16] if asked is not None else "",
            prediction=_text(answered, encoding) if asked is not None and answered is not None else None,
            served_by="" if served_by == b"-" else served_by.decode(),
            segment=_segment(segment),
            key=hashlib.sha256(key).hexdigest()[:16] if key else "",
        )
    except (ValueError, KeyError) as error:
        raise Malformed(str(error)) from error


def _segment(name: bytes) -> str:
    try:
        return name.decode() if len(name) <= _MOST_SEGMENT_BYTES else ""
    except UnicodeDecodeError:
        return ""


def _text(body: bytes, encoding: bytes) -> str | None:
    """An answer as text; None when it is not UTF-8 (no two such answers are alike), cannot be unpacked, or is too large unpacked."""
    if encoding == b"gzip":
        unpack = zlib.decompressobj(wbits=31)
        try:
            body = unpack.decompress(body, _MOST_BYTES)
        except zlib.error:
            return None
        if not unpack.eof:
            return None
    elif encoding != b"identity":
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
