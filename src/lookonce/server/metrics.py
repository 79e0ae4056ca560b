"""What the server counts, in the format of Prometheus. Nothing is sent anywhere: a program asks for /metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from lookonce import __version__
from lookonce.server.models import Found, ServedModel

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, CPU time and open files, on Linux
        Info("lookonce", "Version of the server", registry=registry).info({"version": __version__})
        self.requests = Counter(
            "lookonce_requests", "Requests by route and status", ("route", "status"), registry=registry
        )
        self.images = Counter("lookonce_images", "Images answered", ("model",), registry=registry)
        self.detections = Counter("lookonce_detections", "Objects found", ("model",), registry=registry)
        self.rejected = Counter(
            "lookonce_rejected", 'Requests refused, by the "error" of the answer', ("error",), registry=registry
        )
        self.reloads = Counter("lookonce_reloads", "Models replaced", ("model", "result"), registry=registry)
        self.seconds = Histogram(
            "lookonce_stage_seconds", "Time of each stage: read the request, decode, queue, network, answer, total",
            ("stage",), buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.batches = Histogram(
            "lookonce_batch_images", "Images that ran together", ("model",), buckets=SIZES, registry=registry
        )
        self.running = Gauge("lookonce_requests_running", "Requests without an answer yet", registry=registry)
        self._waiting = Gauge("lookonce_queue_images", "Images that wait", ("model",), registry=registry)
        self._places = Gauge("lookonce_queue_limit", "Images that may wait", ("model",), registry=registry)
        self._network = Gauge("lookonce_batches_running", "Batches in the network", ("model",), registry=registry)

    def answered(self, model: ServedModel, found: Sequence[Found]) -> None:
        """Count the images of a request."""
        self.images.labels(model.name).inc(len(found))
        self.detections.labels(model.name).inc(sum(len(one.detections) for one in found))
        for one in found:
            for stage in ("decode", "queue", "network"):
                self.seconds.labels(stage).observe(getattr(one.timing, stage))

    def text(self, models: Mapping[str, ServedModel]) -> bytes:
        """Return everything as Prometheus reads it."""
        for name, model in models.items():
            batcher = model.engine.batcher
            self._waiting.labels(name).set(batcher.waiting)
            self._places.labels(name).set(batcher.queue)
            self._network.labels(name).set(batcher.in_network)
        return generate_latest(self.registry)
