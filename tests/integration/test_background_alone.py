"""Half an hour in which nothing happens that counts: how much is found in it all the same.

New videos of the corpus's kind, of a seed that nothing was trained or tuned on, in which every
action is replaced by what the figure does between actions. Scenes, habits and passers-by are there:
all that the labels are confused with.

What keeps quiet there is the class threshold: no class passes. One so low that all pass is the
yardstick. That windows with several classes are not missed all the same is test_joined_videos.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from backtal.features import FeatureSequence
from backtal.manifest import Manifest
from backtal.pipeline import Pipeline, Request
from backtal.runtime import OnnxStages, load_bundle
from backtal_export.repository import write_bundle
from backtal_training.corpus import CorpusSettings, render
from backtal_training.corpus.timeline import FILLERS, Filler, VideoPlan, plan_video
from tests.i3d_weights import real_weights

DEMO = Path(__file__).resolve().parents[2] / "demo"
SEED = 10
MINUTES = 30.0
MOST_AN_HOUR = 2.0
# Seven classes that are about alike have a seventh each.
LOW_THRESHOLD = 0.1
LEAST_AT_LOW_THRESHOLD = 100.0


def without_actions(video: VideoPlan) -> VideoPlan:
    """The same video, something else being done in place of each action."""
    random = Random(f"{video.look_seed}/without actions")
    instead = [
        Filler(
            start_frame=instance.start_frame,
            end_frame=instance.end_frame,
            kind=random.choice(FILLERS),
            amplitude=random.uniform(0.75, 1.1),
            tempo=random.uniform(0.8, 1.25),
            phase=random.random(),
            yaw_radians=random.uniform(-0.8, 0.8),
            mirrored=random.random() < 0.5,
        )
        for instance in video.instances
    ]
    fillers = sorted([*video.fillers, *instead], key=lambda piece: piece.start_frame)
    return replace(video, instances=(), fillers=tuple(fillers))


def background(minutes: float) -> Iterator[VideoPlan]:
    """Videos of that many minutes together, the scenes in turn."""
    settings = CorpusSettings(seed=SEED)
    seconds, index = 0.0, 0
    while seconds < 60.0 * minutes:
        video = without_actions(plan_video(settings, "test", index))
        seconds += video.duration_seconds
        index += 1
        yield video


def features_of(pipeline: Pipeline, video: VideoPlan, folder: Path) -> FeatureSequence:
    """Those of the video, drawn for the purpose."""
    path = folder / f"{video.name}.mp4"
    render(video, path)
    try:
        features = pipeline.run(Request(path=path), keep=("features",)).features
    finally:
        path.unlink()
    assert features is not None
    return features


def with_threshold(manifest: Manifest, threshold: float) -> Manifest:
    """The bundle with another class threshold."""
    description = manifest.description
    changed = {"class_score_threshold": threshold}
    localization = description.localization.model_copy(update=changed)
    description = description.model_copy(update={"localization": localization})
    return manifest.model_copy(update={"description": description})


def test_nothing_counts_in_it_and_nothing_is_missing() -> None:
    videos = list(background(3.0))
    assert len({video.scene for video in videos}) >= 3
    for video in videos:
        assert video.background_fraction == 1.0
        ends = [piece.end_frame for piece in video.fillers]
        starts = [piece.start_frame for piece in video.fillers]
        assert starts == [0, *ends[:-1]]
        assert ends[-1] == video.num_frames


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_little_is_found_where_nothing_happens(tmp_path: Path, tell: Callable[[str], None]) -> None:
    real_weights()
    write_bundle(tmp_path / "repository", DEMO / "checkpoint", say=lambda _: None)
    manifest = load_bundle(tmp_path / "repository", "demo")
    stages = OnnxStages(tmp_path / "repository", manifest)
    pipeline = Pipeline(manifest, stages)
    sequences = [features_of(pipeline, video, tmp_path) for video in background(MINUTES)]
    hours = sum(features.duration_seconds for features in sequences) / 3600
    own = manifest.description.localization.class_score_threshold
    an_hour = {}
    for threshold in (own, LOW_THRESHOLD):
        through = Pipeline(with_threshold(manifest, threshold), stages)
        answers = [through.run(Request(features=features), keep=()) for features in sequences]
        an_hour[threshold] = sum(len(answer.segments) for answer in answers) / hours
        tell(f"class threshold {threshold}: {an_hour[threshold]:.1f} false segments an hour")
    assert an_hour[own] <= MOST_AN_HOUR
    assert an_hour[LOW_THRESHOLD] > LEAST_AT_LOW_THRESHOLD
