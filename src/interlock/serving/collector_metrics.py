"""What the collector tells Prometheus about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from interlock.model.journal import Leg


class CollectorMetrics:
    """Counters since the start of the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._legs = self._counter("legs", "Legs received from Envoy", ["arm", "role", "failed"])
        self._dropped = self._counter("dropped_legs", "Legs lost because the buffer was full")
        self._malformed = self._counter("malformed_legs", "Messages that were not understood")
        self._segments = self._counter("segments", "Segments written")
        self._write_failures = self._counter("write_failures", "Segments that could not be written; their legs wait and are tried again")
        self._can_write = Gauge("interlock_capture_can_write", "0 after a failed write, until one succeeds", registry=self._registry)
        self._waiting = Gauge("interlock_capture_waiting_legs", "Legs not yet on disk", registry=self._registry)
        self._lag = Gauge("interlock_capture_lag_seconds", "Age of the oldest leg that is not yet on disk", registry=self._registry)
        self._can_write.set(1)
        self._children: dict[tuple[str, str, bool], Counter] = {}
        self.inputs = InputMetrics(self._registry)

    def received(self, leg: Leg) -> None:
        """Count a leg, kept or not."""
        key = (leg.arm.value, leg.role.value, leg.failed)
        if key not in self._children:
            self._children[key] = self._legs.labels(leg.arm.value, leg.role.value, str(leg.failed).lower())
        self._children[key].inc()

    def dropped(self) -> None:
        """Count a leg for which there was no room."""
        self._dropped.inc()

    def malformed(self) -> None:
        """Count a message that is none of ours."""
        self._malformed.inc()

    def segment_written(self) -> None:
        """Count a segment; the disk works."""
        self._segments.inc()
        self.disk_works()

    def disk_works(self) -> None:
        """Something was written."""
        self._can_write.set(1)

    def write_failed(self) -> None:
        """Count a failure; the disk does not work."""
        self._write_failures.inc()
        self._can_write.set(0)

    def text(self, *, waiting_count: int, lag_seconds: float) -> bytes:
        """The page for Prometheus."""
        self._waiting.set(waiting_count)
        self._lag.set(lag_seconds)
        return generate_latest(self._registry)

    def _counter(self, name: str, help_text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"interlock_capture_{name}", help_text, labels or [], registry=self._registry)


class InputMetrics:
    """What the collector tells about the inputs it keeps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "interlock_capture"
        self._taken = Counter(f"{prefix}_inputs", "Inputs of users that were kept", registry=registry)
        self._dropped = Counter(f"{prefix}_dropped_inputs", "Inputs lost because the buffer was full", registry=registry)
        self._too_large = Counter(f"{prefix}_oversized_inputs", "Inputs over the capture limit, noted without a body", registry=registry)
        self._on_disk = Gauge(f"{prefix}_inputs_bytes", "What inputs took on disk a minute ago at most", registry=registry)

    def taken(self) -> None:
        """Count an input."""
        self._taken.inc()

    def dropped(self) -> None:
        """Count an input for which there was no room."""
        self._dropped.inc()

    def too_large(self) -> None:
        """Count an input without a body."""
        self._too_large.inc()

    def on_disk(self, total_bytes: int) -> None:
        """Show how much lies there."""
        self._on_disk.set(total_bytes)
