"""Search localization settings on cached CAS, one setting at a time until none gets better."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtal.annotations import GroundTruth
from backtal.errors import InvalidArgument
from backtal.evaluation import mean_average_precision
from backtal.localization import LocalizationSettings
from backtal.manifest import BundleDescription
from backtal_training.cas_cache import VideoCas, detect

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
MOST_ROUNDS = 4

Space = Mapping[str, Sequence[Any]]


def _steps(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in np.arange(start, stop, step).tolist())


# top_k_ratio is not here: the network was trained with it.
COMMON_SPACE: Space = {
    "cas_thresholds": (
        _steps(0, 0.25, 0.025),
        _steps(0.1, 0.55, 0.1),
        _steps(0.3, 0.75, 0.1),
        _steps(0.5, 0.85, 0.1),
        _steps(0.1, 0.95, 0.1),
        _steps(0.05, 1, 0.05),
    ),
    "magnitude_thresholds": ((), _steps(0.3, 0.8, 0.075), _steps(0.5, 0.95, 0.1)),
    "class_score_threshold": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35),
    "outer_width": (0.1, 0.25, 0.5, 1.0, 2.0),
    "gamma": (0.0, 0.1, 0.2, 0.5, 1.0, 2.0),
    "nms_tiou": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
}
CALIBRATED_SPACE: Space = {
    **COMMON_SPACE,
    "companion_ratio": (None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "nms_sigma": (None, 0.1, 0.2, 0.3, 0.5, 1.0),
}
RELEASED_SPACE: Space = COMMON_SPACE


@dataclass(frozen=True)
class SearchTrial:
    """Settings, what they came to, and the one setting by which they differ from the best so far.

    `average` is the mean over `mean_average_precision`, the mAP at each tIoU.
    """

    changed: str
    settings: LocalizationSettings
    mean_average_precision: tuple[float, ...]
    average: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a JSON file."""
        return {**vars(self), "settings": self.settings.model_dump(mode="json")}


def search(
    videos: Sequence[VideoCas],
    truth: GroundTruth,
    description: BundleDescription,
    *,
    tious: Sequence[float] = TIOUS,
    space: Space | None = None,
) -> list[SearchTrial]:
    """All trials in their order; the first is the description's own settings, uncalibrated.

    Each setting in turn takes every value of `space` while the others stay as they are best so
    far; rounds go on until one changes nothing, at most MOST_ROUNDS. The same input gives the
    same trials. Raises InvalidArgument where there is no video.
    """
    if not videos:
        raise InvalidArgument("there are no videos to search on")
    start = description.localization.model_copy(update={"calibration": None})
    if space is None:
        space = CALIBRATED_SPACE if start.preset == "calibrated" else RELEASED_SPACE

    def run(changed: str, settings: LocalizationSettings) -> SearchTrial:
        started = time.perf_counter()
        found = detect(videos, description.model_copy(update={"localization": settings}))
        result = mean_average_precision(truth, found, tious)
        seconds = time.perf_counter() - started
        return SearchTrial(
            changed, settings, result.mean_average_precision, result.average, seconds
        )

    trials = [run("", start)]
    known = {start}
    for _ in range(MOST_ROUNDS):
        before = best(trials)
        for name, values in space.items():
            base = best(trials).settings
            for value in values:
                settings = base.model_copy(update={name: value})
                if settings not in known:
                    known.add(settings)
                    trials.append(run(name, settings))
        if best(trials) is before:
            break
    return trials


def best(trials: Sequence[SearchTrial]) -> SearchTrial:
    """The trial with the highest average; of equal ones the first, which is nearest the start."""
    return max(trials, key=lambda trial: trial.average)
