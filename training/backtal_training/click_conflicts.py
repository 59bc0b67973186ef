"""Clicks that look like what is clicked seldom: found in the features, before training.

An action is clicked by mistake, background on purpose. So for each class a linear discriminant
tells the clicks of its videos from all their positions: one covariance for all classes, the means
of each. A video's clicks are judged by the *other* videos of its class alone: no click speaks for
itself. The network that is trained is no such judge: background that resembles the action, where
clicks are worth most, looks to it as actions do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backtal_training.datasets import Sample

Doubles = NDArray[np.float64]
# Added to each feature's variance, in units of the mean variance: a class may have few clicks.
RIDGE = 2.0


def without_conflicts(samples: Sequence[Sample], above: float) -> list[Sample]:
    """The samples without the clicks whose conflict is greater than `above`."""
    return [
        replace(sample, click_positions=sample.click_positions[of_sample <= above])
        for sample, of_sample in zip(samples, click_conflicts(samples), strict=True)
    ]


def click_conflicts(samples: Sequence[Sample]) -> list[Doubles]:
    """Each sample's conflicts, float64 [its clicks].

    How far a click's features lie from its video's mean in the direction in which, in the other
    videos of the class, positions lie from clicks; in standard deviations of all positions (and
    the ridge). The greatest over the video's classes, minus infinity where no other video of any
    of them has a click.
    """
    clicked = [_centred(one)[:, one.click_positions] for one in samples]
    conflicts = [np.full(of_video.shape[1], -np.inf) for of_video in clicked]
    counts = np.array([len(one) for one in conflicts])
    if not counts.any():
        return conflicts
    inverse = np.linalg.inv(_covariance(samples))
    sums = np.stack([of_video.sum(axis=1) for of_video in clicked])
    labels = np.stack([one.video_labels > 0 for one in samples])
    for of_class in labels.T:
        judged = np.flatnonzero(of_class & (counts > 0) & (counts < counts[of_class].sum()))
        num_others = counts[of_class].sum() - counts[judged]
        # The positions' own mean is 0: each video is less its own.
        offsets = (sums[judged] - sums[of_class].sum(axis=0)) / num_others[:, None]
        directions = offsets @ inverse
        deviations = np.sqrt((directions * offsets).sum(axis=1).clip(min=1e-12))
        for video, direction in zip(judged, directions / deviations[:, None], strict=True):
            conflicts[video] = np.maximum(conflicts[video], direction @ clicked[video])
    return conflicts


def _centred(sample: Sample) -> Doubles:
    features = sample.features.astype(np.float64)
    centred: Doubles = features - features.mean(axis=1, keepdims=True)
    return centred


def _covariance(samples: Sequence[Sample]) -> Doubles:
    """Of all positions, each less its video's mean, with the ridge: [D, D]."""
    dim = samples[0].features.shape[0]
    total = np.zeros((dim, dim))
    for sample in samples:
        # In float32, the most of the work: D is 2048 where features are published ones.
        centred = _centred(sample).astype(np.float32)
        total += centred @ centred.T
    total /= sum(sample.num_positions for sample in samples)
    ridge = max(RIDGE * float(np.trace(total)) / dim, 1e-12)
    total[np.diag_indices(dim)] += ridge
    return total
