"""Training samples: a video's features on the bundle's grid, its label and its clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.clicks import Clicks
from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal.features import FeatureSequence, FloatArray
from backtal.manifest import Grid

IntArray = NDArray[np.int64]
Temporal = Literal["windows", "resize"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One video.

    features: float32 [D, L] on the grid; position_seconds: what a position stands for in this
    video. video_labels: float32 [C], 1 at its classes. click_positions: int64, strictly rising.
    frame_labels: int64 [L], the class at each position's middle, C for background: only full
    supervision looks at it. instances: the ground truth.
    """

    name: str
    features: FloatArray
    position_seconds: float
    duration_seconds: float
    video_labels: FloatArray
    click_positions: IntArray
    frame_labels: IntArray
    instances: tuple[Instance, ...]

    @property
    def num_positions(self) -> int:
        """L."""
        return int(self.features.shape[1])

    def without_clicks(self) -> Sample:
        """The same video as an annotator leaves it who clicks nowhere."""
        return replace(self, click_positions=np.empty(0, np.int64))


def make_sample(
    name: str,
    sequence: FeatureSequence,
    *,
    instances: Sequence[Instance],
    clicks: Clicks,
    classes: Sequence[str],
    grid: Grid,
    temporal: Temporal = "windows",
) -> Sample:
    """A video's sample on `grid`, or with ``resize`` on window_positions positions.

    Raises InvalidFile, naming the video, for a class that is not in `classes`.
    """
    duration = sequence.duration_seconds
    position_seconds = grid.position_seconds
    if temporal == "resize":
        position_seconds = duration / grid.window_positions
    features = sequence.on_grid(position_seconds)
    length = features.shape[1]
    index = {label: number for number, label in enumerate(classes)}
    unknown = sorted({instance.label for instance in instances} - set(index))
    if unknown:
        raise InvalidFile(f"{name}: unknown class {unknown[0]!r}, known are {', '.join(classes)}")
    video_labels = np.zeros(len(classes), np.float32)
    video_labels[[index[instance.label] for instance in instances]] = 1
    middles = (np.arange(length) + 0.5) * position_seconds
    frame_labels = np.full(length, len(classes), np.int64)
    for instance in instances:
        inside = (middles >= instance.start_seconds) & (middles < instance.end_seconds)
        frame_labels[inside] = index[instance.label]
    return Sample(
        name=name,
        features=features,
        position_seconds=position_seconds,
        duration_seconds=duration,
        video_labels=video_labels,
        click_positions=clicks.positions(name, position_seconds, length),
        frame_labels=frame_labels,
        instances=tuple(instances),
    )


def load_samples(
    folder: Path,
    truth: GroundTruth,
    clicks: Clicks,
    *,
    grid: Grid,
    temporal: Temporal = "windows",
    require_labels: bool = False,
) -> tuple[tuple[Sample, ...], FeatureSequence]:
    """The samples of every video of `truth`, and one of their feature sequences.

    A video's features are ``NAME.npz`` in `folder`, features v1. Raises NotFound where any is
    missing, InvalidFile where two are not of one kind, or with `require_labels` where a video
    has no label: nothing is learned from it.
    """
    unlabelled = [name for name, video in truth.videos.items() if not video.instances]
    if require_labels and unlabelled:
        raise InvalidFile(
            f"{truth.source}: {len(unlabelled)} videos to train on have no label: "
            + ", ".join(unlabelled[:5])
        )
    absent = [name for name in truth.videos if not (folder / f"{name}.npz").is_file()]
    if absent:
        raise NotFound(
            f"{folder} lacks the features of {len(absent)} of {len(truth.videos)} videos: "
            + ", ".join(f"{name}.npz" for name in absent[:5])
        )
    sequences = {name: FeatureSequence.load(folder / f"{name}.npz") for name in truth.videos}
    check_alike(sequences)
    samples = tuple(
        make_sample(
            name,
            sequence,
            instances=truth.videos[name].instances,
            clicks=clicks,
            classes=truth.classes,
            grid=grid,
            temporal=temporal,
        )
        for name, sequence in sequences.items()
    )
    return samples, next(iter(sequences.values()))


def hold_out(
    samples: Sequence[Sample], fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The samples to train on and those held out, every class alike in both.

    Raises InvalidArgument where one of the two would be empty.
    """
    if fraction == 0:
        return tuple(samples), ()
    count = round(len(samples) * fraction)
    if not 0 < count < len(samples):
        raise InvalidArgument(
            f"held_out_fraction {fraction} of {len(samples)} videos leaves nothing on one side"
        )
    random = np.random.default_rng(seed)
    shuffled = [samples[i] for i in random.permutation(len(samples))]
    by_class = sorted(shuffled, key=lambda sample: tuple(-sample.video_labels))
    every = len(samples) / count
    offset = random.random() * every
    chosen = {int(offset + i * every) % len(samples) for i in range(count)}
    held = tuple(sample for i, sample in enumerate(by_class) if i in chosen)
    kept = tuple(sample for i, sample in enumerate(by_class) if i not in chosen)
    return kept, held


def truth_of(samples: Sequence[Sample], classes: Sequence[str]) -> GroundTruth:
    """The ground truth of these samples, to evaluate against."""
    videos = {
        sample.name: VideoTruth("training", sample.duration_seconds, None, sample.instances)
        for sample in samples
    }
    return GroundTruth(videos, tuple(classes), "the samples")


def check_alike(sequences: Mapping[str, FeatureSequence]) -> None:
    """Raise InvalidFile where two videos' features are not of one kind, naming both."""
    names = iter(sequences.items())
    first_name, first = next(names)
    for name, sequence in names:
        if sequence.feature_dim != first.feature_dim or sequence.streams != first.streams:
            raise InvalidFile(
                f"{name} has {sequence.feature_dim} features of streams {sequence.streams}, "
                f"{first_name} {first.feature_dim} of {first.streams}"
            )
        ours, theirs = sequence.provenance, first.provenance
        for what in ("backbone_sha256", "clip_plan"):
            if getattr(ours, what) != getattr(theirs, what):
                raise InvalidFile(
                    f"{name} was made with {what} {getattr(ours, what)}, "
                    f"{first_name} with {getattr(theirs, what)}"
                )
