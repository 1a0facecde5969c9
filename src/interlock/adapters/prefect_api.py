"""Starts Prefect deployments over Prefect's REST API. The prefect package is not imported: the core does not know it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from interlock.adapters.http_service import HttpService


class PrefectApi:
    """Flow runs of our Prefect deployments."""

    def __init__(self, api_url: str, *, timeout_seconds: float = 10.0) -> None:
        self._service = HttpService("the Prefect server", api_url, timeout_seconds=timeout_seconds)

    def submit(self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str) -> str:
        """Ask for a run of `flow/deployment`; the same key gives the same run. Returns the run's id."""
        flow, name = deployment.split("/")
        found = self._service.get(f"/deployments/name/{quote(flow)}/{quote(name)}")
        body = {"parameters": dict(parameters), "idempotency_key": idempotency_key, "state": {"type": "SCHEDULED", "state_details": {}}}
        return str(self._service.post(f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def read_state(self, run_id: str) -> tuple[str, str]:
        """State name and message of a run."""
        state = self._service.get(f"/flow_runs/{run_id}").get("state") or {}
        return str(state.get("name", "Unknown")), str(state.get("message") or "")
