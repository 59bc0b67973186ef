"""What a data set holds, split by split, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtal.annotations import GroundTruth
from backtal.clicks import Click, Clicks
from backtal.errors import InvalidArgument, NotFound
from backtal.features import FeatureSequence
from backtal_training.click_sources import fraction_inside, load_clicks
from backtal_training.data_set import DataSet, SplitName, open_video, truth_of_split
from backtal_training.datasets import check_alike

SPLITS: tuple[SplitName, ...] = ("training", "test")


@dataclass(frozen=True)
class SplitReport:
    """The figures of one split.

    hours: of all its videos; clicks_per_video: mean; clicks_inside: the part of the clicks that
    lie inside an action; seconds_per_position: median and 95th percentile over its videos;
    problems: a line for everything that `load_split` would refuse.
    """

    split: SplitName
    num_videos: int
    num_files: int
    hours: float
    num_classes: int
    num_instances: int
    num_clicks: int
    clicks_per_video: float
    clicks_inside: float
    num_videos_without_clicks: int
    seconds_per_position: tuple[float, float]
    problems: tuple[str, ...]


def report(data_set: DataSet, root: Path) -> Iterator[SplitReport]:
    """Open every file of both splits. Raises NotFound or InvalidFile for the ground truth."""
    for split in SPLITS:
        yield _report_split(data_set, root, split)


def _report_split(data_set: DataSet, root: Path, split: SplitName) -> SplitReport:
    truth = truth_of_split(data_set, root, split)
    sequences, published, problems = _open_all(data_set, root, truth, split)
    clicks = Clicks({})
    if split == "training":
        with _collecting(problems):
            clicks = load_clicks(
                data_set.clicks, root, truth, Clicks(published, "the published files")
            )
    counts = [len(clicks.of(name)) for name in truth.videos]
    durations = np.array([video.duration_seconds for video in truth.videos.values()])
    grid = data_set.recipe.grid
    per_position = np.full(len(durations), grid.position_seconds)
    if data_set.recipe.temporal == "resize":
        per_position = durations / grid.window_positions
    return SplitReport(
        split=split,
        num_videos=len(truth.videos),
        num_files=len(sequences),
        hours=float(durations.sum()) / 3600,
        num_classes=len({label for video in truth.videos.values() for label in video.labels}),
        num_instances=sum(len(video.instances) for video in truth.videos.values()),
        num_clicks=sum(counts),
        clicks_per_video=float(np.mean(counts)),
        clicks_inside=fraction_inside(clicks, truth),
        num_videos_without_clicks=counts.count(0),
        seconds_per_position=(
            float(np.median(per_position)),
            float(np.quantile(per_position, 0.95)),
        ),
        problems=tuple(problems),
    )


def _open_all(
    data_set: DataSet, root: Path, truth: GroundTruth, split: SplitName
) -> tuple[dict[str, FeatureSequence], dict[str, tuple[Click, ...]], list[str]]:
    sequences: dict[str, FeatureSequence] = {}
    published: dict[str, tuple[Click, ...]] = {}
    problems: list[str] = []
    for name, video in truth.videos.items():
        with _collecting(problems):
            sequences[name], published[name] = open_video(
                data_set, root, name, video, truth.classes, is_training=split == "training"
            )
            first = next(iter(sequences))
            check_alike({first: sequences[first], name: sequences[name]})
    return sequences, published, problems


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    """What is refused in the block becomes a line of `problems`."""
    try:
        yield
    except (InvalidArgument, NotFound) as error:
        problems.append(error.message)
