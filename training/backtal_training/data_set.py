"""A data set: one YAML file that names its files and carries the recipe that suits it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from backtal.annotations import GroundTruth, VideoTruth
from backtal.clicks import Click, Clicks
from backtal.errors import InvalidFile, NotFound
from backtal.features import FeatureSequence
from backtal.published import NO_CLICK, PublishedFeatures, load_published
from backtal.settings import Settings, read_yaml
from backtal_training.click_sources import ClickSettings, load_clicks
from backtal_training.datasets import Sample, check_alike, make_sample
from backtal_training.settings import Recipe

SplitName = Literal["training", "test"]
FOLDER = Path(__file__).with_name("data_sets")


class DataSet(Settings):
    """What a data set is. Paths are relative to its root: the YAML file's folder, or another.

    `layout` is ``features`` (features v1, which `backtal features` writes) or ``published``
    (BackTAL's). A video's file is ``NAME.npz`` in one of the folders of `features`. `tious` are
    those that its mAP is reported at.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    layout: Literal["features", "published"] = "features"
    features: tuple[Path, ...] = Field(min_length=1)
    ground_truth: Path
    training_subset: str = "training"
    test_subset: str = "test"
    clicks: ClickSettings
    tious: tuple[float, ...] = Field(min_length=1)
    recipe: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> DataSet:
        if self.layout == "published" and self.recipe.temporal != "resize":
            raise ValueError(
                "layout 'published' has whole videos of T positions: recipe.temporal must be "
                f"'resize', is {self.recipe.temporal!r}"
            )
        if self.layout == "features" and self.clicks.source == "published":
            raise ValueError("clicks.source 'published' goes with layout 'published'")
        return self


@dataclass(frozen=True, eq=False)
class Split:
    """The videos of one subset; `sequence` is the features of one of them."""

    truth: GroundTruth
    clicks: Clicks
    samples: tuple[Sample, ...]
    sequence: FeatureSequence


def find(name: str) -> tuple[DataSet, Path]:
    """A data set and its root: a YAML file, or the name of one that is built in.

    The root of one that is built in is the working directory. Raises NotFound or InvalidFile.
    """
    built_in = FOLDER / f"{name}.yaml"
    if built_in.is_file():
        return read_yaml(DataSet, built_in), Path()
    path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in FOLDER.glob("*.yaml")))
        raise NotFound(f"no such data set: {name}; give a YAML file, or one of {known}")
    return read_yaml(DataSet, path), path.parent


def load_split(data_set: DataSet, root: Path, split: SplitName) -> Split:
    """Every video of a split, checked. A video that lacks its file is an error, never left out.

    Raises NotFound, or InvalidFile naming file and reason.
    """
    truth = truth_of_split(data_set, root, split)
    absent = [name for name in truth.videos if feature_path(data_set, root, name) is None]
    if absent:
        raise NotFound(
            f"{data_set.name}: {len(absent)} of {len(truth.videos)} videos of {split} have no "
            f"features in {', '.join(str(root / one) for one in data_set.features)}: "
            + ", ".join(f"{name}.npz" for name in absent[:5])
        )
    published: dict[str, tuple[Click, ...]] = {}
    sequences = {}
    for name, video in truth.videos.items():
        sequences[name], published[name] = open_video(
            data_set, root, name, video, truth.classes, is_training=split == "training"
        )
    check_alike(sequences)
    settings = data_set.clicks if split == "training" else ClickSettings(source="none")
    clicks = load_clicks(settings, root, truth, Clicks(published, "the published files"))
    samples = tuple(
        make_sample(
            name,
            sequence,
            instances=truth.videos[name].instances,
            clicks=clicks,
            classes=truth.classes,
            grid=data_set.recipe.grid,
            temporal=data_set.recipe.temporal,
        )
        for name, sequence in sequences.items()
    )
    return Split(truth, clicks, samples, next(iter(sequences.values())))


def truth_of_split(data_set: DataSet, root: Path, split: SplitName) -> GroundTruth:
    """The ground truth of one split."""
    truth = GroundTruth.load(root / data_set.ground_truth)
    return truth.subset(data_set.training_subset if split == "training" else data_set.test_subset)


def feature_path(data_set: DataSet, root: Path, name: str) -> Path | None:
    """A video's feature file, None where there is none."""
    paths = (root / folder / f"{name}.npz" for folder in data_set.features)
    return next((path for path in paths if path.is_file()), None)


def open_video(
    data_set: DataSet,
    root: Path,
    name: str,
    video: VideoTruth,
    classes: tuple[str, ...],
    *,
    is_training: bool,
) -> tuple[FeatureSequence, tuple[Click, ...]]:
    """A video's features, and the clicks in a published file. Raises NotFound or InvalidFile."""
    path = feature_path(data_set, root, name)
    if path is None:
        raise NotFound(f"no features of {name}: there is no {name}.npz")
    if is_training and not video.instances:
        raise InvalidFile(f"{name} has no label in the ground truth: nothing is learned from it")
    if data_set.layout == "features":
        return FeatureSequence.load(path), ()
    published = load_published(path)
    try:
        _check_published(published, name, video, classes, data_set.recipe.grid.window_positions)
    except InvalidFile as error:
        raise InvalidFile(f"{path}: {error.message}") from None
    sequence = published.to_sequence(video.duration_seconds)
    labels = np.array([]) if published.click_label is None else published.click_label
    position_seconds = video.duration_seconds / sequence.num_clips
    moments = (np.flatnonzero(labels == len(classes)) + 0.5) * position_seconds
    return sequence, tuple(Click.at(float(moment)) for moment in moments)


def _check_published(
    published: PublishedFeatures,
    name: str,
    video: VideoTruth,
    classes: tuple[str, ...],
    positions: int,
) -> None:
    if published.video_name != name:
        raise InvalidFile(f"vid_name is {published.video_name!r}, expected {name!r}")
    if published.values.shape[1] != positions:
        raise InvalidFile(f"features of {published.values.shape[1]} positions, not {positions}")
    if not np.isfinite(published.values).all():
        raise InvalidFile("features hold values that are not finite")
    label = published.class_label
    if label.shape != (len(classes),) or not np.isin(label, (0, 1)).all():
        raise InvalidFile(
            f"cls_label is {list(label.shape)} of {sorted(set(label.tolist()))[:5]}, "
            f"expected [{len(classes)}] of 0 and 1"
        )
    told = {classes[index] for index in np.flatnonzero(label)}
    if told != set(video.labels):
        raise InvalidFile(f"cls_label says {sorted(told)}, the ground truth {sorted(video.labels)}")
    clicks = published.click_label
    if clicks is not None and not np.isin(clicks, (len(classes), NO_CLICK)).all():
        odd = sorted(set(clicks.tolist()) - {len(classes), NO_CLICK})
        raise InvalidFile(f"point_label holds {odd[:5]}, allowed {len(classes)} and {NO_CLICK}")
