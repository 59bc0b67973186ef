"""Mean average precision by ActivityNet's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backtal.annotations import GroundTruth
from backtal.errors import InvalidArgument
from backtal.evaluation.matching import (
    NOT_MATCHED,
    ClassCase,
    Detections,
    Doubles,
    class_cases,
)

# 0.1 + 0.2 is not 0.3: an overlap of exactly a threshold would depend on how it was written.
TIOU_DIGITS = 6


@dataclass(frozen=True)
class EvaluationResult:
    """The average precision of every class at every tIoU, and their means.

    Attributes:
        tious: the tIoU thresholds, rounded to six digits.
        class_average_precision: for each class of the ground truth its AP at each of `tious`.
        num_videos: the videos of the ground truth.
        num_instances: their instances.
        num_detections: the detections that were counted.
        missing_videos: those without detections that were counted as empty.
        extra_videos: those that the ground truth lacks, whose detections were counted as wrong.
    """

    tious: tuple[float, ...]
    class_average_precision: dict[str, tuple[float, ...]]
    num_videos: int
    num_instances: int
    num_detections: int
    missing_videos: tuple[str, ...] = ()
    extra_videos: tuple[str, ...] = ()

    @property
    def mean_average_precision(self) -> tuple[float, ...]:
        """The mAP at each of `tious`."""
        table = np.array(list(self.class_average_precision.values()))
        return tuple(table.mean(axis=0).tolist())

    @property
    def average(self) -> float:
        """The mAP's mean over `tious`."""
        return float(np.mean(self.mean_average_precision))

    def average_between(self, low: float, high: float) -> float:
        """The mAP's mean over the tIoUs from `low` to `high`, both counted.

        Raises InvalidArgument where none of `tious` lies there.
        """
        slack = 10.0**-TIOU_DIGITS
        inside = [
            value
            for tiou, value in zip(self.tious, self.mean_average_precision, strict=True)
            if low - slack <= tiou <= high + slack
        ]
        if not inside:
            raise InvalidArgument(
                f"no mAP at a tIoU from {low} to {high}; there is one at {list(self.tious)}"
            )
        return float(np.mean(inside))

    def at(self, tiou: float) -> float:
        """The mAP at one tIoU. Raises InvalidArgument for one that was not asked for."""
        for known, value in zip(self.tious, self.mean_average_precision, strict=True):
            if abs(known - tiou) < 10.0**-TIOU_DIGITS:
                return value
        raise InvalidArgument(f"no mAP at tIoU {tiou}; there is one at {list(self.tious)}")


def mean_average_precision(
    ground_truth: GroundTruth,
    detections: Detections,
    tious: Sequence[float],
    *,
    subset: str | None = None,
    missing: Literal["error", "empty"] = "error",
    extra: Literal["error", "wrong"] = "error",
) -> EvaluationResult:
    """Score `detections` (by video name) against the ground truth, or one subset of it.

    For each class, over all videos: detections by falling score, each matched to the free
    instance of its video that it overlaps most, if by at least the tIoU; precision interpolated;
    classes without an instance do not count. What equal scores do is in `ClassCase`.

    A video of the ground truth for which there are no detections at all must still be a key:
    else it counts as forgotten. `missing="empty"` takes it as a video in which nothing was found.
    With `extra="wrong"` the detections of videos that the ground truth lacks count as wrong, as
    ActivityNet's own code has it.
    Raises InvalidArgument for a missing or an unknown video, a label that the ground truth does
    not know, a subset without instances, a tIoU outside (0, 1].
    """
    rounded = _rounded(tious)
    truth = ground_truth if subset is None else ground_truth.subset(subset)
    lacking, unknown = check_videos(truth, detections, missing, extra)
    cases = class_cases(truth, detections)
    counted = [case for case in cases.values() if case.num_instances]
    if not counted:
        raise InvalidArgument(f"{truth.source} has no instance to evaluate against")
    return EvaluationResult(
        tious=tuple(rounded.tolist()),
        class_average_precision={
            case.label: tuple(average_precision(case, rounded).tolist()) for case in counted
        },
        num_videos=len(truth.videos),
        num_instances=sum(case.num_instances for case in counted),
        num_detections=sum(len(segments) for segments in detections.values()),
        missing_videos=lacking,
        extra_videos=unknown,
    )


def average_precision(case: ClassCase, tious: Doubles) -> Doubles:
    """One class's AP at each tIoU, [len(tious)]."""
    is_true = case.match(tious) != NOT_MATCHED
    true = np.cumsum(is_true, axis=1)
    ranks = np.arange(1, is_true.shape[1] + 1)
    return np.array([interpolated(row / ranks, row / case.num_instances) for row in true])


def interpolated(precision: Doubles, recall: Doubles) -> float:
    """The area under precision over recall, precision being the best at any higher recall."""
    padded = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(padded[::-1])[::-1]
    steps = np.concatenate([[0.0], recall, [1.0]])
    return float(np.sum(np.diff(steps) * envelope[1:]))


def check_videos(
    truth: GroundTruth, detections: Detections, missing: str = "error", extra: str = "error"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The videos without detections, and those that the ground truth lacks.

    Raises InvalidArgument where there are some and that is an error.
    """
    unknown = sorted(set(detections) - set(truth.videos))
    if unknown and extra == "error":
        raise InvalidArgument(
            f"detections for {len(unknown)} videos that {truth.source} does not have: "
            f"{_few(unknown)}"
        )
    lacking = sorted(set(truth.videos) - set(detections))
    if lacking and missing == "error":
        raise InvalidArgument(
            f"no detections for {len(lacking)} of {len(truth.videos)} videos of {truth.source}: "
            f"{_few(lacking)}; a video in which nothing was found needs an empty list"
        )
    return tuple(lacking), tuple(unknown)


def _rounded(tious: Sequence[float]) -> Doubles:
    if not tious:
        raise InvalidArgument("tious is empty; name at least one tIoU in (0, 1]")
    for tiou in tious:
        if not 0 < round(tiou, TIOU_DIGITS) <= 1:
            raise InvalidArgument(f"a tIoU of {tiou}; it must be in (0, 1]")
    return np.array([round(tiou, TIOU_DIGITS) for tiou in tious], dtype=np.float64)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
