"""The traffic plane of one machine, spoken to through its control API and probed through its live listener."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import httpx

import interlock.errors
from interlock.adapters.http_service import HttpService
from interlock.errors import ReleaseError, ServiceRefused
from interlock.model.plane import CandidateLimits, CaptureCounts, LiveTraffic, PlaneState, ServerState
from interlock.model.release import ModelVersion


class _ControlApi(HttpService):
    def refusal(self, response: httpx.Response, call: str) -> Exception:
        """The very exception the plane raised, by its class name."""
        try:
            body = response.json()
            kind = getattr(interlock.errors, str(body["error"]), ServiceRefused)
            return kind(str(body["message"])) if issubclass(kind, ReleaseError) else ServiceRefused(str(body["message"]))
        except (ValueError, KeyError, TypeError):
            return super().refusal(response, call)


class PlaneClient:
    """Fulfils the Traffic port against `interlock up`."""

    def __init__(self, *, page_url: str, live_url: str, token: str, timeout_seconds: float = 10.0) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self._api = _ControlApi("the traffic plane", page_url, timeout_seconds=timeout_seconds, headers=headers)
        self._live_url = live_url

    def observe(self) -> PlaneState:
        """What the plane does now."""
        body = self._api.get("/api/state")
        return PlaneState(**{**body, **{name: _server(body[name]) for name in ("incumbent", "spare", "candidate")}})

    def adopt(self, version: ModelVersion, *, server: str, thread_count: int) -> PlaneState:
        """Make this version the first incumbent."""
        self._api.post("/api/adopt", {"version": asdict(version), "server": server, "thread_count": thread_count})
        return self.observe()

    def begin(self, release_id: str, *, lease_seconds: float, above: int = 0) -> int:
        """Reserve the plane; returns the token."""
        body = {"release_id": release_id, "lease_seconds": lease_seconds, "above": above}
        return int(self._api.post("/api/begin", body)["token"])

    def load_candidate(self, version: ModelVersion, *, server: str, thread_count: int, limits: CandidateLimits, token: int) -> None:
        """Start the candidate's server within its limits."""
        serving = {"server": server, "thread_count": thread_count, "limits": asdict(limits)}
        self._api.post("/api/load", {"version": asdict(version), **serving, "token": token})

    def candidate_failure(self) -> str | None:
        """Why the candidate's server ended by itself; None while it runs."""
        failure = self._api.get("/api/candidate-failure")["failure"]
        return None if failure is None else str(failure)

    def set_mirroring(self, *, enabled: bool, token: int) -> None:
        """Mirror and capture both directions, or stop."""
        self._api.post("/api/mirroring", {"enabled": enabled, "token": token})

    def set_weight(self, weight_bps: int, *, lease_seconds: float, token: int) -> None:
        """Ask for a leased candidate share."""
        self._api.post("/api/weight", {"weight_bps": weight_bps, "lease_seconds": lease_seconds, "token": token})

    def renew(self, *, lease_seconds: float, token: int) -> None:
        """Hold the plane for another `lease_seconds`."""
        self._api.post("/api/renew", {"lease_seconds": lease_seconds, "token": token})

    def promote(self, *, token: int) -> None:
        """Make the candidate the incumbent."""
        self._api.post("/api/promote", {"token": token})

    def restore_incumbent(self, *, reason: str, token: int | None = None) -> None:
        """All traffic to the incumbent."""
        self._api.post("/api/restore", {"reason": reason, "token": token})

    def end(self, *, token: int | None) -> None:
        """Stop the candidate's server and free the plane."""
        self._api.post("/api/end", {"token": token})

    def probe(self, count: int) -> Mapping[str, int]:
        """Who answers `count` requests on the live listener; "" counts requests without an answer from a model server."""
        served: Counter[str] = Counter()
        with httpx.Client(base_url=self._live_url, timeout=2.0, trust_env=False) as client:
            for _ in range(count):
                try:
                    response = client.get("/ping")
                    served[response.headers.get("x-interlock-served-by", "") if response.status_code == 200 else ""] += 1
                except httpx.HTTPError:
                    served[""] += 1
        return served

    def capture_counts(self) -> CaptureCounts:
        """What mirroring and capture have dropped so far, and the live traffic of the last hour."""
        body = self._api.get("/api/capture-counts")
        return CaptureCounts(**{**body, "last_hour": LiveTraffic(**body["last_hour"])})


def _server(body: Mapping[str, Any] | None) -> ServerState | None:
    return None if body is None else ServerState(**{**body, "version": ModelVersion(**body["version"])})
