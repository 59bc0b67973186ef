"""The pipeline's metrics inside Triton, which keeps them when a model's process dies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import triton_python_backend_utils as pb_utils

from backtal_serving.logs import log_event
from backtal_serving.metrics.definitions import (
    CHILDREN_RESTARTED,
    DECODE_FAILURES,
    FEATURE_STORE,
    PIPELINE,
    REASONS,
    STORE_OUTCOMES,
    Metric,
)
from backtal_serving.metrics.observations import Observation


class TritonMetrics:
    """The families of one instance of a bundle.

    Triton adds up what several instances, and a bundle and its stream, tell of the same labels.
    Where its metrics are off, all of this is in vain and costs next to nothing.
    """

    def __init__(self, bundle: str) -> None:
        self._bundle = bundle
        self._families = {metric.name: _family(metric) for metric in PIPELINE}
        self._series: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._num_deaths = 0
        # There from the start, so that the first one is seen to be counted.
        for reason in REASONS:
            self._add(DECODE_FAILURES, (bundle, reason), 0)
        for outcome in STORE_OUTCOMES:
            self._add(FEATURE_STORE, (bundle, outcome), 0)
        self._add(CHILDREN_RESTARTED, ("decoder",), 0)

    def record(self, observations: Iterable[Observation], num_deaths: int) -> None:
        """Count or observe each; num_deaths: of decoders since this process began.

        Every one is a message to Triton, of 10 to 50 microseconds. What Triton does not take, for
        want of shared memory, is lost; the answer is not.
        """
        try:
            for observation in observations:
                labels = (self._bundle, *observation.labels)
                self._add(observation.metric, labels, observation.value)
            if new := num_deaths - self._num_deaths:
                self._num_deaths = num_deaths
                self._add(CHILDREN_RESTARTED, ("decoder",), new)
        except pb_utils.TritonModelException as error:
            log_event("metrics_not_taken", "warning", problem=str(error))

    def _add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        key = (metric.name, labels)
        if key not in self._series:
            self._series[key] = self._new_series(metric, labels)
        if metric.kind == "histogram":
            self._series[key].observe(value)
        else:
            self._series[key].increment(value)

    def _new_series(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        named = dict(zip(metric.labels, labels, strict=True))
        family = self._families[metric.name]
        if metric.kind == "histogram":
            return family.Metric(labels=named, buckets=list(metric.buckets))
        return family.Metric(labels=named)


def _family(metric: Metric) -> Any:
    return pb_utils.MetricFamily(
        name=metric.name,
        description=metric.help,
        kind=getattr(pb_utils.MetricFamily, metric.kind.upper()),
    )
