"""Runs asked for over REST against a real Prefect server: the same key is the same run."""

import httpx
import pytest

from interlock.adapters.prefect_api import PrefectApi
from interlock.errors import ServiceRefused, ServiceUnavailable


@pytest.fixture
def deployment(prefect_url: str) -> str:
    flow = httpx.post(f"{prefect_url}/flows/", json={"name": "release"}, timeout=60).json()
    body = {"name": "release", "flow_id": flow["id"], "entrypoint": "flows.release.release"}
    httpx.post(f"{prefect_url}/deployments/", json=body, timeout=60).raise_for_status()
    return "release/release"


def test_the_same_key_gives_the_same_run(prefect_url: str, deployment: str) -> None:
    api = PrefectApi(prefect_url, timeout_seconds=60)
    parameters = {"model_name": "late", "version": "2", "profile_name": "short"}
    first = api.submit(deployment, parameters, idempotency_key="late:2:sha256:a")
    assert api.submit(deployment, parameters, idempotency_key="late:2:sha256:a") == first
    assert api.submit(deployment, parameters, idempotency_key="late:2:sha256:b") != first
    assert api.read_state(first) == ("Scheduled", "")
    run = httpx.get(f"{prefect_url}/flow_runs/{first}", timeout=60).json()
    assert run["parameters"] == parameters


def test_what_is_not_deployed_is_refused_and_a_server_that_is_down_is_unavailable(prefect_url: str) -> None:
    with pytest.raises(ServiceRefused, match="404"):
        PrefectApi(prefect_url, timeout_seconds=60).submit("release/unknown", {}, idempotency_key="x")
    with pytest.raises(ServiceUnavailable):
        PrefectApi("http://127.0.0.1:1/api").submit("release/release", {}, idempotency_key="x")
