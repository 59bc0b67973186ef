"""Batches: a window of each of several videos, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from backtal.errors import InvalidArgument
from backtal_training.datasets import Sample
from backtal_training.losses import NO_CLICK


@dataclass(frozen=True)
class Batch:
    """Padded to the longest: features [B, D, T], lengths [B], video_labels [B, C].

    click_labels and frame_labels [B, T]: NO_CLICK where there is none, and at padding.
    """

    features: Tensor
    lengths: Tensor
    video_labels: Tensor
    click_labels: Tensor
    frame_labels: Tensor

    @property
    def num_videos(self) -> int:
        """B."""
        return int(self.features.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        if device.type == "cpu":
            return self
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))

    def share(self, rank: int, num_processes: int) -> Batch:
        """Every `num_processes`-th video from `rank` on; there may be none."""
        if num_processes == 1:
            return self
        return Batch(*(getattr(self, field.name)[rank::num_processes] for field in fields(self)))


def make_batch(
    samples: Sequence[Sample],
    window_positions: int,
    random: np.random.Generator,
    time_scales: Sequence[float] = (1.0,),
) -> Batch:
    """One window of each video: a random one of `window_positions`, or all of a shorter video.

    Each video is first brought to one of `time_scales`, drawn for it.
    """
    if not samples:
        raise InvalidArgument("a batch needs at least one sample")
    if len(time_scales) > 1 or time_scales[0] != 1:
        drawn = random.choice(time_scales, size=len(samples))
        samples = [rescaled(*pair) for pair in zip(samples, drawn.tolist(), strict=True)]
    starts, lengths = [], []
    for sample in samples:
        length = min(sample.num_positions, window_positions)
        starts.append(int(random.integers(sample.num_positions - length + 1)))
        lengths.append(length)
    longest = max(lengths)
    feature_dim, num_classes = samples[0].features.shape[0], len(samples[0].video_labels)
    features = np.zeros((len(samples), feature_dim, longest), np.float32)
    clicks = np.full((len(samples), longest), NO_CLICK, np.int64)
    frames = np.full((len(samples), longest), NO_CLICK, np.int64)
    for row, (sample, start, length) in enumerate(zip(samples, starts, lengths, strict=True)):
        features[row, :, :length] = sample.features[:, start : start + length]
        frames[row, :length] = sample.frame_labels[start : start + length]
        shifted = sample.click_positions - start
        clicks[row, shifted[(shifted >= 0) & (shifted < length)]] = num_classes
    return Batch(
        features=torch.from_numpy(features),
        lengths=torch.tensor(lengths),
        video_labels=torch.from_numpy(np.stack([sample.video_labels for sample in samples])),
        click_labels=torch.from_numpy(clicks),
        frame_labels=torch.from_numpy(frames),
    )


def rescaled(sample: Sample, scale: float) -> Sample:
    """The video as if it ran `scale` times as fast: features between positions are linear.

    Clicks and frame labels are those of the nearest position.
    """
    length = max(1, round(sample.num_positions / scale))
    if length == sample.num_positions:
        return sample
    step = sample.num_positions / length
    places = np.clip((np.arange(length) + 0.5) * step - 0.5, 0, sample.num_positions - 1)
    left = places.astype(np.int64)
    right = np.minimum(left + 1, sample.num_positions - 1)
    weight = (places - left).astype(np.float32)
    lower = sample.features[:, left]
    clicks = np.minimum(((sample.click_positions + 0.5) / step).astype(np.int64), length - 1)
    return replace(
        sample,
        features=lower + weight * (sample.features[:, right] - lower),
        position_seconds=sample.position_seconds * step,
        click_positions=np.unique(clicks),
        frame_labels=sample.frame_labels[np.rint(places).astype(np.int64)],
    )
