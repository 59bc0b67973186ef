"""Which detection finds which instance, by ActivityNet's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import GroundTruth, Instance
from backtal.errors import InvalidArgument
from backtal.localization.choice import nearest
from backtal.segments import Segment, overlap_ratio

Detections = Mapping[str, Sequence[Segment]]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

NOT_MATCHED = -1


@dataclass(frozen=True)
class Detection:
    """A segment and the video that it is of."""

    video: str
    segment: Segment


@dataclass(frozen=True)
class ClassCase:
    """One class: its instances by video, and its detections by falling score.

    Of equal scores the order is that of video, start and end, so that neither the order of a
    file nor the machine changes a figure.
    """

    label: str
    instances: Mapping[str, tuple[Instance, ...]]
    ranked: tuple[Detection, ...]

    @property
    def num_instances(self) -> int:
        """Over all videos."""
        return sum(len(of_video) for of_video in self.instances.values())

    def match(self, tious: Doubles) -> Indices:
        """For each tIoU and detection the place of its instance in its video, [K, N].

        By falling score, each detection takes the free instance of its video that it overlaps
        most, if by at least the tIoU; else NOT_MATCHED.
        """
        of_video: dict[str, list[int]] = {}
        for index, one in enumerate(self.ranked):
            of_video.setdefault(one.video, []).append(index)
        matched = np.full((tious.size, len(self.ranked)), NOT_MATCHED, dtype=np.int64)
        for video, indices in of_video.items():
            if video in self.instances:
                found = intervals([self.ranked[index].segment for index in indices])
                overlap = overlap_ratio(found, intervals(self.instances[video]))
                matched[:, indices] = _match(overlap, tious)
        return matched


def class_cases(truth: GroundTruth, detections: Detections) -> dict[str, ClassCase]:
    """Each class that has an instance or a detection, by name.

    Raises InvalidArgument for a detection with a label that the ground truth does not know.
    """
    instances: dict[str, dict[str, tuple[Instance, ...]]] = {}
    for name, video in truth.videos.items():
        for label in video.labels:
            mine = tuple(one for one in video.instances if one.label == label)
            instances.setdefault(label, {})[name] = mine
    found: dict[str, list[Detection]] = {}
    for name, segments in detections.items():
        for segment in segments:
            found.setdefault(segment.label, []).append(Detection(name, segment))
    for label in sorted(set(found) - set(truth.classes)):
        raise InvalidArgument(
            f"a detection has the label {label!r}, which the ground truth does not know"
            f"{nearest(label, truth.classes)}"
        )
    return {
        label: ClassCase(
            label, instances.get(label, {}), tuple(sorted(found.get(label, []), key=_rank))
        )
        for label in sorted({*instances, *found})
    }


def intervals(stretches: Sequence[Instance] | Sequence[Segment]) -> Doubles:
    """Their starts and ends, [N, 2], in seconds."""
    pairs = [[one.start_seconds, one.end_seconds] for one in stretches]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _rank(one: Detection) -> tuple[float, str, float, float]:
    segment = one.segment
    return -segment.score, one.video, segment.start_seconds, segment.end_seconds


def _match(overlap: Doubles, tious: Doubles) -> Indices:
    """Greedy matching within a video: detections [N, M] in their order, at each tIoU, [K, N]."""
    is_free = np.ones((tious.size, overlap.shape[1]), dtype=np.bool_)
    matched = np.full((tious.size, overlap.shape[0]), NOT_MATCHED, dtype=np.int64)
    every = np.arange(tious.size)
    for index, row in enumerate(overlap):
        open_to = np.where(is_free, row, -1.0)
        best = open_to.argmax(axis=1)
        is_match = open_to[every, best] >= tious
        matched[is_match, index] = best[is_match]
        is_free[every, best] &= ~is_match
    return matched
