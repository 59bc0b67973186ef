"""Requests counted by code, entry and bundle: Triton counts errors of ours as successes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from backtal.errors import BacktalError, Cancelled
from backtal_serving.door.refusals import told
from backtal_serving.metrics import definitions as metrics
from backtal_serving.metrics.prometheus import counter, gauge, histogram, new_registry

Entry = Literal["grpc", "http", "job"]
NO_BUNDLE = ""
OK = "OK"


@dataclass
class Counted:
    """A request that is being answered.

    bundle: set once it is known to exist. request_id: once its message was read.
    """

    entry: Entry
    is_detection: bool = True
    bundle: str = NO_BUNDLE
    code: str = OK
    request_id: str = ""


class Outcomes:
    """What the door counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self._requests = counter(metrics.REQUESTS, self.registry)
        self._other = counter(metrics.OTHER_REQUESTS, self.registry)
        self._seconds = histogram(metrics.REQUEST_SECONDS, self.registry)
        self._in_flight = gauge(metrics.IN_FLIGHT, self.registry)
        self._queue_seconds = histogram(metrics.QUEUE_SECONDS, self.registry)

    @contextmanager
    def count(self, counted: Counted) -> Iterator[None]:
        """Count what the block does by how it ends. Exceptions pass through."""
        started = time.monotonic()
        self._in_flight.inc()
        try:
            yield
        except asyncio.CancelledError:
            if counted.code == OK:
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
            self._count(counted, time.monotonic() - started)

    def refused(self, error: BacktalError, entry: Entry, *, is_detection: bool) -> None:
        """Count a request that was refused before anything was known of it."""
        self._count(Counted(entry, is_detection, code=error.grpc_code), 0.0)

    def waited(self, bundle: str, seconds: float) -> None:
        """A request had its turn after so long."""
        self._queue_seconds.labels(bundle).observe(seconds)

    def _count(self, counted: Counted, seconds: float) -> None:
        if not counted.is_detection:
            self._other.labels(counted.code, counted.entry).inc()
            return
        self._requests.labels(counted.code, counted.entry, counted.bundle).inc()
        self._seconds.labels(counted.entry, counted.bundle).observe(seconds)
