"""The metrics of our own processes, as `prometheus_client` keeps them."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from backtal_serving.metrics.definitions import Metric


def new_registry() -> CollectorRegistry:
    """An empty registry, without a second series for when each was created."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """The counter of that definition."""
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """The gauge of that definition."""
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """The histogram of that definition."""
    return Histogram(
        metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
    )
