"""What a variant must reach against float32 before it is written: measured, then judged.

The reference is ONNX Runtime in float32. A backbone is measured by the cosine of its features on a
few clips, a CAS network by its largest error on sequences of features, and by the mAP of a
validation set where one is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from backtal.annotations import GroundTruth
from backtal.errors import GateFailed, InvalidArgument
from backtal.evaluation import mean_average_precision
from backtal.features import FeatureSequence, FloatArray
from backtal.manifest import GateFigures, Manifest, StreamName
from backtal.pipeline import Pipeline, Request
from backtal.settings import Settings, read_yaml
from backtal.stages import Clips, Stages

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
_SMALLEST = 1e-12
_SEED = 11
_SEEDED_CLIPS = 4
_POSITIONS_BETWEEN_CLIPS = 16


class GateThresholds(Settings):
    """How far from float32 a variant may be.

    cas_error is the largest difference over the largest value. map_drop is of the average mAP at
    0.3 to 0.7, and only where a validation set is given.
    """

    minimum_feature_cosine: float = Field(default=0.9999, gt=0, le=1)
    maximum_cas_error: float = Field(default=0.03, gt=0)
    maximum_map_drop: float = Field(default=0.005, ge=0)


def read_thresholds(path: Path | None) -> GateThresholds:
    """The thresholds of a YAML file, the defaults where none is named. Raises as `read_yaml`."""
    return GateThresholds() if path is None else read_yaml(GateThresholds, path)


@dataclass(frozen=True, eq=False)
class Validation:
    """Features of videos with times to measure against: every video of `truth` has a sequence."""

    sequences: Mapping[str, FeatureSequence]
    truth: GroundTruth

    @classmethod
    def load(cls, features: Path, ground_truth: Path, subset: str | None = None) -> Validation:
        """The feature files of a folder, and the ground truth of those videos.

        Raises InvalidArgument where the folder has no video of the ground truth.
        """
        truth = GroundTruth.load(ground_truth)
        truth = truth if subset is None else truth.subset(subset)
        there = {
            name: features / f"{name}.npz"
            for name in truth.videos
            if (features / f"{name}.npz").is_file()
        }
        if not there:
            raise InvalidArgument(f"{features} has features of no video of {ground_truth}")
        truth = replace(truth, videos={name: truth.videos[name] for name in there})
        return cls({name: FeatureSequence.load(path) for name, path in there.items()}, truth)


@dataclass(frozen=True, eq=False)
class Measured:
    """What the gate found: for each stream's backbone, and for the CAS network."""

    backbones: Mapping[StreamName, GateFigures]
    cas: GateFigures


def measure(
    manifest: Manifest, reference: Stages, variant: Stages, validation: Validation | None = None
) -> Measured:
    """Compare a bundle's networks, on the same inputs, in float32 and as they are served.

    The backbones see seeded clips. The CAS network sees a walk between their features in float32,
    or the validation set's features, where one is given, and then its mAP is measured too.

    Raises GateFailed, naming the network, where what it gives is no finite number.
    """
    plan = manifest.description.clip_plan
    pictures = seeded_clips(plan.frames_taken, plan.crop_pixels)
    backbones: dict[StreamName, GateFigures] = {}
    features: list[FloatArray] = []
    for backbone in manifest.description.backbones:
        if backbone.stream not in manifest.backbones:
            features.append(drawn_features(backbone.feature_dim))
            continue
        frames = pictures[:, : plan.clip_shape(backbone.stream)[0]]
        clips: Clips = frames if plan.takes_frames(backbone.stream) else as_flow(frames)
        wanted = reference.features(backbone.stream, clips)
        found = variant.features(backbone.stream, clips)
        _check_finite(manifest.backbones[backbone.stream].model, found)
        cosine = float(cosines(wanted, found).min())
        backbones[backbone.stream] = GateFigures(
            feature_cosine=cosine, measured_on=f"{len(clips)} drawn clips"
        )
        features.append(wanted)
    sequences = [walk_between(np.concatenate(features, axis=1))]
    if validation is None:
        error = cas_error(manifest, reference, variant, sequences)
        on = "a walk between the features of the drawn clips"
        return Measured(backbones, GateFigures(cas_error=error, measured_on=on))
    return Measured(backbones, cas_figures(manifest, reference, variant, validation))


def cas_figures(
    manifest: Manifest, reference: Stages, variant: Stages, validation: Validation
) -> GateFigures:
    """The figures of a CAS network on a validation set."""
    seconds = manifest.description.grid.position_seconds
    sequences = [sequence.on_grid(seconds) for sequence in validation.sequences.values()]
    return GateFigures(
        cas_error=cas_error(manifest, reference, variant, sequences),
        map_float32=average_map(manifest, reference, validation),
        map_variant=average_map(manifest, variant, validation),
        measured_on=f"the features of {len(sequences)} videos",
    )


def cosines(first: FloatArray, second: FloatArray) -> NDArray[np.float64]:
    """The cosine of each row of `first` [n, D] with the same row of `second`; 0 with a zero row."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(axis=1)
    known = lengths > 0
    return np.where(known, products / np.where(known, lengths, 1.0), 0.0)


def cas_error(
    manifest: Manifest, reference: Stages, variant: Stages, sequences: Sequence[FloatArray]
) -> float:
    """The largest difference of any output over its largest value, over features [D, L].

    Raises GateFailed, naming the network, where an output of the variant is no finite number.
    """
    worst = 0.0
    for features in sequences:
        wanted, found = reference.cas(features[None]), variant.cas(features[None])
        pairs = [(wanted.cas, found.cas)]
        if wanted.magnitude is not None and found.magnitude is not None:
            pairs.append((wanted.magnitude, found.magnitude))
        for right, answer in pairs:
            _check_finite(manifest.cas.model, answer)
            difference = float(np.abs(right - answer).max())
            worst = max(worst, difference / max(float(np.abs(right).max()), _SMALLEST))
    return worst


def _check_finite(model: str, values: FloatArray) -> None:
    beyond = values.size - int(np.isfinite(values).sum())
    if beyond:
        raise GateFailed(
            f"{model}: {beyond} of {values.size} values that it gives are no finite numbers, "
            f"allowed is none"
        )


def average_map(manifest: Manifest, stages: Stages, validation: Validation) -> float:
    """The average mAP at tIoU 0.3 to 0.7 of what the bundle answers to features."""
    pipeline = Pipeline(manifest, stages)
    answers = {
        name: pipeline.run(Request(features=sequence)).segments
        for name, sequence in validation.sequences.items()
    }
    return float(mean_average_precision(validation.truth, answers, TIOUS).average)


def judge(model: str, figures: GateFigures, thresholds: GateThresholds) -> None:
    """Raise GateFailed, naming the figure, its value and what is allowed."""
    cosine, error = figures.feature_cosine, figures.cas_error
    if cosine is not None and not cosine >= thresholds.minimum_feature_cosine:
        raise GateFailed(
            f"{model}: the lowest feature cosine is {cosine:.6f}, "
            f"allowed are {thresholds.minimum_feature_cosine} and more"
        )
    if error is not None and not error <= thresholds.maximum_cas_error:
        raise GateFailed(
            f"{model}: the CAS error is {error:.4f}, allowed are {thresholds.maximum_cas_error} "
            f"and less"
        )
    if figures.map_float32 is None or figures.map_variant is None:
        return
    drop = figures.map_float32 - figures.map_variant
    if not drop <= thresholds.maximum_map_drop:
        raise GateFailed(
            f"{model}: the mAP falls by {drop:.4f}, from {figures.map_float32:.4f} to "
            f"{figures.map_variant:.4f}, allowed are {thresholds.maximum_map_drop} and less"
        )


def drawn_features(feature_dim: int) -> FloatArray:
    """Features [n, D] to measure on where a bundle has no backbone: none below 0, as I3D's are."""
    random = np.random.default_rng(_SEED)
    return random.exponential(0.1, (_SEEDED_CLIPS, feature_dim)).astype(np.float32)


def as_flow(pictures: NDArray[np.uint8]) -> FloatArray:
    """Flow clips [n, F, H, W, 2] to measure on: two colours, as -20 to 20 pixels a frame."""
    flow: FloatArray = pictures[..., :2].astype(np.float32) * np.float32(40 / 255) - 20
    return flow


def seeded_clips(frames: int, pixels: int) -> NDArray[np.uint8]:
    """Clips [n, F, H, W, 3] to measure on where no videos are given: colours that drift.

    Coarse random fields, enlarged and moved from frame to frame, with a little noise.
    """
    random = np.random.default_rng(_SEED)
    clips = np.empty((_SEEDED_CLIPS, frames, pixels, pixels, 3), np.uint8)
    for index, clip in enumerate(clips):
        cells = 4 << index
        field = random.uniform(0, 255, (cells, cells, 3))
        large = np.kron(field, np.ones((-(-pixels // cells), -(-pixels // cells), 1)))
        for frame in range(frames):
            moved = np.roll(large, (frame * (index + 1), -frame * 2), (0, 1))[:pixels, :pixels]
            noise = random.normal(0, 4, (pixels, pixels, 3))
            clip[frame] = np.clip(moved + noise, 0, 255)
    return clips


def walk_between(features: FloatArray) -> FloatArray:
    """A sequence [D, L] that goes in straight steps from each of features [n, D] to the next."""
    steps = np.arange(0, len(features) - 1 + 1e-9, 1 / _POSITIONS_BETWEEN_CLIPS)
    known = np.arange(len(features))
    walked = [np.interp(steps, known, row) for row in features.T]
    return np.ascontiguousarray(walked, np.float32)
