"""Envoy's admin interface: ask for a traffic split, and read back what Envoy really does."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from interlock.errors import ServiceRefused, ServiceUnavailable
from interlock.model.plane import ALL_TRAFFIC_BPS, CaptureCounts
from interlock.plane.envoy_settings import (
    COLLECTOR,
    ENDPOINT_CLUSTERS,
    INPUT_KEY,
    LIVE,
    MIRROR_CLUSTERS,
    MIRROR_KEY,
    PREDICTIONS_ROUTE,
    QUIET_KEY,
    WEIGHT_KEY,
)

# Every call is to the same machine; an admin thread that does not answer in a second is stuck, and a rollback must not wait for it.
_TIMEOUT_SECONDS = 1.0
_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


@dataclass(frozen=True, slots=True)
class EnvoySplit:
    """The runtime keys as Envoy has them. Quiet overrules the others: everything straight to the incumbent, nothing captured."""

    candidate_weight_bps: int
    is_mirroring: bool
    is_quiet: bool


@dataclass(frozen=True, slots=True)
class ObservedEndpoint:
    """One endpoint that Envoy has taken over. `is_healthy` is False while it is ejected."""

    host: str
    port: int
    label: str
    priority: int
    is_healthy: bool


class EnvoyAdmin:
    """
    A synchronous client of one Envoy's admin port.

    Every method raises ServiceUnavailable when Envoy cannot be reached or does not answer in time, and ServiceRefused when it
    answers, but not as wanted.
    """

    def __init__(self, base_url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._client = httpx.Client(base_url=base_url, timeout=timeout_seconds, trust_env=False)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def set_split(self, weight_bps: int, *, mirror: bool, quiet: bool) -> None:
        """
        Ask for weight, mirror and quiet in one step; each worker takes all three over between two requests. Idempotent.

        While it is quiet the share of kept inputs is the configuration's own; else it is 0, and the captured legs bring the inputs.
        Mirroring is all or nothing: Envoy draws a mirrored share from the number that also chose the arm, so the mirrored part
        of one arm's requests would be no random sample.
        """
        if not 0 <= weight_bps <= ALL_TRAFFIC_BPS:
            raise ServiceRefused(f"candidate weight {weight_bps} bps asked, must be 0 to {ALL_TRAFFIC_BPS}")
        shares = {WEIGHT_KEY: weight_bps, MIRROR_KEY: ALL_TRAFFIC_BPS * mirror, QUIET_KEY: ALL_TRAFFIC_BPS * quiet}
        inputs = {INPUT_KEY: "" if quiet else _fraction(0)}  # an empty value takes the key away
        self._call("POST", "/runtime_modify", {key: _fraction(bps) for key, bps in shares.items()} | inputs)

    def observe_split(self) -> EnvoySplit:
        """The split in force, read back; where nobody asked for anything, the defaults of the configuration."""
        entries = self._json("/runtime", {}).get("entries", {})
        weight, mirror, quiet = (
            _share_bps(key, entries.get(key, {}).get("final_value"), default)
            for key, default in ((WEIGHT_KEY, 0), (MIRROR_KEY, 0), (QUIET_KEY, ALL_TRAFFIC_BPS))
        )
        return EnvoySplit(weight, is_mirroring=mirror > 0, is_quiet=quiet > 0)

    def capture_counts(self) -> CaptureCounts:
        """What was mirrored and captured, and what was given up, since Envoy started."""
        clusters = "|".join((*MIRROR_CLUSTERS, COLLECTOR))
        found = self._json("/stats", {"format": "json", "filter": rf"^cluster\.({clusters})\.upstream_|\.{PREDICTIONS_ROUTE}\."})
        stats = {stat["name"]: int(stat["value"]) for stat in found["stats"] if "value" in stat}
        return CaptureCounts(
            mirrors_dropped_count=sum(
                stats.get(f"cluster.{name}.upstream_{what}", 0)
                for name in MIRROR_CLUSTERS
                for what in ("rq_pending_overflow", "rq_timeout")
            ),
            captures_dropped_count=stats.get(f"cluster.{COLLECTOR}.upstream_rq_completed", 0)
            - stats.get(f"cluster.{COLLECTOR}.upstream_rq_2xx", 0),
            live_requests_count=stats.get(f"vhost.{LIVE}.route.{PREDICTIONS_ROUTE}.upstream_rq_completed", 0),
        )

    def observed_endpoints(self) -> dict[str, tuple[ObservedEndpoint, ...]]:
        """The endpoints Envoy uses now, by cluster: the proof that an endpoint file was taken over."""
        statuses = self._json("/clusters", {"format": "json"})["cluster_statuses"]
        hosts = {status["name"]: status.get("host_statuses", []) for status in statuses}
        return {name: tuple(_observed(host) for host in hosts.get(name, [])) for name in ENDPOINT_CLUSTERS}

    def ready(self) -> bool:
        """Whether Envoy has started completely and takes requests."""
        try:
            return self._client.get("/ready").status_code == httpx.codes.OK
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"Envoy's admin at {self._client.base_url} does not answer ({error!r})") from error

    def _json(self, path: str, query: dict[str, str]) -> Any:
        response = self._call("GET", path, query)
        try:
            return response.json()
        except ValueError as error:
            raise ServiceRefused(f"Envoy's admin answered GET {path} with something that is not JSON") from error

    def _call(self, method: str, path: str, query: dict[str, str]) -> httpx.Response:
        try:
            response = self._client.request(method, path, params=query)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"Envoy's admin at {self._client.base_url} does not answer {method} {path} ({error!r})") from error
        if response.status_code != httpx.codes.OK:
            raise ServiceRefused(f"Envoy's admin answered {method} {path} with {response.status_code}: {response.text[:200]}")
        return response


def _fraction(bps: int) -> str:
    """A share as Envoy reads it. A bare number would be taken for percent; a blank in it would make Envoy ignore the value."""
    return json.dumps({"numerator": bps, "denominator": "TEN_THOUSAND"}, separators=(",", ":"))


def _share_bps(key: str, value: str | None, default_bps: int) -> int:
    if not value:
        return default_bps
    try:
        fraction = json.loads(value)
        return int(fraction["numerator"]) * ALL_TRAFFIC_BPS // _DENOMINATORS[fraction["denominator"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceRefused(f"Envoy's runtime key {key} is {value!r}, which Interlock did not set; set the split again") from error


def _observed(host: dict[str, Any]) -> ObservedEndpoint:
    address = host["address"]["socket_address"]
    health = host.get("health_status", {})
    is_ejected = bool(health.get("failed_outlier_check")) or bool(health.get("failed_active_health_check"))
    return ObservedEndpoint(
        address["address"], address["port_value"], host.get("hostname", ""), int(host.get("priority", 0)), is_healthy=not is_ejected
    )
