"""A run's metrics: on a port while it runs, in a file for a node exporter, or at a push gateway.

The names are what dashboards and alerts are written against.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    push_to_gateway,
    start_http_server,
    write_to_textfile,
)

from backtal.errors import InvalidArgument
from backtal_indexing.run import RunState
from backtal_indexing.shard import VideoFailure

JOB = "backtal_index"
STATUSES = ("done", "failed", "quarantined", "deleted", "unchanged")
PUSH_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class MetricsSettings:
    """Where a run's metrics are to be had; nowhere by default."""

    port: int | None = None
    host: str = "127.0.0.1"
    textfile: Path | None = None
    push_gateway: str | None = None


class RunMetrics:
    """A `Watcher` that keeps metrics; a context manager that shows them meanwhile.

    A textfile and a gateway get them every 10 s and at the end. Raises InvalidArgument for a port
    that is taken and a gateway that does not answer at the start; later it may come and go.
    """

    def __init__(self, index_name: str, settings: MetricsSettings, num_unchanged: int = 0) -> None:
        self._index_name = index_name
        self._settings = settings
        self._registry = CollectorRegistry()
        self._stack = ExitStack()
        self._told = RunState(0, 0)
        self._pushed = 0.0
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._videos = self._counter("videos", "Videos by what became of them.", ["status"])
        self._video_seconds = self._counter("video_seconds", "Seconds of video that were indexed.")
        self._retries = self._counter("retries", "Attempts after the first, of videos and shards.")
        self._videos_left = self._gauge("videos_remaining", "Videos that are yet to be done.")
        self._shards_left = self._gauge("shards_remaining", "Shards that are yet to be done.")
        self._in_flight = self._gauge("videos_in_flight", "Videos of the shards at the workers.")
        self._progressed = self._gauge(
            "last_progress_timestamp_seconds", "When a shard was last done."
        )
        self._started = self._gauge("run_start_timestamp_seconds", "When the run began.")
        for status in STATUSES:
            self._videos.labels(index_name, status).inc(0)
        self._videos.labels(index_name, "unchanged").inc(num_unchanged)

    def __enter__(self) -> RunMetrics:
        settings = self._settings
        if settings.port is not None:
            try:
                server, thread = start_http_server(
                    settings.port, settings.host, registry=self._registry
                )
            except OSError as error:
                raise InvalidArgument(
                    f"metrics cannot be had at {settings.host}:{settings.port}: {error.strerror}"
                ) from None
            self._stack.callback(thread.join)
            self._stack.callback(server.server_close)
            self._stack.callback(server.shutdown)
            self.port = server.server_port
        try:
            self._push()
        except OSError as error:
            self._stack.close()
            raise InvalidArgument(f"metrics cannot be pushed: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._push()
        self._stack.close()

    def update(self, state: RunState) -> None:
        """See `Watcher`."""
        told = self._told
        for status in STATUSES:
            new = state.num_videos[status] - told.num_videos[status]
            self._videos.labels(self._index_name, status).inc(new)
        self._video_seconds.labels(self._index_name).inc(state.video_seconds - told.video_seconds)
        self._retries.labels(self._index_name).inc(state.num_retries - told.num_retries)
        for gauge, value in (
            (self._videos_left, state.num_left),
            (self._shards_left, state.num_shards_left),
            (self._in_flight, state.num_in_flight),
            (self._progressed, state.last_progress),
            (self._started, state.started),
        ):
            gauge.labels(self._index_name).set(value)
        self._told = state.copy()
        if time.monotonic() - self._pushed > PUSH_EVERY_SECONDS:
            with suppress(OSError):
                self._push()

    def failed(self, failure: VideoFailure) -> None:
        """See `Watcher`: failures are counted with their shards."""

    def _push(self) -> None:
        settings = self._settings
        self._pushed = time.monotonic()
        if settings.textfile is not None:
            write_to_textfile(str(settings.textfile), self._registry)
        if settings.push_gateway is not None:
            push_to_gateway(
                settings.push_gateway,
                job=JOB,
                registry=self._registry,
                grouping_key={"index": self._index_name},
                timeout=5,
            )

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Any:
        return Counter(f"{JOB}_{name}", text, ["index", *(labels or ())], registry=self._registry)

    def _gauge(self, name: str, text: str) -> Any:
        return Gauge(f"{JOB}_{name}", text, ["index"], registry=self._registry)
