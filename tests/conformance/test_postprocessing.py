"""Segments, and the video scores they rest on, against the released implementation.

The released code overwrites its class scores by 0 and 1 once it has compared them to the
threshold, after it has taken note of them for the segments' scores. Where the vectors hold them
overwritten, each class's video score is the one number of the answer that is not given: it is
taken from the answer itself, must be a probability above the threshold, and one value must
explain all segments of the class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backtal.localization import LocalizationSettings, video_scores
from backtal.localization.presets import PRESETS
from backtal.localization.released import released_segments
from backtal.segments import Segment
from tests.conformance.conftest import Reference

SCORE_TOLERANCE = 1e-3


def test_video_scores(reference: Reference) -> None:
    ratio = PRESETS[reference.dataset].top_k_ratio
    for cas, expected in zip(
        reference.arrays["eval_cas"], reference.arrays["eval_score"], strict=True
    ):
        assert video_scores(cas, ratio) == pytest.approx(expected, abs=1e-5)


def test_segments(reference: Reference) -> None:
    preset = PRESETS[reference.dataset]
    expected = [
        Segment(*one["segment"], one["label"], one["score"]) for one in reference.meta["segments"]
    ]
    scores = _class_scores(reference, expected)
    # The scores decide who is present by themselves: absent classes have 0.
    got = _segments(reference, scores, preset.model_copy(update={"class_score_threshold": 1e-9}))

    assert [one.label for one in got] == [one.label for one in expected]
    sample = _sample_seconds(reference)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.start_seconds == pytest.approx(theirs.start_seconds, abs=sample)
        assert ours.end_seconds == pytest.approx(theirs.end_seconds, abs=sample)
        assert ours.score == pytest.approx(theirs.score, abs=SCORE_TOLERANCE)


def _class_scores(reference: Reference, expected: list[Segment]) -> NDArray[np.float64]:
    given = reference.arrays["pp_cls"][0].astype(np.float64)
    threshold = float(reference.arrays["pp_cls_threshold"])
    num_classes = reference.meta["num_classes"]
    present = given[:num_classes] >= threshold
    assert {one.label for one in expected} <= {f"c{i}" for i in np.flatnonzero(present)}
    scores = np.where(present, given[:num_classes], 0.0)
    if np.isin(given[:num_classes], (0, 1)).all():
        scores = _explained_scores(reference, expected, scores)
        found = [i for i in range(num_classes) if f"c{i}" in {one.label for one in expected}]
        assert (scores[found] >= threshold - SCORE_TOLERANCE).all()
        background = given[num_classes]
        assert scores[found].sum() + background <= 1 + SCORE_TOLERANCE
    return np.append(scores, 0.0)


def _explained_scores(
    reference: Reference, expected: list[Segment], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each class's video score by which the most of its expected segments can be explained."""
    preset = PRESETS[reference.dataset]
    without = {
        "gamma": 0.0,
        "nms_tiou": 1.0,
        "whole_video_score": None,
        "class_score_threshold": 0.5,
    }
    contrasts = _segments(reference, np.append(scores, 0.0), preset.model_copy(update=without))
    explained = scores.copy()
    for index in np.flatnonzero(scores):
        mine = [one for one in expected if one.label == f"c{index}"]
        candidates = [
            (theirs.score - ours.score) / preset.gamma
            for theirs in mine
            for ours in contrasts
            if ours.label == theirs.label and _same_time(ours, theirs, _sample_seconds(reference))
        ]
        votes = [sum(abs(a - b) < SCORE_TOLERANCE for b in candidates) for a in candidates]
        if votes:
            explained[index] = candidates[int(np.argmax(votes))]
    return explained


def _same_time(one: Segment, other: Segment, sample: float) -> bool:
    start = abs(one.start_seconds - other.start_seconds)
    return start < sample / 2 and abs(one.end_seconds - other.end_seconds) < sample / 2


def _sample_seconds(reference: Reference) -> float:
    return float(reference.arrays["pp_duration"] / reference.arrays["pp_frame_num"])


def _segments(
    reference: Reference, scores: NDArray[np.float64], settings: LocalizationSettings
) -> list[Segment]:
    arrays: dict[str, Any] = reference.arrays
    return released_segments(
        arrays["pp_cas"][0],
        scores,
        np.linalg.norm(arrays["pp_feature"][0], axis=0),
        classes=[f"c{i}" for i in range(reference.meta["num_classes"])],
        settings=settings,
        kind="logits",
        num_frames=int(arrays["pp_frame_num"]),
        duration_seconds=float(arrays["pp_duration"]),
    )
