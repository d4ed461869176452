"""What the server counts, for Prometheus and for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fastrnn.serving.metrics import COUNTERS, Histogram
from fastrnn.serving.server.models import Models
from fastrnn.serving.server.refusals import Refused

LATENCIES_S = tuple(m * 10.0**k for k in range(-5, 2) for m in (1, 2, 5))
HISTOGRAMS = {
    "batch_rows": ("rows of a step", 1.0),
    "queue_us": ("seconds that a request waited for its step", 1e-6),
    "run_us": ("seconds of a step", 1e-6),
}


class Measures:
    """Counts of requests, and a collector of what the models' batchers count. Belongs to the event loop."""

    def __init__(self, models: Models):
        self._models, self._registry = models, CollectorRegistry()
        self.latency: dict[tuple[str, str], Histogram] = {}
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.sockets = 0
        self._registry.register(self)

    def answered(self, protocol: str, model: str, seconds: float) -> None:
        """A request, or a frame of a connection, was answered."""
        if (found := self.latency.get((protocol, model))) is None:
            found = self.latency[protocol, model] = Histogram(LATENCIES_S)
        found.add(seconds)

    def refused(self, protocol: str, error: Refused) -> None:
        """A request was refused."""
        self.refusals[protocol, error.reason] += 1

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client: counters and histograms of every model and generation."""
        yield GaugeMetricFamily("fastrnn_loop_lag_seconds", "how late the event loop is", self._models.load.lag_s)
        yield GaugeMetricFamily("fastrnn_loop_busy", "share of its time that the event loop runs", self._models.load.busy)
        yield GaugeMetricFamily("fastrnn_sockets", "WebSocket connections that stream", self.sockets)
        yield GaugeMetricFamily("fastrnn_draining", "1 where no sequence may start any more", self._models.draining)
        counters = {name: CounterMetricFamily(f"fastrnn_{name}", f"{name} of a model's callers", labels=("model", "version")) for name in COUNTERS}
        gauges = {name: GaugeMetricFamily(f"fastrnn_{name}", f"{name} now", labels=("model", "version")) for name in ("callers", "waiting")}
        histograms = {
            name: HistogramMetricFamily(f"fastrnn_{name.removesuffix('_us')}{'_seconds' if scale != 1 else ''}", text, labels=("model", "version"))
            for name, (text, scale) in HISTOGRAMS.items()
        }
        for name, version, found in self._batchers():
            for family in (counters, gauges):
                for key, metric in family.items():
                    metric.add_metric((name, version), found[key])
            for key, metric in histograms.items():
                metric.add_metric((name, version), *_buckets(found[key], HISTOGRAMS[key][1]))
        yield from (*counters.values(), *gauges.values(), *histograms.values())
        latency = HistogramMetricFamily("fastrnn_request_seconds", "from a request's arrival to its answer", labels=("protocol", "model"))
        for key, histogram in self.latency.items():
            latency.add_metric(key, *_buckets(histogram.as_dict(), 1.0))
        refusals = CounterMetricFamily("fastrnn_refusals", "requests refused", labels=("protocol", "reason"))
        for key, n in self.refusals.items():
            refusals.add_metric(key, n)
        yield from (latency, refusals)

    def _batchers(self) -> Iterator[tuple[str, str, dict]]:
        for served in self._models:
            for generation in served.generations:
                if generation.batcher is not None:
                    yield served.name, str(generation.version), generation.batcher.metrics()

    def live(self) -> dict:
        """What the page shows: of each model what is loaded and counted."""
        found = {}
        for served in self._models:
            made = served.newest
            found[served.name] = {"version": str(made.version), "sequences": made.batcher is not None, "summary": repr(made.session), "callers": 0,
                                  "frames": 0,
                                  "inputs": made.inputs, "outputs": made.outputs, "capacity": served.options.capacity,
                                  "latency": {p: h.as_dict() for (p, m), h in self.latency.items() if m == served.name}}  # fmt: skip
        for name, _, metrics in self._batchers():
            for key in ("callers", "frames"):
                found[name][key] += metrics[key]
            found[name]["batch_rows"] = metrics["batch_rows"]  # of the newest, which comes last
        return {
            "models": found,
            "sockets": self.sockets,
            "lag_s": self._models.load.lag_s,
            "busy": self._models.load.busy,
            "draining": self._models.draining,
            "refusals": sum(self.refusals.values()),
        }


def _buckets(histogram: dict, scale: float) -> tuple[list[tuple[str, float]], float]:
    """(bound, how many up to it) in order, and the sum, as prometheus_client takes them."""
    total, buckets = 0, []
    for bound, n in zip([*histogram["bounds"], float("inf")], histogram["counts"]):
        total += n
        buckets.append(("+Inf" if bound == float("inf") else repr(bound * scale), total))
    return buckets, histogram["sum"] * scale
