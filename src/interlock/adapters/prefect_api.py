"""Starts Prefect deployments and looks after their runs, over REST: the prefect package is not imported, the core does not know it."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from interlock.adapters.http_service import HttpService
from interlock.ports import FlowRun

UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]  # the states that hold a concurrency slot


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

    def read_by_key(self, keys: Sequence[str]) -> Mapping[str, FlowRun]:
        """The runs that were asked for with these keys, by key."""
        found = self._service.post("/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": list(keys)}}})
        return {run.idempotency_key: run for run in map(_flow_run, found)}

    def read_under_way(self, deployment: str) -> Sequence[FlowRun]:
        """Runs of `flow/deployment` that are pending, running or being cancelled."""
        flow, name = deployment.split("/")
        chosen = {"flow_runs": {"state": {"type": {"any_": UNDER_WAY}}}, "flows": {"name": {"any_": [flow]}}}
        found = self._service.post("/flow_runs/filter", {**chosen, "deployments": {"name": {"any_": [name]}}})
        return [_flow_run(run) for run in found]

    def end(self, run_id: str, *, state_type: str, state_name: str, message: str) -> None:
        """Set a final state past Prefect's rules, which would wait for the run's own process; its concurrency slot comes free."""
        state = {"type": state_type, "name": state_name, "message": message}
        self._service.post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def read_state(self, run_id: str) -> tuple[str, str]:
        """State name and message of a run."""
        state = self._service.get(f"/flow_runs/{run_id}").get("state") or {}
        return str(state.get("name", "Unknown")), str(state.get("message") or "")


def _flow_run(body: Mapping[str, Any]) -> FlowRun:
    pid = str(body.get("infrastructure_pid") or "")
    state = body.get("state") or {}
    return FlowRun(
        run_id=str(body["id"]),
        idempotency_key=str(body.get("idempotency_key") or ""),
        state_type=str(state.get("type", "")),
        state_name=str(state.get("name", "")),
        pid=int(pid) if pid.isdecimal() else None,
        message=str(state.get("message") or ""),
    )
