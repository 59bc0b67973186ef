"""What the process above the door and Triton counts, in a file that the door reads."""

from __future__ import annotations

import platform
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from prometheus_client import write_to_textfile

from backtal_serving.logs import log_event
from backtal_serving.metrics import definitions as metrics
from backtal_serving.metrics.prometheus import counter, gauge, histogram, new_registry

FILE_NAME = "supervisor.prom"
Child = Literal["model", "triton", "door"]
CHILDREN: tuple[Child, ...] = ("model", "triton", "door")


class SupervisionMetrics:
    """Of one supervisor, whose threads may all use it. `file` is written anew at each change."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.registry = new_registry()
        self._restarted = counter(metrics.CHILDREN_RESTARTED, self.registry)
        self._canary_seconds = histogram(metrics.CANARY_SECONDS, self.registry)
        self._canary_failures = counter(metrics.CANARY_FAILURES, self.registry)
        self._build = gauge(metrics.BUILD_INFO, self.registry)
        for child in CHILDREN:
            self._restarted.labels(child)

    def started(self, triton_version: str, bundles: tuple[str, ...]) -> None:
        """Triton is ready, and says that it is of this version."""
        self._build.clear()
        self._build.labels(version("backtal"), platform.python_version(), triton_version).set(1)
        for bundle in bundles:
            self._canary_failures.labels(bundle)
        self._write()

    def child_restarted(self, child: Child) -> None:
        """One that ended before its time was started again."""
        self._restarted.labels(child).inc()
        self._write()

    def canary_answered(self, bundle: str, seconds: float) -> None:
        """The canary's request had an answer."""
        self._canary_seconds.labels(bundle).observe(seconds)
        self._write()

    def canary_failed(self, bundle: str) -> None:
        """The canary's request says that the bundle does not work."""
        self._canary_failures.labels(bundle).inc()
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        try:
            with self._lock:
                write_to_textfile(str(self._file), self.registry)
        except OSError as error:
            # A full disk is no reason to let the server go.
            log_event("metrics_not_written", "warning", file=self._file, problem=str(error))
