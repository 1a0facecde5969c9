"""What the Envoy configuration is built from: ports, deadlines, limits, and the names that other modules ask Envoy about."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"

# Runtime keys. Their defaults in the configuration are the safe state, so that an Envoy that was restarted, and whose admin layer
# is therefore empty, sends everything to the incumbent until somebody asks for something else.
QUIET_KEY = "interlock.quiet"
WEIGHT_KEY = "interlock.candidate_weight"
MIRROR_KEY = "interlock.mirror"
INPUT_KEY = "interlock.inputs"  # share of quiet predictions whose input is kept; set to 0 while legs are captured

CANDIDATE = "candidate"  # the candidate, with the incumbent as its rescue
INCUMBENT = "incumbent"
CANDIDATE_ONLY = "candidate_only"  # the shadow listeners' clusters: no rescue, so that a failure shows
INCUMBENT_ONLY = "incumbent_only"
ENDPOINT_CLUSTERS = (CANDIDATE, INCUMBENT, CANDIDATE_ONLY, INCUMBENT_ONLY)
MIRROR_TO_CANDIDATE = "mirror_to_candidate"
MIRROR_TO_INCUMBENT = "mirror_to_incumbent"
MIRROR_CLUSTERS = (MIRROR_TO_CANDIDATE, MIRROR_TO_INCUMBENT)
COLLECTOR = "collector"

LIVE = "live"  # the users' listener, and the prefix of its statistics

# Envoy's own answer on the users' port. The admin's /ready also says yes while listeners were refused, and nobody is served.
READY_PATH = "/.interlock/ready"

METADATA = "interlock"  # namespace of endpoint metadata: `label` and `arm`
PREDICTIONS_ROUTE = "predictions"  # stat prefix of the routes that carry predictions, captured or quiet

# 10 %: 2,000 inputs, what a drift gate needs, in seven minutes at 50 requests a second.
INPUT_SHARE_BPS = 1000

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """
    Ports, deadlines and limits of one machine's Envoy. Everything listens on loopback.

    candidate_deadline_seconds: time for one try on the candidate route, and for every mirrored request; below the user's deadline,
        else nothing is left for the rescue. The rescue on the incumbent has the same time.
    mirror_limit_count: mirrored requests in flight, and as many again waiting, per arm; the rest is dropped and counted.
    capture_queue_count: legs that wait for the collector; the rest is dropped and counted. Times capture_limit_bytes, this is the
        memory a stopped collector can cost.
    input_share_bps: of the predictions that users ask for, those whose input is kept, release or not; 0 keeps none.
    inputs_per_second: at most so many, a second, worker and listener: what a kept input costs is then bounded at any traffic.
    request_limit_bytes: larger requests cannot be kept for a retry, so they bypass the candidate.
    answer_limit_bytes: larger answers of the candidate cannot be held back until they are complete, so they count as its failure.
    """

    live_port: int
    admin_port: int
    collector_port: int
    endpoints_directory: Path
    request_timeout_seconds: float = 10.0
    candidate_deadline_seconds: float = 2.0
    capture_limit_bytes: int = 64 * 1024
    mirror_limit_count: int = 64
    capture_queue_count: int = 1024
    input_share_bps: int = INPUT_SHARE_BPS
    inputs_per_second: int = 20
    request_limit_bytes: int = 1024 * 1024
    answer_limit_bytes: int = 1024 * 1024
    worker_count: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.candidate_deadline_seconds < self.request_timeout_seconds:
            raise ValueError(
                f"candidate deadline {self.candidate_deadline_seconds} s must be above 0 and below the request timeout "
                f"{self.request_timeout_seconds} s: the rescue needs what is left"
            )
        if not 0 <= self.input_share_bps <= 10_000:
            raise ValueError(f"input share {self.input_share_bps} bps is outside 0..10000")


def seconds(value: float) -> str:
    """A duration the way protobuf's JSON writes it."""
    return f"{value:.6f}s"


def typed(name: str, type_url: str, **fields: object) -> Json:
    """An extension of Envoy by name and type."""
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{type_url}", **fields}}


def runtime_fraction(key: str, default_bps: int) -> Json:
    """A share in basis points that the admin can change at runtime."""
    return {"default_value": {"numerator": default_bps, "denominator": "TEN_THOUSAND"}, "runtime_key": key}
