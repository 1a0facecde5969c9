"""
What the fuse asks of Envoy's admin: the split, the safe split, and what the candidate has answered. Standard library only.

Whatever Envoy answers, every call ends within half a second, with what was asked or with an exception.
"""

import http.client
import io
import json
import math
import socket
import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode

from interlock.plane.fuse_limits import Bins, Counts

ADMIN_TIMEOUT_SECONDS = 0.5  # to the same machine; an admin that needs longer is stuck, and asked again
_ANSWER_LIMIT_BYTES = 4 * 2**20  # statistics are 10 KiB

# The split that is always safe, as `envoy_settings` and `envoy_admin` have it; a test holds the two together.
SAFE_RUNTIME = {"interlock.candidate_weight": 0, "interlock.mirror": 0, "interlock.quiet": 10_000}

LIVE, COPIES, USERS = "cluster.candidate", "cluster.candidate_only", "vhost.live.route.predictions"
_STATS = {
    "format": "json",
    "histogram_buckets": "detailed",
    "filter": r"^(cluster\.candidate(_only)?|vhost\.live\.route\.predictions)\.upstream_rq_(completed|[345]xx|timeout|total|time)$",
}


def is_safe(split: Mapping[str, int | None]) -> bool:
    """Whether Envoy sends everything to the incumbent and copies nothing. A key that nobody set has its safe default."""
    return all(split.get(key) in (None, safe) for key, safe in SAFE_RUNTIME.items())


def make_safe(admin_port: int) -> None:
    """
    Ask for the safe split and read it back.

    Raises:
        ValueError: Envoy still has another one.
        OSError, HTTPException: it did not answer.
    """
    asked = {key: f'{{"numerator":{bps},"denominator":"TEN_THOUSAND"}}' for key, bps in SAFE_RUNTIME.items()}
    call(admin_port, "POST", f"/runtime_modify?{urlencode(asked)}")
    if not is_safe(found := read_split(admin_port)):
        raise ValueError(f"asked for the incumbent, found {found}")


def read_split(admin_port: int) -> dict[str, int | None]:
    """The split's runtime keys in basis points; None where nobody has set one."""
    entries = json.loads(call(admin_port, "GET", "/runtime")).get("entries", {})
    values = {key: entries.get(key, {}).get("final_value") for key in SAFE_RUNTIME}
    return {key: _basis_points(value) if value else None for key, value in values.items()}


def read_counts(admin_port: int) -> Counts:
    """
    What candidate and users were answered since Envoy started.

    Envoy makes most counters when they are needed first, so one that is not there is 0; but where even those are missing that it always
    has, nothing was read: ValueError.
    """
    found = json.loads(call(admin_port, "GET", f"/stats?{urlencode(_STATS)}"))["stats"]
    stats = {item["name"]: _count(item["value"]) for item in found if "value" in item}
    if missing := {f"{LIVE}.upstream_rq_total", f"{COPIES}.upstream_rq_total"} - stats.keys():
        raise ValueError(f"Envoy's statistics have no {', '.join(sorted(missing))}")
    bins = {item["name"]: _bins(item["totals"]) for part in found if "histograms" in part for item in part["histograms"]["details"]}
    server, own_count = _own_answers(json.loads(call(admin_port, "GET", "/clusters?format=json")))

    def number(prefix: str, *names: str) -> int:
        return sum(stats.get(f"{prefix}.upstream_rq_{name}", 0) for name in names)

    return Counts(
        server=server,
        live_count=number(LIVE, "completed"),
        live_bad_count=number(LIVE, "4xx", "5xx"),
        live_own_count=own_count,
        copies_count=number(COPIES, "completed"),
        copies_bad_count=number(COPIES, "3xx", "4xx", "5xx"),
        copies_late_count=number(COPIES, "timeout"),
        users_count=number(USERS, "completed"),
        users_bad_count=number(USERS, "3xx", "4xx", "5xx"),
        live_times=bins.get(f"{LIVE}.upstream_rq_time", {}),
        copies_times=bins.get(f"{COPIES}.upstream_rq_time", {}),
    )


def call(admin_port: int, method: str, path: str) -> bytes:
    """
    The body of Envoy's answer.

    Raises:
        ValueError: it was not 200, or longer than 4 MiB.
        OSError, HTTPException: it did not come, or not completely, within half a second in all: a time-out for each byte would let one that
            drips hold the fuse for ever.
    """
    deadline = time.monotonic() + ADMIN_TIMEOUT_SECONDS
    with socket.create_connection(("127.0.0.1", admin_port), timeout=ADMIN_TIMEOUT_SECONDS) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: fuse\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        answer = bytearray()
        while part := _receive(connection, deadline):
            answer += part
            if len(answer) > _ANSWER_LIMIT_BYTES:
                raise ValueError(f"{method} {_path(path)} was answered with more than {_ANSWER_LIMIT_BYTES} bytes")
    if b"\r\n\r\n" not in answer:
        raise ValueError(
            f"{method} {_path(path)} was answered with {len(answer)} bytes that are no answer"
        )  # http.client takes half a head for one
    response = http.client.HTTPResponse(cast(socket.socket, _Received(bytes(answer))), method=method)
    response.begin()
    body = response.read()
    if response.status != http.client.OK:
        raise ValueError(f"{method} {_path(path)} was answered with {response.status}")
    return body


class _Received:
    """An answer that has come already, as `http.client` reads it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)


def _receive(connection: socket.socket, deadline: float) -> bytes:
    if (left_seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError(f"no complete answer within {ADMIN_TIMEOUT_SECONDS:g} s")
    connection.settimeout(left_seconds)
    return connection.recv(64 * 1024)


def _path(path: str) -> str:
    return path.partition("?")[0]


def _own_answers(clusters: Any) -> tuple[str, int]:
    """
    The candidate's address, and how many live requests it answered itself; an empty address when it has no place in Envoy.

    The cluster's counters cannot tell: they also have the incumbent's answers, which it gave as rescue or while the candidate was ejected.
    """
    for status in clusters["cluster_statuses"]:
        if f"cluster.{status['name']}" == LIVE:
            for host in status.get("host_statuses", []):
                if host.get("priority", 0) == 0:
                    address = host["address"]["socket_address"]
                    own_count = next(stat.get("value", 0) for stat in host["stats"] if stat["name"] == "rq_success")
                    return f"{address['address']}:{address['port_value']}", _count(own_count)
    return "", 0


def _count(value: Any) -> int:
    """A counter as Envoy writes it: a number, or in /clusters a number in quotes. NaN, a fraction or anything else is a ValueError."""
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"{value!r} is no count")
    return number


def _bins(totals: Any) -> Bins:
    bins = {float(item["lower_bound"]): _count(item["count"]) for item in totals}
    if not all(math.isfinite(lower_ms) for lower_ms in bins):
        raise ValueError("a histogram has a bound that is no number")
    return bins


def _basis_points(value: str) -> int:
    """Anything but a share as we write it is -1, which is not safe."""
    try:
        fraction = json.loads(value)
        return int(fraction["numerator"]) if fraction["denominator"] == "TEN_THOUSAND" else -1
    except (ValueError, TypeError, LookupError):
        return -1
