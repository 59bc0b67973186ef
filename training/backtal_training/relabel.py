"""What a run makes of its labels: clicks dropped and spread before it trains, pseudo-labels then.

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
from backtal_training.click_conflicts import without_conflicts
from backtal_training.datasets import IntArray, Sample
from backtal_training.losses import NO_CLICK


class RelabelSettings(Settings):
    """All off by default: the paper takes the clicks as they are.

    A conflict is that of `click_conflicts`. An activation is the suppressed CAS of the video's own
    classes, the greatest of them, each between its least (0) and its greatest value (1) in the
    video.
    """

    drop_above: float | None = Field(
        default=None, gt=0, description="a click in greater conflict is not believed"
    )
    spread_positions: int = Field(default=0, ge=0, description="a click's reach to either side")
    spread_cosine: float = Field(
        default=0.9, gt=-1, le=1, description="least likeness of a neighbour that it reaches"
    )
    pseudo_weight: float = Field(default=0.0, ge=0, description="of the loss on pseudo-labels")
    pseudo_action: float = Field(default=0.7, gt=0, le=1, description="an action from there on")
    pseudo_background: float = Field(default=0.1, ge=0, lt=1, description="background up to there")
    from_epoch: int = Field(default=11, ge=2, description="the first that the teacher prepares")

    @property
    def needs_teacher(self) -> bool:
        """Whether anything is decided by the network."""
        return self.pseudo_weight > 0


def prepared(samples: Sequence[Sample], settings: RelabelSettings) -> list[Sample]:
    """What weak supervision begins with: no frame's class, and the clicks that it believes."""
    samples = [without_frames(one) for one in samples]
    if settings.drop_above is not None:
        samples = without_conflicts(samples, settings.drop_above)
    return [spread_clicks(one, settings) for one in samples]


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
    """The samples with the teacher's word on their positions.

    `answers` are each sample's raw cas [C+1, L] and magnitude.
    """
    return [
        replace(sample, frame_labels=_pseudo_labels(own, cas, sample.click_positions, settings))
        if len(own := np.flatnonzero(sample.video_labels))
        else sample
        for sample, cas, _ in answers
    ]


def _pseudo_labels(
    own: NDArray[np.intp], cas: FloatArray, clicks: IntArray, settings: RelabelSettings
) -> IntArray:
    activation, background = _normalised(cas[own]), len(cas) - 1
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
