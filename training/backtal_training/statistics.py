"""Means with 95 % intervals: Student's t over seeds, the bootstrap over videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import GroundTruth
from backtal.errors import InvalidArgument
from backtal.evaluation import Detections, mean_average_precision

Doubles = NDArray[np.float64]

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)
_T_MANY = 2.179


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of independent runs and its t interval; one run has no width, so low = high."""
    if not values:
        raise InvalidArgument("no values to average")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, mean, mean)
    freedom = len(values) - 1
    quantile = _T[freedom - 1] if freedom <= len(_T) else _T_MANY
    half = quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def resampled_maps(
    truth: GroundTruth,
    runs: Sequence[Detections],
    tious: Sequence[float],
    *,
    num_resamples: int,
    seed: int = 0,
) -> Doubles:
    """The runs' mean mAP on videos drawn with replacement: [num_resamples, len(tious)].

    The same seed draws the same videos, so that two arms' rows can be subtracted.
    """
    names = list(truth.videos)
    random = np.random.default_rng(seed)
    table = np.empty((num_resamples, len(tious)))
    for row in table:
        drawn = random.integers(len(names), size=len(names))
        copies = {f"{copy}:{names[index]}": names[index] for copy, index in enumerate(drawn)}
        videos = {copy: truth.videos[name] for copy, name in copies.items()}
        resampled = GroundTruth(videos, truth.classes, truth.source)
        row[:] = np.mean(
            [
                mean_average_precision(
                    resampled, {copy: run[name] for copy, name in copies.items()}, tious
                ).mean_average_precision
                for run in runs
            ],
            axis=0,
        )
    return table


def percentile_interval(mean: float, resampled: Doubles) -> Interval:
    """A mean and the middle 95 % of what it was when resampled."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(mean, float(low), float(high))
