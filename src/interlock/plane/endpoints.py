"""
Endpoint files: how Envoy learns, at runtime, where the model servers of each arm are.

One file per cluster, replaced by rename, which is what Envoy watches for. A file must exist before Envoy starts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from interlock.errors import StateError
from interlock.plane.envoy_settings import CANDIDATE, CANDIDATE_ONLY, INCUMBENT, INCUMBENT_ONLY, METADATA, Json


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model server. `label` is `name/version`; `arm` is whose it is, also where it only rescues the other arm."""

    host: str
    port: int
    label: str
    arm: str
    priority: int = 0


def endpoints_path(directory: Path, cluster: str) -> Path:
    """The file that Envoy watches for one cluster."""
    return directory / f"{cluster}.json"


def write_arms(directory: Path, *, incumbent: Sequence[Endpoint], candidate: Sequence[Endpoint]) -> None:
    """
    Tell Envoy about the model servers of both arms; without a candidate its share goes to the incumbent. Idempotent.

    The order of the incumbents is their priority: the first serves, the next is its spare.

    Four renames, so not one instant: make sure that an old server still answers until the new one was observed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ranked = [replace(at, arm=INCUMBENT, priority=rank) for rank, at in enumerate(incumbent)]
    rescue = [replace(at, priority=at.priority + 1) for at in ranked]
    own = [replace(at, arm=CANDIDATE, priority=0) for at in candidate]
    write_endpoints(directory, INCUMBENT, ranked)
    write_endpoints(directory, INCUMBENT_ONLY, ranked)
    write_endpoints(directory, CANDIDATE_ONLY, own)
    write_endpoints(directory, CANDIDATE, [*own, *rescue])


def write_endpoints(directory: Path, cluster: str, endpoints: Sequence[Endpoint]) -> None:
    """
    Replace the endpoints of one cluster; requests in flight to a removed one are still answered.

    Raises:
        StateError: the directory cannot be written.
    """
    replace_file(endpoints_path(directory, cluster), json.dumps(_discovery_response(cluster, endpoints)))


def replace_file(path: Path, text: str) -> None:
    """
    Write a file the way Envoy watches for: by rename, so that nobody reads half of it.

    Raises:
        StateError: the directory cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}; free or unlock the state directory") from error


def _discovery_response(cluster: str, endpoints: Sequence[Endpoint]) -> Json:
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    priorities = sorted({at.priority for at in endpoints})
    has_spare = len(endpoints) > 1
    localities = [
        {
            "priority": priority,
            "lb_endpoints": [_lb_endpoint(at, has_spare=has_spare) for at in endpoints if at.priority == priority],
        }
        for priority in priorities
    ]
    return {"resources": [{"@type": kind, "cluster_name": cluster, "endpoints": localities}]}


def _lb_endpoint(at: Endpoint, *, has_spare: bool) -> Json:
    address: Json = {"socket_address": {"address": at.host, "port_value": at.port}}
    # The label is stored twice: metadata can be stamped on responses, the hostname can be read back from the admin.
    endpoint: Json = {"address": address, "hostname": at.label}
    if not has_spare:
        # A health check could only do harm: a server that is slow to answer pings would lose the requests it is busy with.
        endpoint["health_check_config"] = {"disable_active_health_check": True}
    return {
        "endpoint": endpoint,
        "metadata": {"filter_metadata": {METADATA: {"label": at.label, "arm": at.arm}}},
    }
