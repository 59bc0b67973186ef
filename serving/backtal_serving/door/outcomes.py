"""Requests counted by code, entry and bundle: Triton counts errors of ours as successes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from backtal.errors import BacktalError, Cancelled
from backtal_serving.door.refusals import told

NO_BUNDLE = ""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


@dataclass
class Counted:
    """A request that is being answered; `bundle` is set once it is known to exist."""

    entry: str
    bundle: str = NO_BUNDLE
    code: str = "OK"


class Outcomes:
    """The door's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "backtal_requests",
            "Requests that ended, by gRPC code, way in and bundle.",
            ["code", "entry", "bundle"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "backtal_request_seconds",
            "From a request's first byte to the end of its answer.",
            ["entry", "bundle"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "backtal_requests_in_flight", "Requests that are inside.", registry=self.registry
        )

    @contextmanager
    def request(self, entry: str) -> Iterator[Counted]:
        """Count what the block does by how it ends. Exceptions pass through."""
        counted = Counted(entry)
        started = time.monotonic()
        self._in_flight.inc()
        try:
            yield counted
        except asyncio.CancelledError:
            if counted.code == "OK":
                counted.code = Cancelled.grpc_code
            raise
        except BacktalError as error:
            counted.code = error.grpc_code
            raise
        except Exception as error:
            counted.code = told(error).grpc_code
            raise
        finally:
            self._in_flight.dec()
            self._requests.labels(counted.code, entry, counted.bundle).inc()
            self._seconds.labels(entry, counted.bundle).observe(time.monotonic() - started)

    def exposition(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)
