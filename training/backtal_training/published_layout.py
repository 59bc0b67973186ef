"""Between our features and the published layout: an import and an export of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from backtal.annotations import VideoTruth
from backtal.errors import InvalidArgument
from backtal.published import NO_CLICK, PublishedFeatures, load_published, save_published
from backtal_training.data_set import DataSet, SplitName, feature_path, load_split, truth_of_split

SPLITS: tuple[SplitName, ...] = ("training", "test")


def export_published(data_set: DataSet, root: Path, folder: Path) -> int:
    """Write both splits of features v1 as the published code reads them; the number of files.

    Each video is resized whole to the grid's T positions, into ``train/`` or ``test/``. Raises
    NotFound or InvalidFile where a file is missing or wrong.
    """
    recipe = data_set.recipe.model_copy(update={"temporal": "resize"})
    whole = data_set.model_copy(update={"recipe": recipe})
    num_files = 0
    for split in SPLITS:
        loaded = load_split(whole, root, split)
        target = folder / ("train" if split == "training" else "test")
        target.mkdir(parents=True, exist_ok=True)
        background = len(loaded.truth.classes)
        for sample in loaded.samples:
            video = loaded.truth.videos[sample.name]
            clicks = np.full(sample.num_positions, NO_CLICK)
            clicks[sample.click_positions] = background
            published = PublishedFeatures(
                video_name=sample.name,
                values=sample.features,
                streams=loaded.sequence.streams,
                class_label=sample.video_labels,
                click_label=clicks if split == "training" else None,
            )
            if split == "test":
                published = _with_times(published, video)
            save_published(target / f"{sample.name}.npz", published)
            num_files += 1
    return num_files


def _with_times(published: PublishedFeatures, video: VideoTruth) -> PublishedFeatures:
    rate = video.frames_per_second or 25.0
    return replace(
        published,
        num_frames=max(1, round(video.duration_seconds * rate)),
        frames_per_second=rate,
        duration_seconds=video.duration_seconds,
    )


def import_published(data_set: DataSet, root: Path, folder: Path) -> int:
    """Write every published file as features v1, ``NAME.npz`` in `folder`; the number of files.

    The number of frames is the file's own, else the ground truth's rate times its duration: the
    `released` localization samples the CAS that often.
    """
    if data_set.layout != "published":
        raise InvalidArgument(f"{data_set.name} has layout {data_set.layout!r}, not 'published'")
    folder.mkdir(parents=True, exist_ok=True)
    num_files = 0
    for split in SPLITS:
        load_split(data_set, root, split)
        for name, video in truth_of_split(data_set, root, split).videos.items():
            path = feature_path(data_set, root, name)
            if path is None:
                raise InvalidArgument(f"{name}.npz was removed while it was read")
            published = load_published(path)
            rate = video.frames_per_second or 0.0
            frames = published.num_frames or round(video.duration_seconds * rate)
            sequence = published.to_sequence(video.duration_seconds)
            replace(sequence, num_frames_decoded=frames).save(folder / f"{name}.npz")
            num_files += 1
    return num_files
