"""
Metrics of one model server, in a registry of its own, as Prometheus text.

Only /invocations is counted: probes and scrapes are not requests.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from interlock.model.release import ModelVersion

METRICS_MEDIA_TYPE = CONTENT_TYPE_LATEST
# From a linear model on one row (under a millisecond) to far beyond what a live decision can wait; three buckets a decade.
BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ModelMetrics:
    """Counts requests by status code, their seconds, and those in flight."""

    def __init__(self, version: ModelVersion) -> None:
        self._registry = CollectorRegistry()
        labels = {"model": version.name, "version": version.version}
        names = list(labels)
        self._values = tuple(labels.values())
        self._requests = Counter("interlock_model_requests", "Requests to /invocations.", [*names, "code"], registry=self._registry)
        self._seconds = Histogram(
            "interlock_model_request_seconds",
            "From the headers read to the answer handed over.",
            names,
            buckets=BUCKETS_SECONDS,
            registry=self._registry,
        ).labels(**labels)
        self._inflight = Gauge(
            "interlock_model_inflight", "Requests to /invocations read, queued or answered now.", names, registry=self._registry
        ).labels(**labels)
        Info("interlock_model", "What this process has loaded.", registry=self._registry).info({**labels, "digest": version.digest})
        ProcessCollector(registry=self._registry)  # process_resident_memory_bytes, process_cpu_seconds_total and others
        self.inflight_count = 0

    def begin(self) -> None:
        """A request to /invocations has arrived. Event loop only."""
        self.inflight_count += 1
        self._inflight.set(self.inflight_count)

    def end(self, *, status: int, elapsed_seconds: float) -> None:
        """It was answered. Event loop only."""
        self.inflight_count -= 1
        self._inflight.set(self.inflight_count)
        self._seconds.observe(elapsed_seconds)
        self._requests.labels(*self._values, str(status)).inc()

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self._registry)
