"""What a run makes of its labels while it trains: clicks spread and doubted, pseudo-labels.

The teacher is the average of the weights (without averaging, the weights themselves). It looks at
training videos only, with their own labels, after an epoch; what it says holds for the next one,
so that nothing but the weights must be kept to go on after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from backtal.features import FloatArray
from backtal.settings import Settings
from backtal_training.datasets import IntArray, Sample
from backtal_training.losses import NO_CLICK


class RelabelSettings(Settings):
    """All off by default: the paper takes the clicks as they are.

    An activation is the suppressed CAS of the video's own classes, the greatest of them, each
    between its least (0) and its greatest value (1) in the video.
    """

    spread_positions: int = Field(default=0, ge=0, description="a click's reach to either side")
    spread_cosine: float = Field(
        default=0.9, gt=-1, le=1, description="least likeness of a neighbour that it reaches"
    )
    drop_above: float | None = Field(
        default=None, gt=0, le=1, description="a click on such an activation is not believed"
    )
    pseudo_weight: float = Field(default=0.0, ge=0, description="of the loss on pseudo-labels")
    pseudo_action: float = Field(default=0.7, gt=0, le=1, description="an action from there on")
    pseudo_background: float = Field(default=0.1, ge=0, lt=1, description="background up to there")
    from_epoch: int = Field(default=11, ge=2, description="the first that the teacher prepares")

    @property
    def needs_teacher(self) -> bool:
        """Whether anything is decided by the network."""
        return self.drop_above is not None or self.pseudo_weight > 0


def without_frames(sample: Sample) -> Sample:
    """The sample with no class at any position: what weak supervision may see."""
    return replace(sample, frame_labels=np.full(sample.num_positions, NO_CLICK, np.int64))


def spread_clicks(sample: Sample, settings: RelabelSettings) -> Sample:
    """Each click reaches on to its neighbours as long as they are near-identical to it.

    Likeness is the cosine of the features, less the video's mean.
    """
    if not settings.spread_positions or not len(sample.click_positions):
        return sample
    centred = sample.features - sample.features.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=0).clip(min=1e-12)
    reached: set[int] = set()
    for click in sample.click_positions.tolist():
        alike = centred.T @ centred[:, click] >= settings.spread_cosine
        reached.add(click)
        for direction in (-1, 1):
            for distance in range(1, settings.spread_positions + 1):
                position = click + direction * distance
                if not 0 <= position < sample.num_positions or not alike[position]:
                    break
                reached.add(position)
    return replace(sample, click_positions=np.array(sorted(reached), np.int64))


def relabelled(
    answers: Sequence[tuple[Sample, FloatArray, FloatArray]], settings: RelabelSettings
) -> list[Sample]:
    """The samples with the teacher's word on their clicks and positions.

    `answers` are each sample's raw cas [C+1, L] and magnitude.
    """
    return [_relabelled(sample, cas, settings) for sample, cas, _ in answers]


def _relabelled(sample: Sample, cas: FloatArray, settings: RelabelSettings) -> Sample:
    own = np.flatnonzero(sample.video_labels)
    if not len(own):
        return sample
    activation = _normalised(cas[own])
    strongest = activation.max(axis=0)
    clicks = sample.click_positions
    if settings.drop_above is not None:
        clicks = clicks[strongest[clicks] < settings.drop_above]
    sample = replace(sample, click_positions=clicks)
    if settings.pseudo_weight:
        labels = _pseudo_labels(own, activation, clicks, len(cas) - 1, settings)
        sample = replace(sample, frame_labels=labels)
    return sample


def _pseudo_labels(
    own: NDArray[np.intp],
    activation: FloatArray,
    clicks: IntArray,
    background: int,
    settings: RelabelSettings,
) -> IntArray:
    strongest = activation.max(axis=0)
    labels = np.full(activation.shape[1], NO_CLICK, np.int64)
    labels[strongest <= settings.pseudo_background] = background
    acting = strongest >= settings.pseudo_action
    labels[acting] = own[activation.argmax(axis=0)][acting]
    labels[clicks] = background
    return labels


def _normalised(cas: FloatArray) -> FloatArray:
    low, high = cas.min(axis=1, keepdims=True), cas.max(axis=1, keepdims=True)
    normalised: FloatArray = (cas - low) / np.maximum(high - low, 1e-6)
    return normalised
