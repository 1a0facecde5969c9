"""
Endpoint files: how Envoy learns, at runtime, where the model servers of each arm are.

One file per cluster, replaced by rename, which is what Envoy watches for. A file must exist before Envoy starts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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

    Four renames, so not one instant: make sure that an old server still answers until the new one was observed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rescue = [Endpoint(at.host, at.port, at.label, INCUMBENT, priority=1) for at in incumbent]
    own = [Endpoint(at.host, at.port, at.label, CANDIDATE) for at in candidate]
    write_endpoints(directory, INCUMBENT, incumbent)
    write_endpoints(directory, INCUMBENT_ONLY, incumbent)
    write_endpoints(directory, CANDIDATE_ONLY, own)
    write_endpoints(directory, CANDIDATE, [*own, *rescue])


def write_endpoints(directory: Path, cluster: str, endpoints: Sequence[Endpoint]) -> None:
    """
    Replace the endpoints of one cluster; requests in flight to a removed one are still answered.

    Raises:
        StateError: the directory cannot be written.
    """
    path = endpoints_path(directory, cluster)
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(_discovery_response(cluster, endpoints)), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}; free or unlock the state directory") from error


def _discovery_response(cluster: str, endpoints: Sequence[Endpoint]) -> Json:
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    priorities = sorted({at.priority for at in endpoints})
    localities = [
        {"priority": priority, "lb_endpoints": [_lb_endpoint(at) for at in endpoints if at.priority == priority]} for priority in priorities
    ]
    return {"resources": [{"@type": kind, "cluster_name": cluster, "endpoints": localities}]}


def _lb_endpoint(at: Endpoint) -> Json:
    address = {"socket_address": {"address": at.host, "port_value": at.port}}
    # The label is stored twice: metadata can be stamped on responses, the hostname can be read back from the admin.
    return {
        "endpoint": {"address": address, "hostname": at.label},
        "metadata": {"filter_metadata": {METADATA: {"label": at.label, "arm": at.arm}}},
    }
