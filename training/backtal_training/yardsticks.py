"""What a figure is held against: chance, the scene alone, the scene with motion energy as CAS.

(Full supervision, the fourth, is the same network with another loss: see `experiment`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backtal.annotations import GroundTruth, Instance
from backtal.errors import InvalidFile
from backtal.evaluation import Detections, mean_average_precision
from backtal.features import FloatArray, resample_to_grid
from backtal.localization import localize
from backtal.manifest import BundleDescription
from backtal.segments import Segment
from backtal_training.adam import Adam
from backtal_training.datasets import Sample

_LOWEST_LOG_PROBABILITY = -20.0
_LEARNING_RATE = 0.01
_NUM_STEPS = 500


def chance(
    training: Sequence[Sample],
    test: Sequence[Sample],
    truth: GroundTruth,
    tious: Sequence[float],
    *,
    num_draws: int = 50,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The mAP [len(tious)] of guesses, averaged over draws.

    Each test video gets as many segments as a random training video has instances, with the
    labels and lengths of random training instances, at random times, with random scores.
    """
    random = np.random.default_rng(seed)
    instances = [instance for sample in training for instance in sample.instances]
    counts = [len(sample.instances) for sample in training]
    maps = []
    for _ in range(num_draws):
        guesses = {sample.name: _guess(sample, instances, counts, random) for sample in test}
        maps.append(mean_average_precision(truth, guesses, tious).mean_average_precision)
    mean: NDArray[np.float64] = np.mean(maps, axis=0)
    return mean


def _guess(
    sample: Sample,
    instances: Sequence[Instance],
    counts: Sequence[int],
    random: np.random.Generator,
) -> tuple[Segment, ...]:
    segments = []
    for _ in range(int(random.choice(counts))):
        like = instances[int(random.integers(len(instances)))]
        seconds = min(like.end_seconds - like.start_seconds, sample.duration_seconds)
        start = float(random.uniform(0, sample.duration_seconds - seconds))
        segments.append(Segment(start, start + seconds, like.label, float(random.random())))
    return tuple(segments)


class SceneClassifier:
    """Logistic regression from a video's mean feature to its label: no time in it at all."""

    def __init__(self, samples: Sequence[Sample], *, penalty: float = 1e-2) -> None:
        """Fit on `samples`; `penalty` weighs the squared weights against the cross entropy."""
        features = _mean_features(samples)
        self._centre = features.mean(dim=0)
        self._scale = features.std(dim=0).clamp(min=1e-6)
        labels = torch.from_numpy(np.stack([sample.video_labels for sample in samples]))
        labels = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
        inputs = (features - self._centre) / self._scale
        self._weight = torch.zeros(features.shape[1], labels.shape[1], requires_grad=True)
        self._bias = torch.zeros(labels.shape[1], requires_grad=True)
        adam = Adam([self._weight, self._bias], learning_rate=_LEARNING_RATE)
        for _ in range(_NUM_STEPS):
            scores = (inputs @ self._weight + self._bias).log_softmax(dim=1)
            loss = -(labels * scores).sum(dim=1).mean() + penalty * self._weight.square().sum()
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()

    def log_probabilities(self, samples: Sequence[Sample]) -> FloatArray:
        """[len(samples), C]."""
        with torch.no_grad():
            inputs = (_mean_features(samples) - self._centre) / self._scale
            return (inputs @ self._weight + self._bias).log_softmax(dim=1).numpy()

    def accuracy(self, samples: Sequence[Sample]) -> float:
        """The part of the videos whose likeliest class is one of theirs."""
        likeliest = self.log_probabilities(samples).argmax(axis=1)
        right = [
            sample.video_labels[label] for sample, label in zip(samples, likeliest, strict=True)
        ]
        return float(np.mean(right))


def scene_alone(
    classifier: SceneClassifier, samples: Sequence[Sample], classes: Sequence[str]
) -> Detections:
    """Every class by its probability, the whole video as its segment."""
    return {
        sample.name: tuple(
            Segment(0.0, sample.duration_seconds, label, float(np.exp(score)))
            for label, score in zip(classes, scores, strict=True)
        )
        for sample, scores in zip(samples, classifier.log_probabilities(samples), strict=True)
    }


def scene_with_motion(
    classifier: SceneClassifier,
    samples: Sequence[Sample],
    motion: Mapping[str, FloatArray],
    description: BundleDescription,
    *,
    smoothing_positions: int = 1,
) -> Detections:
    """The scene's label, with the motion energy as every class's CAS.

    `motion` [L] of each sample is on its grid. Each class's CAS is the energy plus the scene's
    log-probability plus a constant: the min-max normalisation of localization removes the sums,
    its softmax of top-k means gives the scene's probabilities back.
    """
    description = motion_description(description)
    detections = {}
    for sample, scores in zip(samples, classifier.log_probabilities(samples), strict=True):
        energy = _smoothed(motion[sample.name], smoothing_positions)
        spread = float(energy.max() - energy.min()) or 1.0
        energy = (energy - energy.min()) / spread
        above = np.maximum(scores, _LOWEST_LOG_PROBABILITY) - _LOWEST_LOG_PROBABILITY
        detections[sample.name] = localize(
            (energy[None] + above[:, None]).astype(np.float32),
            description=description,
            duration_seconds=sample.duration_seconds,
        )
    return detections


def motion_description(description: BundleDescription) -> BundleDescription:
    """The bundle that `scene_with_motion` would be: no background class, no magnitude."""
    kind = description.cas.model_copy(
        update={"kind": "logits", "background": False, "magnitude": False}
    )
    return description.model_copy(update={"cas": kind})


def motion_on_grid(
    energies: Mapping[str, NDArray[Any]], samples: Sequence[Sample]
) -> dict[str, FloatArray]:
    """Each sample's motion energy at its positions, from energies of N equal parts of a video.

    Raises InvalidFile where a video has none, or not one finite number a part.
    """
    on_grid = {}
    for sample in samples:
        energy = energies.get(sample.name)
        if energy is None:
            raise InvalidFile(f"the motion file has no energies of {sample.name}")
        if energy.ndim != 1 or not energy.size or not np.isfinite(energy).all():
            raise InvalidFile(
                f"the motion energy of {sample.name} is {energy.dtype} {list(energy.shape)}, "
                "expected finite numbers [N]"
            )
        edges = np.linspace(0, sample.duration_seconds, energy.size + 1).astype(np.float32)
        on_grid[sample.name] = resample_to_grid(
            energy.astype(np.float32)[None],
            edges[:-1],
            edges[1:],
            sample.duration_seconds,
            sample.position_seconds,
        )[0]
    return on_grid


def _mean_features(samples: Sequence[Sample]) -> torch.Tensor:
    return torch.from_numpy(np.stack([sample.features.mean(axis=1) for sample in samples]))


def _smoothed(energy: FloatArray, positions: int) -> FloatArray:
    """Moving average over an odd number of positions; at the ends, over those that exist."""
    window = np.ones(min(positions, 2 * energy.size - 1))
    total = np.convolve(energy, window, mode="full")
    count = np.convolve(np.ones_like(energy), window, mode="full")
    first = (len(window) - 1) // 2
    averaged: FloatArray = (total / count)[first : first + energy.size].astype(np.float32)
    return averaged
