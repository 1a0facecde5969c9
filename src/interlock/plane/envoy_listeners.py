"""Listeners and routes of Envoy's configuration: which request goes where, is mirrored, is captured. Pure."""

from functools import cache
from importlib.resources import files

from interlock.plane.envoy_settings import (
    CANDIDATE,
    COLLECTOR,
    INCUMBENT,
    INPUT_KEY,
    LIVE,
    LOOPBACK,
    METADATA,
    MIRROR_KEY,
    MIRROR_TO_CANDIDATE,
    MIRROR_TO_INCUMBENT,
    PREDICTIONS_ROUTE,
    QUIET_KEY,
    READY_PATH,
    WEIGHT_KEY,
    EnvoySettings,
    Json,
    runtime_fraction,
    seconds,
    typed,
)

_LUA = "envoy.filters.http.lua"
# Set by Envoy, read by the capture filter, taken away before the user sees the answer.
_INTERNAL_HEADERS = {
    "x-interlock-answer": "%RESPONSE_CODE_DETAILS%",
    "x-interlock-attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "x-interlock-endpoint-arm": f"%UPSTREAM_METADATA({METADATA}:arm)%",
}
_ORIGIN = "x-interlock-origin"  # between the upstream filters only
_NOT_CAPTURED: Json = {_LUA: {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute", "disabled": True}}
_SPARE_BYTES = 64 * 1024
_PREDICTION: Json = {"path": "/invocations", "headers": [{"name": ":method", "string_match": {"exact": "POST"}}]}


def live_listener(settings: EnvoySettings) -> Json:
    """The users' listener. The first route that matches decides; all of them draw on one random number per request."""
    quiet = {"runtime_fraction": runtime_fraction(QUIET_KEY, 10_000)}
    routes = [
        {"match": {"path": READY_PATH}, "direct_response": {"status": 200}, "typed_per_filter_config": _NOT_CAPTURED},
        _input_route(settings),
        _route(settings, _PREDICTION | quiet, cluster=INCUMBENT) | {"stat_prefix": PREDICTIONS_ROUTE},
        _route(settings, {"prefix": "/"} | quiet, cluster=INCUMBENT),
        _route(settings, {"prefix": "/", "headers": [_too_large(settings)]}, cluster=INCUMBENT),
        _captured_route(settings, cluster=CANDIDATE, mirror=MIRROR_TO_INCUMBENT),
        _route(settings, {"prefix": "/", "runtime_fraction": runtime_fraction(WEIGHT_KEY, 0)}, cluster=CANDIDATE),
        _captured_route(settings, cluster=INCUMBENT, mirror=MIRROR_TO_CANDIDATE),
        _route(settings, {"prefix": "/"}, cluster=INCUMBENT),
    ]
    manager = _connection_manager(settings, stat_prefix=LIVE, role=LIVE, routes=routes) | {
        # The client's own request id would make pairs ambiguous; x-envoy-* would let it change time-outs and retries. Envoy itself
        # forgets them for loopback clients, but would believe clients in a private network.
        "early_header_mutation_extensions": [_forget_client_headers()],
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        "request_timeout": seconds(settings.request_timeout_seconds),
    }
    return {
        "name": LIVE,
        "address": {"socket_address": {"address": LOOPBACK, "port_value": settings.live_port}},
        # Envoy's default would let a second Envoy bind the same port and answer a part of the connections.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": max(settings.request_limit_bytes, settings.answer_limit_bytes) + _SPARE_BYTES,
        "filter_chains": [_filter_chain(manager)],
    }


def shadow_listener(settings: EnvoySettings, *, cluster: str, arm: str) -> Json:
    """Where copies for one arm arrive, inside the process. No retry and no rescue: the arm's own failure is what is wanted."""
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": seconds(settings.candidate_deadline_seconds)},
        **_stamps(arm, is_captured=True),
    }
    manager = _connection_manager(settings, stat_prefix=f"shadow_{arm}", role="mirror", routes=[route]) | {
        "preserve_external_request_id": True
    }
    return {
        "name": cluster,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": settings.request_limit_bytes,
        "filter_chains": [_filter_chain(manager)],
    }


def _connection_manager(settings: EnvoySettings, *, stat_prefix: str, role: str, routes: list[Json]) -> Json:
    host = {"name": stat_prefix, "domains": ["*"], "routes": routes}
    return {
        "stat_prefix": stat_prefix,
        "generate_request_id": True,
        "normalize_path": True,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": seconds(2 * settings.request_timeout_seconds),
        "route_config": {"name": stat_prefix, "virtual_hosts": [host], "validate_clusters": True},
        "http_filters": [
            _lua_filter(_capture_source(settings, role)),
            typed(
                "envoy.filters.http.router",
                "envoy.extensions.filters.http.router.v3.Router",
                dynamic_stats=True,
                suppress_envoy_headers=True,
            ),
        ],
    }


def _filter_chain(manager: Json) -> Json:
    name = "envoy.filters.network.http_connection_manager"
    return {"filters": [typed(name, "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager)]}


def _captured_route(settings: EnvoySettings, *, cluster: str, mirror: str) -> Json:
    match = _PREDICTION | ({"runtime_fraction": runtime_fraction(WEIGHT_KEY, 0)} if cluster == CANDIDATE else {})
    route = _route(settings, match, cluster=cluster, is_captured=True) | {"stat_prefix": PREDICTIONS_ROUTE}
    route["route"]["request_mirror_policies"] = [
        {
            "cluster": mirror,
            "runtime_fraction": runtime_fraction(MIRROR_KEY, 0),
            "disable_shadow_host_suffix_append": True,
            "trace_sampled": False,
        }
    ]
    return route


def _input_route(settings: EnvoySettings) -> Json:
    """The quiet route of predictions whose input is kept: nothing else about them is looked at, and nothing is mirrored."""
    match = _PREDICTION | {"runtime_fraction": runtime_fraction(INPUT_KEY, settings.input_share_bps)}
    return _route(settings, match, cluster=INCUMBENT) | {
        "stat_prefix": PREDICTIONS_ROUTE,
        "metadata": {"filter_metadata": {_LUA: {"arm": INCUMBENT, "keeps": "input"}}},
        "typed_per_filter_config": {},
    }


def _route(settings: EnvoySettings, match: Json, *, cluster: str, is_captured: bool = False) -> Json:
    policy = _rescue(settings) if cluster == CANDIDATE else _reconnect()
    return {
        "match": match,
        "route": {"cluster": cluster, "timeout": seconds(settings.request_timeout_seconds), "retry_policy": policy},
        **_stamps(cluster, is_captured=is_captured),
    }


def _rescue(settings: EnvoySettings) -> Json:
    """
    One retry, on the priority that was not tried yet: the incumbent answers what the candidate could not.

    4xx as well: the MLflow scoring protocol answers 400 when a model raises, so a failing candidate looks like a bad request. Where
    the request is really bad, the incumbent says so itself.
    """
    return {
        "retry_on": "5xx,reset,connect-failure,refused-stream,retriable-status-codes",
        "retriable_status_codes": list(range(400, 500)),
        "num_retries": 1,
        "per_try_timeout": seconds(settings.candidate_deadline_seconds),
        "retry_priority": _another_priority(),
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
    }


def _reconnect() -> Json:
    """
    Bridges the moment in which an incumbent's server was swapped or refuses connections, by its spare where there is one.

    Only failures in which the server never saw the request: an input that kills a server must not be sent to it again.
    """
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 2,
        "retry_priority": _another_priority(),
        "retry_back_off": {"base_interval": "0.050s", "max_interval": "0.250s"},
    }


def _another_priority() -> Json:
    return typed(
        "envoy.retry_priorities.previous_priorities",
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        update_frequency=1,
    )


def _stamps(arm: str, *, is_captured: bool) -> Json:
    """Response headers that only Envoy can write: what a model server sent under these names is removed first."""
    stamps = {
        "x-interlock-arm": arm,
        "x-interlock-served-by": f"%UPSTREAM_METADATA({METADATA}:label)%",
        "x-request-id": "%REQ(X-REQUEST-ID)%",
    }
    added = stamps | _INTERNAL_HEADERS if is_captured else stamps
    return {
        "response_headers_to_remove": [*stamps, *_INTERNAL_HEADERS],
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"} for key, value in added.items()
        ],
        "metadata": {"filter_metadata": {_LUA: {"arm": arm}}},
        "typed_per_filter_config": {} if is_captured else _NOT_CAPTURED,
    }


def _too_large(settings: EnvoySettings) -> Json:
    return {"name": "content-length", "range_match": {"start": settings.request_limit_bytes, "end": 2**62}}


def _forget_client_headers() -> Json:
    prefixes = ("x-request-id", "x-envoy-", "x-interlock-")
    return typed(
        "envoy.http.early_header_mutation.header_mutation",
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}} for prefix in prefixes],
    )


def answer_filters(settings: EnvoySettings) -> list[Json]:
    """
    Upstream filters of the candidate's cluster: an answer goes on to the router only when it is complete and usable.

    The router has then sent nothing to the user yet, so a truncated, dripping, oversized or unusable answer is retried like any other.
    What is asked for is an answer that is not packed. They run in reverse order on answers: who was asked what is noted, what is too long
    is cut, and then the whole is held and looked at.
    """
    origin = f"%UPSTREAM_METADATA({METADATA}:arm)% %REQ(:METHOD)% %REQ(:PATH)%"
    noted = {"append": {"header": {"key": _ORIGIN, "value": origin}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    constants = f'local ORIGIN = "{_ORIGIN}"\nlocal CANDIDATE = "{CANDIDATE}"\nlocal LIMIT_BYTES = {settings.answer_limit_bytes}\n'
    return [
        *(_lua_filter(f'local STEP = "{step}"\n{constants}{_lua_text("contain.lua")}') for step in ("hold", "cut")),
        typed(
            "envoy.filters.http.header_mutation",
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": [{"remove": "accept-encoding"}], "response_mutations": [noted]},
        ),
        typed("envoy.filters.http.upstream_codec", "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
    ]


def _lua_filter(source: str) -> Json:
    return typed(_LUA, "envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": source})


@cache
def _lua_text(name: str) -> str:
    return (files("interlock.plane") / name).read_text(encoding="utf-8")


def _capture_source(settings: EnvoySettings, role: str) -> str:
    constants = (
        f'local ROLE = "{role}"\n'
        f'local COLLECTOR = "{COLLECTOR}"\n'
        f"local LIMIT_BYTES = {settings.capture_limit_bytes}\n"
        f"local LOST_AFTER_US = {int((2 * settings.request_timeout_seconds + 1) * 1e6)}\n"
        f"local INPUT_SHARE_BPS, INPUTS_PER_SECOND = {settings.input_share_bps}, {settings.inputs_per_second}\n"
    )
    return constants + _lua_text("capture.lua")
