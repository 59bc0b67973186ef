"""Mean average precision by ActivityNet's protocol, and its file of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import GroundTruth, Instance
from backtal.errors import InvalidArgument
from backtal.fields import (
    expect_interval,
    expect_list,
    expect_number,
    expect_object,
    expect_text,
    parse_json_object,
    read_bytes,
)
from backtal.localization.choice import nearest
from backtal.segments import Segment, overlap_ratio

Detections = Mapping[str, Sequence[Segment]]
Doubles = NDArray[np.float64]

RESULTS_VERSION = "VERSION 1.3"


@dataclass(frozen=True)
class EvaluationResult:
    """The average precision of every class at every tIoU, and their means.

    Attributes:
        tious: the tIoU thresholds.
        class_average_precision: for each class of the ground truth its AP at each of `tious`.
        num_videos: the videos of the ground truth.
        num_instances: their instances.
        num_detections: the detections that were counted.
    """

    tious: tuple[float, ...]
    class_average_precision: dict[str, tuple[float, ...]]
    num_videos: int
    num_instances: int
    num_detections: int

    @property
    def mean_average_precision(self) -> tuple[float, ...]:
        """The mAP at each of `tious`."""
        table = np.array(list(self.class_average_precision.values()))
        return tuple(table.mean(axis=0).tolist())

    @property
    def average(self) -> float:
        """The mAP's mean over `tious`."""
        return float(np.mean(self.mean_average_precision))

    def at(self, tiou: float) -> float:
        """The mAP at one tIoU. Raises InvalidArgument for one that was not asked for."""
        for known, value in zip(self.tious, self.mean_average_precision, strict=True):
            if abs(known - tiou) < 1e-9:
                return value
        raise InvalidArgument(f"no mAP at tIoU {tiou}; there is one at {list(self.tious)}")


def mean_average_precision(
    ground_truth: GroundTruth,
    detections: Detections,
    tious: Sequence[float],
    *,
    subset: str | None = None,
    missing: Literal["error", "empty"] = "error",
) -> EvaluationResult:
    """Score `detections` (by video name) against the ground truth, or one subset of it.

    For each class, over all videos: detections by falling score, each matched to the free
    instance of its video that it overlaps most, if by at least the tIoU; precision interpolated;
    classes without an instance do not count. Equal scores keep the order they come in.

    A video of the ground truth for which there are no detections at all must still be a key:
    else it counts as forgotten. `missing="empty"` takes it as a video in which nothing was found.
    Raises InvalidArgument for a missing or an unknown video, a label that the ground truth does
    not know, a subset without instances, a tIoU outside (0, 1].
    """
    _check_tious(tious)
    truth = ground_truth if subset is None else ground_truth.subset(subset)
    instances = _instances_by_class(truth)
    if not instances:
        raise InvalidArgument(f"{truth.source} has no instance to evaluate against")
    _check_videos(truth, detections, missing)
    found = _detections_by_class(detections, ground_truth.classes)
    return EvaluationResult(
        tious=tuple(float(tiou) for tiou in tious),
        class_average_precision={
            label: tuple(_average_precision(instances[label], found.get(label, []), tious))
            for label in sorted(instances)
        },
        num_videos=len(truth.videos),
        num_instances=sum(len(video.instances) for video in truth.videos.values()),
        num_detections=sum(len(segments) for segments in detections.values()),
    )


def _check_tious(tious: Sequence[float]) -> None:
    if not tious:
        raise InvalidArgument("tious is empty; name at least one tIoU in (0, 1]")
    for tiou in tious:
        if not 0 < tiou <= 1:
            raise InvalidArgument(f"a tIoU of {tiou}; it must be in (0, 1]")


def _check_videos(truth: GroundTruth, detections: Detections, missing: str) -> None:
    extra = sorted(set(detections) - set(truth.videos))
    if extra:
        raise InvalidArgument(
            f"detections for {len(extra)} videos that {truth.source} does not have: {_few(extra)}"
        )
    lacking = sorted(set(truth.videos) - set(detections))
    if lacking and missing == "error":
        raise InvalidArgument(
            f"no detections for {len(lacking)} of {len(truth.videos)} videos of {truth.source}: "
            f"{_few(lacking)}; a video in which nothing was found needs an empty list"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _instances_by_class(truth: GroundTruth) -> dict[str, dict[str, list[Instance]]]:
    grouped: dict[str, dict[str, list[Instance]]] = {}
    for name, video in truth.videos.items():
        for instance in video.instances:
            grouped.setdefault(instance.label, {}).setdefault(name, []).append(instance)
    return grouped


def _detections_by_class(
    detections: Detections, known: Sequence[str]
) -> dict[str, list[tuple[str, Segment]]]:
    grouped: dict[str, list[tuple[str, Segment]]] = {}
    for name, segments in detections.items():
        for segment in segments:
            grouped.setdefault(segment.label, []).append((name, segment))
    for label in sorted(set(grouped) - set(known)):
        raise InvalidArgument(
            f"a detection has the label {label!r}, which the ground truth does not know"
            f"{nearest(label, known)}"
        )
    return grouped


def _average_precision(
    instances: Mapping[str, Sequence[Instance]],
    found: Sequence[tuple[str, Segment]],
    tious: Sequence[float],
) -> Doubles:
    """One class's AP at each tIoU, [len(tious)]."""
    num_instances = sum(len(of_video) for of_video in instances.values())
    is_true = _true_positives(instances, found, np.asarray(tious, dtype=np.float64))
    true = np.cumsum(is_true, axis=1)
    ranks = np.arange(1, is_true.shape[1] + 1)
    return np.array([_interpolated(row / ranks, row / num_instances) for row in true])


def _true_positives(
    instances: Mapping[str, Sequence[Instance]],
    found: Sequence[tuple[str, Segment]],
    tious: Doubles,
) -> NDArray[np.bool_]:
    """Which detections, by falling score, match an instance at each tIoU: [tIoUs, detections]."""
    scores = np.array([segment.score for _, segment in found], dtype=np.float64)
    rank = np.empty(len(found), dtype=np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(found))
    of_video: dict[str, list[int]] = {}
    for index, (name, _) in enumerate(found):
        of_video.setdefault(name, []).append(index)

    is_true = np.zeros((tious.size, len(found)), dtype=np.bool_)
    for name, indices in of_video.items():
        if name not in instances:
            continue
        indices.sort(key=lambda index: rank[index])
        truth = _intervals(instances[name])
        overlap = overlap_ratio(_intervals([found[index][1] for index in indices]), truth)
        is_true[:, rank[indices]] = _match(overlap, tious)
    return is_true


def _match(overlap: Doubles, tious: Doubles) -> NDArray[np.bool_]:
    """Greedy matching within a video: detections [N, M] in their order, at each tIoU, [K, N]."""
    is_free = np.ones((tious.size, overlap.shape[1]), dtype=np.bool_)
    matched = np.zeros((tious.size, overlap.shape[0]), dtype=np.bool_)
    every = np.arange(tious.size)
    for index, row in enumerate(overlap):
        open_to = np.where(is_free, row, -1.0)
        best = open_to.argmax(axis=1)
        matched[:, index] = open_to[every, best] >= tious
        is_free[every, best] &= ~matched[:, index]
    return matched


def _intervals(stretches: Sequence[Instance] | Sequence[Segment]) -> Doubles:
    return np.array([[one.start_seconds, one.end_seconds] for one in stretches], dtype=np.float64)


def _interpolated(precision: Doubles, recall: Doubles) -> float:
    """The area under precision over recall, precision being the best at any higher recall."""
    padded = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(padded[::-1])[::-1]
    steps = np.concatenate([[0.0], recall, [1.0]])
    return float(np.sum(np.diff(steps) * envelope[1:]))


def read_results(path: Path) -> dict[str, tuple[Segment, ...]]:
    """Read detections in ActivityNet's format of results.

    Raises NotFound, or InvalidFile naming the video, the detection and the value.
    """
    return parse_results(read_bytes(path), str(path))


def parse_results(content: bytes, source: str = "results") -> dict[str, tuple[Segment, ...]]:
    """Read the bytes of such a file. Raises InvalidFile."""
    document = parse_json_object(content, source)
    results = expect_object(document.get("results"), f"{source}: results")
    detections = {}
    for name, entries in results.items():
        where = f"{source}: results.{name}"
        detections[name] = tuple(
            _segment(entry, f"{where}[{index}]")
            for index, entry in enumerate(expect_list(entries, where))
        )
    return detections


def _segment(entry: Any, where: str) -> Segment:
    fields = expect_object(entry, where)
    start, end = expect_interval(fields.get("segment"), f"{where}.segment")
    label = expect_text(fields.get("label"), f"{where}.label")
    return Segment(start, end, label, expect_number(fields.get("score"), f"{where}.score"))


def write_results(path: Path, detections: Detections) -> None:
    """Write detections in ActivityNet's format of results, to full precision."""
    path.write_text(json.dumps(results_document(detections)), encoding="utf-8")


def results_document(detections: Detections) -> dict[str, Any]:
    """Detections as ActivityNet's results: what `write_results` writes, as plain data."""
    results = {
        name: [
            {
                "label": segment.label,
                "score": segment.score,
                "segment": [segment.start_seconds, segment.end_seconds],
            }
            for segment in segments
        ]
        for name, segments in detections.items()
    }
    external: dict[str, Any] = {"used": False, "details": ""}
    return {"version": RESULTS_VERSION, "results": results, "external_data": external}
