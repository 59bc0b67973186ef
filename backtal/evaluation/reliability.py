"""Whether a score of 0.8 is right about 8 times in 10: reliability and expected calibration error.

A detection is right where the protocol matches it to an instance at `tiou`; a duplicate is wrong.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import GroundTruth
from backtal.errors import InvalidArgument
from backtal.evaluation.matching import NOT_MATCHED, Detections, Doubles, class_cases

NUM_BINS = 10


@dataclass(frozen=True)
class Bin:
    """The detections with a score from `low` to `high`: how many, how sure, how often right."""

    low: float
    high: float
    num_detections: int
    mean_score: float
    share_right: float


@dataclass(frozen=True)
class Reliability:
    """Scores against how often they are right.

    Attributes:
        tiou: from which overlap on a detection is right.
        bins: equal parts of [0, 1]; those without a detection are left out.
        expected_calibration_error: the mean over detections of the distance, in their bin,
            between the mean score and the share that is right.
        num_detections: all that were counted.
        num_beyond: those with a score outside [0, 1], which was taken as 0 or 1.
    """

    tiou: float
    bins: tuple[Bin, ...]
    expected_calibration_error: float
    num_detections: int
    num_beyond: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a JSON file."""
        return asdict(self)


def outcomes(
    truth: GroundTruth, detections: Detections, tiou: float = 0.5
) -> tuple[Doubles, NDArray[np.bool_]]:
    """The score of every detection and whether it is right, both [N].

    Raises InvalidArgument for a tIoU outside (0, 1] or a label that the ground truth lacks.
    """
    if not 0 < tiou <= 1:
        raise InvalidArgument(f"a tIoU of {tiou}; it must be in (0, 1]")
    scores, right = [np.zeros(0)], [np.zeros(0, dtype=np.bool_)]
    for case in class_cases(truth, detections).values():
        scores.append(np.array([one.segment.score for one in case.ranked], dtype=np.float64))
        right.append(case.match(np.array([tiou]))[0] != NOT_MATCHED)
    return np.concatenate(scores), np.concatenate(right)


def reliability(truth: GroundTruth, detections: Detections, tiou: float = 0.5) -> Reliability:
    """How true the scores of `detections` are. Raises InvalidArgument as `outcomes` does."""
    scores, right = outcomes(truth, detections, tiou)
    clipped = np.clip(scores, 0.0, 1.0)
    place = np.minimum((clipped * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = []
    for index in np.unique(place).tolist():
        mine = place == index
        bins.append(
            Bin(
                low=index / NUM_BINS,
                high=(index + 1) / NUM_BINS,
                num_detections=int(mine.sum()),
                mean_score=float(clipped[mine].mean()),
                share_right=float(right[mine].mean()),
            )
        )
    off = sum(one.num_detections * abs(one.mean_score - one.share_right) for one in bins)
    return Reliability(
        tiou=tiou,
        bins=tuple(bins),
        expected_calibration_error=off / max(1, scores.size),
        num_detections=int(scores.size),
        num_beyond=int((scores != clipped).sum()),
    )
