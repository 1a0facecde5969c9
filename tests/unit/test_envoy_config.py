"""What Envoy's configuration says, read as data; what it does is in tests/contract/test_envoy_plane.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from interlock.errors import ServiceRefused, ServiceUnavailable, StateError
from interlock.model.plane import CaptureCounts
from interlock.plane.endpoints import Endpoint, write_arms, write_endpoints
from interlock.plane.envoy_admin import EnvoyAdmin, EnvoySplit
from interlock.plane.envoy_config import (
    build_bootstrap,
    build_clusters,
    build_listeners,
    envoy_command,
    write_configuration,
)
from interlock.plane.envoy_settings import ENDPOINT_CLUSTERS, EnvoySettings

SETTINGS = EnvoySettings(live_port=8080, admin_port=8081, collector_port=8082, endpoints_directory=Path("/state dir/endpoints"))


def manager(listener: str) -> dict[str, Any]:
    found = next(at for at in build_listeners(SETTINGS) if at["name"] == listener)
    config: dict[str, Any] = found["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def routes(listener: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manager(listener)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def clusters() -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in build_clusters(SETTINGS)}


def test_the_configuration_is_json_and_always_the_same() -> None:
    parts = (build_bootstrap, build_listeners, build_clusters)
    assert [json.dumps(build(SETTINGS)) for build in parts] == [json.dumps(build(SETTINGS)) for build in parts]


def written(settings: EnvoySettings) -> dict[str, Any]:
    write_configuration(settings)
    return {path.name: json.loads(path.read_text()) for path in settings.endpoints_directory.iterdir()}


def test_the_bootstrap_holds_only_what_envoy_cannot_change_while_it_runs(tmp_path: Path) -> None:
    settings = replace(SETTINGS, endpoints_directory=tmp_path)
    files = written(settings)
    assert sorted(files) == ["bootstrap.json", "cds.json", "lds.json"]
    assert files["bootstrap.json"] == build_bootstrap(settings)
    assert "static_resources" not in files["bootstrap.json"]
    watched = {key: at["path_config_source"]["path"] for key, at in files["bootstrap.json"]["dynamic_resources"].items()}
    assert watched == {"lds_config": str(tmp_path / "lds.json"), "cds_config": str(tmp_path / "cds.json")}
    named = {name: [at["name"] for at in files[name]["resources"]] for name in ("lds.json", "cds.json")}
    assert named["lds.json"] == ["live", "candidate_only", "incumbent_only"]
    assert set(ENDPOINT_CLUSTERS) < set(named["cds.json"])
    for path in tmp_path.iterdir():
        path.unlink()
    assert written(replace(settings, request_timeout_seconds=20.0))["lds.json"]["version_info"] != files["lds.json"]["version_info"]


def test_only_what_differs_is_written_again(tmp_path: Path) -> None:
    settings = replace(SETTINGS, endpoints_directory=tmp_path)
    write_configuration(settings)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    write_configuration(replace(settings, request_timeout_seconds=20.0))
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_ino != before[path.name]} == {"lds.json"}
    (tmp_path / "lds.json").write_text("half of a fi")
    assert written(settings)["lds.json"]["resources"]


def test_by_default_every_request_takes_the_quiet_route_to_the_incumbent() -> None:
    ready, inputs, *quiet = routes("live")[:4]
    assert (ready["match"], ready["direct_response"]) == ({"path": "/.interlock/ready"}, {"status": 200})
    for route in quiet:
        assert route["match"]["runtime_fraction"]["default_value"] == {"numerator": 10_000, "denominator": "TEN_THOUSAND"}
        assert route["route"]["cluster"] == "incumbent"
        assert "request_mirror_policies" not in route["route"]
    assert [route["match"].get("prefix") for route in quiet] == [None, "/"], "predictions first, so that they are counted; then the rest"
    assert (inputs["route"]["cluster"], inputs["match"]["path"]) == ("incumbent", "/invocations")
    others = [route["match"]["runtime_fraction"] for route in routes("live")[4:] if "runtime_fraction" in route["match"]]
    assert {at["default_value"]["numerator"] for at in others} == {0}


def test_only_posted_invocations_are_mirrored_and_captured() -> None:
    mirrored = [route for route in routes("live") if "request_mirror_policies" in route.get("route", {})]
    captured = [route for route in routes("live") if not route["typed_per_filter_config"]]
    assert captured[1:] == mirrored, "the first one keeps inputs only"
    assert [route["match"]["path"] for route in mirrored] == ["/invocations"] * 2
    assert [route["route"]["cluster"] for route in mirrored] == ["candidate", "incumbent"]
    assert [route["route"]["request_mirror_policies"][0]["cluster"] for route in mirrored] == ["mirror_to_incumbent", "mirror_to_candidate"]


@pytest.mark.parametrize("share_bps", [0, 250, 10_000])
def test_inputs_are_kept_by_a_share_of_the_quiet_predictions_and_nothing_else_is_told_about_them(share_bps: int) -> None:
    settings = replace(SETTINGS, input_share_bps=share_bps)
    (host,) = build_listeners(settings)[0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    _, inputs, quiet, *_ = host["routes"]
    assert inputs["match"]["runtime_fraction"] == {
        "default_value": {"numerator": share_bps, "denominator": "TEN_THOUSAND"},
        "runtime_key": "interlock.inputs",
    }
    assert (inputs["route"], inputs["stat_prefix"]) == (quiet["route"], quiet["stat_prefix"]), "for users, the same"
    assert inputs["response_headers_to_add"] == quiet["response_headers_to_add"]


@pytest.mark.parametrize("share_bps", [-1, 10_001])
def test_a_share_of_inputs_that_is_none_is_refused(share_bps: int) -> None:
    with pytest.raises(ValueError, match=str(share_bps)):
        replace(SETTINGS, input_share_bps=share_bps)


def test_while_legs_are_captured_no_input_is_kept_twice() -> None:
    asked: list[httpx.QueryParams] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params)
        return httpx.Response(200)

    admin = EnvoyAdmin("http://envoy")
    admin._client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://envoy")
    admin.set_split(0, mirror=True, quiet=False)
    admin.set_split(0, mirror=False, quiet=True)
    assert [params["interlock.inputs"] for params in asked] == ['{"numerator":0,"denominator":"TEN_THOUSAND"}', ""]


def test_shadows_never_retry_and_end_at_the_candidates_deadline() -> None:
    for listener in ("candidate_only", "incumbent_only"):
        (route,) = routes(listener)
        assert route["route"] == {"cluster": listener, "timeout": "2.000000s"}
        assert manager(listener)["preserve_external_request_id"] is True


def test_the_incumbent_is_never_sent_an_input_twice_that_it_has_seen() -> None:
    policy = routes("live")[-1]["route"]["retry_policy"]
    assert set(policy["retry_on"].split(",")) == {"connect-failure", "refused-stream", "reset-before-request"}


def test_what_a_client_says_about_ids_retries_and_evidence_is_forgotten() -> None:
    (extension,) = manager("live")["early_header_mutation_extensions"]
    matchers = [at["remove_on_match"]["key_matcher"]["prefix"] for at in extension["typed_config"]["mutations"]]
    assert matchers == ["x-request-id", "x-envoy-", "x-interlock-"]


def test_everything_listens_on_loopback() -> None:
    addresses = _find([build_bootstrap(SETTINGS), build_listeners(SETTINGS), build_clusters(SETTINGS)], "socket_address")
    assert {at["port_value"] for at in addresses} == {8080, 8081, 8082}
    assert {at["address"] for at in addresses} == {"127.0.0.1"}


def _find(node: object, key: str) -> list[Any]:
    if isinstance(node, list):
        return [found for item in node for found in _find(item, key)]
    if isinstance(node, dict):
        return [node[key]] if key in node else [found for item in node.values() for found in _find(item, key)]
    return []


def test_a_hanging_mirror_can_hold_only_so_many_requests() -> None:
    for name in ("mirror_to_candidate", "mirror_to_incumbent"):
        (limits,) = clusters()[name]["circuit_breakers"]["thresholds"]
        assert (limits["max_connections"], limits["max_pending_requests"]) == (64, 64)
    (limits,) = clusters()["candidate"]["circuit_breakers"]["thresholds"]
    assert limits["max_retries"] >= 10_000  # Envoy's default of 3 would turn the fourth rescue of a moment into a failed request


@pytest.mark.parametrize("deadline", [0.0, 10.0, 11.0, float("nan")])
def test_a_deadline_that_leaves_no_time_for_the_rescue_is_refused(deadline: float) -> None:
    with pytest.raises(ValueError, match="rescue"):
        EnvoySettings(1, 2, 3, Path(), request_timeout_seconds=10.0, candidate_deadline_seconds=deadline)


def test_envoy_is_started_without_a_wrapper_around_it() -> None:
    program, *options = envoy_command(SETTINGS, Path("/a dir/envoy.json"))
    assert Path(program).read_bytes()[:4] == b"\x7fELF"
    assert options[:2] == ["-c", "/a dir/envoy.json"]


def test_endpoint_files_name_the_rescuing_incumbent_at_priority_1(tmp_path: Path) -> None:
    directory = tmp_path / "state dir"
    write_arms(directory, incumbent=[Endpoint("h", 1, "m/1", "incumbent")], candidate=[Endpoint("h", 2, "m/2", "candidate")])
    assert sorted(path.name for path in directory.iterdir()) == [
        "candidate.json",
        "candidate_only.json",
        "incumbent.json",
        "incumbent_only.json",
    ]
    (assignment,) = json.loads((directory / "candidate.json").read_text())["resources"]
    seen = [
        (
            at["priority"],
            [(e["endpoint"]["hostname"], e["metadata"]["filter_metadata"]["interlock"]["arm"]) for e in at["lb_endpoints"]],
        )
        for at in assignment["endpoints"]
    ]
    assert seen == [(0, [("m/2", "candidate")]), (1, [("m/1", "incumbent")])]


def _placed(directory: Path, cluster: str) -> list[tuple[int, int, str, bool]]:
    (assignment,) = json.loads((directory / f"{cluster}.json").read_text())["resources"]
    return [
        (
            locality["priority"],
            at["endpoint"]["address"]["socket_address"]["port_value"],
            at["metadata"]["filter_metadata"]["interlock"]["arm"],
            not at["endpoint"].get("health_check_config", {}).get("disable_active_health_check", False),
        )
        for locality in assignment["endpoints"]
        for at in locality["lb_endpoints"]
    ]


def test_the_order_of_the_incumbents_is_their_priority(tmp_path: Path) -> None:
    primary, spare = Endpoint("h", 1, "m/1", "incumbent"), Endpoint("h", 2, "m/1", "incumbent")
    write_arms(tmp_path, incumbent=[primary, spare], candidate=[Endpoint("h", 3, "m/2", "candidate")])
    for cluster in ("incumbent", "incumbent_only"):
        assert _placed(tmp_path, cluster) == [(0, 1, "incumbent", True), (1, 2, "incumbent", True)]
    assert _placed(tmp_path, "candidate") == [(0, 3, "candidate", True), (1, 1, "incumbent", True), (2, 2, "incumbent", True)]
    write_arms(tmp_path, incumbent=[spare], candidate=[])
    assert _placed(tmp_path, "incumbent") == [(0, 2, "incumbent", False)], "nobody takes over from it, so it is not checked"
    assert _placed(tmp_path, "candidate") == [(1, 2, "incumbent", False)]


def test_only_the_users_way_to_the_incumbent_is_health_checked() -> None:
    assert {name for name, cluster in clusters().items() if "health_checks" in cluster} == {"incumbent"}
    incumbent = clusters()["incumbent"]
    assert incumbent["ignore_health_on_host_removal"] is True, "or a promotion would keep the old incumbent as long as it answers pings"
    assert "healthy_panic_threshold" not in incumbent.get("common_lb_config", {}), "both unhealthy: still tried"


def test_only_answers_of_the_users_candidate_are_held_back() -> None:
    (options,) = clusters()["candidate"]["typed_extension_protocol_options"].values()
    assert [at["name"].rsplit(".")[-1] for at in options["http_filters"]] == ["lua", "lua", "header_mutation", "upstream_codec"]
    for name in ("candidate_only", "incumbent", "incumbent_only"):
        (options,) = clusters()[name]["typed_extension_protocol_options"].values()
        assert "http_filters" not in options
    (listener,) = [at for at in build_listeners(SETTINGS) if at["name"] == "live"]
    assert listener["per_connection_buffer_limit_bytes"] > SETTINGS.answer_limit_bytes, "or Envoy's own limit would answer the user"


def test_an_unwritable_endpoint_directory_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write"):
        write_endpoints(tmp_path / "file", "candidate", [])


def admin_answering(answer: httpx.Response | Exception) -> EnvoyAdmin:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    admin = EnvoyAdmin("http://envoy")
    admin._client = httpx.Client(base_url="http://envoy", transport=httpx.MockTransport(handle))
    return admin


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x"), httpx.PoolTimeout("x")])
def test_whatever_keeps_the_admin_from_answering_is_unavailable(error: Exception) -> None:
    with pytest.raises(ServiceUnavailable):
        admin_answering(error).observe_split()
    with pytest.raises(ServiceUnavailable):
        admin_answering(error).ready()


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(403, text="no"), httpx.Response(503), httpx.Response(200, text="not json")],
    ids=["forbidden", "broken", "not json"],
)
def test_an_answer_other_than_wanted_is_refused(answer: httpx.Response) -> None:
    with pytest.raises(ServiceRefused):
        admin_answering(answer).observe_split()


def runtime(**values: str) -> httpx.Response:
    return httpx.Response(200, json={"entries": {f"interlock.{key}": {"final_value": value} for key, value in values.items()}})


def test_the_split_is_read_back_in_basis_points() -> None:
    whole, none = '{"numerator":10000,"denominator":"TEN_THOUSAND"}', '{"numerator":0,"denominator":"TEN_THOUSAND"}'
    asked = runtime(candidate_weight='{"numerator":5,"denominator":"HUNDRED"}', mirror=whole, quiet=none)
    assert admin_answering(asked).observe_split() == EnvoySplit(500, is_mirroring=True, is_quiet=False)
    assert admin_answering(runtime()).observe_split() == EnvoySplit(0, is_mirroring=False, is_quiet=True)


@pytest.mark.parametrize("value", ["50", "x", '{"numerator":1}'])
def test_a_runtime_value_that_somebody_else_set_is_never_guessed_at(value: str) -> None:
    with pytest.raises(ServiceRefused, match="set the split again"):
        admin_answering(runtime(candidate_weight=value)).observe_split()


def test_statistics_that_are_absent_count_as_nothing_yet() -> None:
    assert admin_answering(httpx.Response(200, json={"stats": []})).capture_counts() == CaptureCounts(0, 0, 0)
