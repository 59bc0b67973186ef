"""The post-processing of the paper's released code, to the digit.

It differs from the paper, and from the `calibrated` preset, in what METHOD lists: the whole video
is one sequence of T positions, scores are taken on the thresholded sequence, NMS counts a second
too much, ActivityNet and HACS add a proposal that spans the video. Its quirks are kept, because
published checkpoints were chosen with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.localization.nms import suppress
from backtal.localization.scores import Array, CasForm, clipped_range, integral
from backtal.localization.settings import LocalizationSettings
from backtal.segments import Segment

INCLUSIVE_SECOND = 1.0


def resize_linear(rows: Array, num_samples: int) -> Array:
    """Resize [R, T] to [R, num_samples] as OpenCV's INTER_LINEAR does.

    Sample i lies at ``(i + 0.5) * T / num_samples - 0.5``; beyond the outermost positions their
    values are held.
    """
    length = rows.shape[1]
    at = (np.arange(num_samples, dtype=np.float64) + 0.5) * (length / num_samples) - 0.5
    at = np.clip(at, 0, length - 1)
    left = np.minimum(at.astype(np.int64), max(length - 2, 0))
    right = np.minimum(left + 1, length - 1)
    weight = (at - left).astype(rows.dtype)
    resized: Array = rows[:, left] * (1 - weight) + rows[:, right] * weight
    return resized


def released_segments(
    cas: Array,
    class_scores: NDArray[np.floating[Any]],
    magnitude: Array | None,
    *,
    classes: Sequence[str],
    settings: LocalizationSettings,
    kind: CasForm,
    num_frames: int,
    duration_seconds: float,
) -> list[Segment]:
    """The segments of one video, by class, then by falling score.

    `cas` [C(+1), T] raw, `class_scores` [C(+1)] of the video (background, where there is one, is
    the last of both and is left out), `magnitude` [T]: used only with `magnitude_thresholds`.
    """
    num_classes = len(classes)
    present = np.flatnonzero(class_scores[:num_classes] >= settings.class_score_threshold)
    if not present.size:
        return []
    sequences = resize_linear(_normalised(cas[present], kind), num_frames)
    strength = None
    if magnitude is not None and settings.magnitude_thresholds:
        strength = resize_linear(_normalised(magnitude[None], "logits"), num_frames)[0]

    found: list[Segment] = []
    for sequence, index in zip(sequences, present, strict=True):
        found += _segments_of_class(
            sequence,
            strength,
            label=classes[index],
            video_score=float(class_scores[index]),
            settings=settings,
            duration_seconds=duration_seconds,
        )
    return found


def _normalised(rows: Array, kind: CasForm) -> Array:
    if kind == "probability":
        return rows
    low, delta = clipped_range(rows)
    normalised: Array = (rows - low[:, None]) / delta[:, None]
    return normalised


def _segments_of_class(
    sequence: Array,
    strength: Array | None,
    *,
    label: str,
    video_score: float,
    settings: LocalizationSettings,
    duration_seconds: float,
) -> list[Segment]:
    spans: list[NDArray[np.int64]] = []
    contrasts: list[NDArray[np.float64]] = []
    for threshold in settings.cas_thresholds:
        kept = np.where(sequence < threshold, sequence.dtype.type(0), sequence)
        span = _positive_runs(kept)
        spans.append(span)
        contrasts.append(_contrast(kept, span, settings.outer_width))
    if strength is not None:
        for threshold in settings.magnitude_thresholds:
            span = _positive_runs(np.where(strength < threshold, strength.dtype.type(0), strength))
            spans.append(span)
            contrasts.append(_contrast(sequence, span, settings.outer_width))

    intervals = np.concatenate(spans) / sequence.size * duration_seconds
    scores = np.concatenate(contrasts) + settings.gamma * video_score
    if settings.trim_fraction:
        trim = settings.trim_fraction * (intervals[:, 1] - intervals[:, 0])
        intervals = intervals + np.stack([trim, -trim], axis=1)
    if settings.whole_video_score is not None and len(scores):
        intervals = np.concatenate([intervals, [[0.0, duration_seconds]]])
        scores = np.concatenate([scores, [settings.whole_video_score]])
    kept_ones = suppress(intervals, scores, settings.nms_tiou, added_length=INCLUSIVE_SECOND)
    return [
        Segment(float(intervals[i, 0]), float(intervals[i, 1]), label, float(scores[i]))
        for i in kept_ones
    ]


def _positive_runs(sequence: Array) -> NDArray[np.int64]:
    """First sample and one past the last of each run above 0, [P, 2]."""
    positive = np.flatnonzero(sequence > 0)
    # The released code asks `any()` of the indices, so index 0 alone is no proposal.
    if not positive.any():
        return np.zeros((0, 2), dtype=np.int64)
    breaks = np.flatnonzero(np.diff(positive) > 1)
    first = positive[np.concatenate([[0], breaks + 1])]
    last = positive[np.concatenate([breaks, [positive.size - 1]])]
    return np.stack([first, last + 1], axis=1)


def _contrast(sequence: Array, spans: NDArray[np.int64], width: float) -> NDArray[np.float64]:
    """Inner mean minus outer mean; the outer region's right side is a sample or two short."""
    sums = integral(sequence[None])[0]
    first, end = spans[:, 0], spans[:, 1]
    size = end - first
    before = np.maximum((first - width * size).astype(np.int64), 0)
    after = np.clip((end - 1 + width * size).astype(np.int64), end, sequence.size)
    outer_size = (first - before) + (after - end)
    outer = (sums[first] - sums[before]) + (sums[after] - sums[end])
    inner_mean = (sums[end] - sums[first]) / np.maximum(size, 1)
    contrast: NDArray[np.float64] = inner_mean - outer / np.maximum(outer_size, 1)
    return contrast
