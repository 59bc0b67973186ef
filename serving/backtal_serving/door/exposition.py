"""The door's `/metrics`: its own figures, Triton's and the supervisor's, as one exposition."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import httpx
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backtal.errors import BacktalError
from backtal.manifest import MANIFEST_NAME, Manifest
from backtal_serving.door.core import Door
from backtal_serving.door.jobs.store import JobStore
from backtal_serving.metrics import definitions as metrics
from backtal_serving.metrics.definitions import Metric
from backtal_serving.metrics.exposition import merged
from backtal_serving.metrics.prometheus import gauge

TRITON_SECONDS = 2.0


class Exposition:
    """Gathers what is known of the service when it is asked for."""

    def __init__(self, door: Door, jobs: JobStore) -> None:
        self._registry = door.outcomes.registry
        self._registry.register(DoorState(door, jobs))
        self._source_up = gauge(metrics.SOURCE_UP, self._registry)
        settings = door.settings
        self._supervisor_file = settings.supervisor_metrics
        socket = settings.triton_metrics
        self._triton = None if socket is None else _client_of(socket)

    async def text(self) -> str:
        """Prometheus's text format. A source that does not answer is left out, and told of."""
        others = {"triton": await self._triton_text(), "supervisor": self._supervisor_text()}
        for source, text in others.items():
            self._source_up.labels(source).set(text is not None)
        own = generate_latest(self._registry).decode()
        return merged([own, *(text for text in others.values() if text is not None)])

    async def _triton_text(self) -> str | None:
        if self._triton is None:
            return None
        try:
            # The host is nobody's: the transport knows the socket.
            response = await self._triton.get("http://triton/metrics")
        except httpx.HTTPError:
            return None
        return response.text if response.is_success else None

    def _supervisor_text(self) -> str | None:
        if self._supervisor_file is None:
            return None
        try:
            return self._supervisor_file.read_text()
        except OSError:
            return None


def _client_of(socket: Path) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(transport=transport, timeout=TRITON_SECONDS, trust_env=False)


class DoorState(Collector):
    """What the door is at the moment: its queues, its spool, its jobs, the bundles it offers."""

    def __init__(self, door: Door, jobs: JobStore) -> None:
        self._door = door
        self._jobs = jobs

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family after the other."""
        door = self._door
        waiting, at_once = _family(metrics.WAITING), _family(metrics.AT_ONCE)
        for bundle in sorted({*door.catalogue.bundles(), *door.turns}):
            turns = door.turns.get(bundle)
            waiting.add_metric([bundle], 0 if turns is None else turns.waiting)
            at_once.add_metric([bundle], door.settings.requests.at_once)
        spool, spool_limit = _family(metrics.SPOOL_BYTES), _family(metrics.SPOOL_LIMIT)
        spool.add_metric([], door.spool.num_bytes)
        spool_limit.add_metric([], door.settings.limits.spool_bytes)
        jobs = _family(metrics.JOBS)
        for state, number in self._jobs.count_by_state().items():
            jobs.add_metric([state], number)
        yield from (waiting, at_once, spool, spool_limit, jobs, self._bundles())

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The families without their series: nothing is asked of the door for a registration."""
        for metric in (
            *(metrics.WAITING, metrics.AT_ONCE, metrics.SPOOL_BYTES, metrics.SPOOL_LIMIT),
            *(metrics.JOBS, metrics.BUNDLE_INFO),
        ):
            yield _family(metric)

    def _bundles(self) -> GaugeMetricFamily:
        family = _family(metrics.BUNDLE_INFO)
        repository = self._door.settings.repository
        for bundle in self._door.catalogue.bundles():
            for version in self._door.catalogue.models[bundle].versions:
                file = None if repository is None else repository / bundle / version / MANIFEST_NAME
                if (labels := _labels_of(file)) is not None:
                    family.add_metric([bundle, labels[0], version, *labels[1:]], 1)
        return family


def _labels_of(file: Path | None) -> tuple[str, str, str] | None:
    """Hash, backbones and precisions of the bundle whose manifest this is."""
    try:
        return None if file is None else _read_labels(file, file.stat().st_mtime_ns)
    except (OSError, BacktalError):
        # A version that was taken away since Triton loaded it.
        return None


@lru_cache(maxsize=64)
def _read_labels(file: Path, _changed: int) -> tuple[str, str, str]:
    manifest = Manifest.load(file)
    backbones = manifest.description.backbones
    networks = (*manifest.backbones.values(), manifest.cas)
    precisions = dict.fromkeys(network.precision for network in networks)
    return manifest.sha256, ",".join(one.name for one in backbones), ",".join(precisions)


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
