"""Timelines of the generated corpus: every bound holds for every seed, and the plan is frozen."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backtal.errors import NotFound
from backtal_training.corpus import (
    ACTIONS,
    OWN_SCENE,
    CorpusSettings,
    VideoPlan,
    plan,
    plan_video,
    select,
)

FROZEN_PLAN_SHA256 = "fb975e96c35504b9b3bf247a35cacca94a955875917088e9f3e37721a6e47c74"


@pytest.fixture(scope="module")
def videos() -> tuple[VideoPlan, ...]:
    return plan().videos


def test_the_default_plan_is_frozen() -> None:
    assert plan().sha256 == FROZEN_PLAN_SHA256


def test_another_seed_is_another_plan() -> None:
    assert plan(CorpusSettings(seed=10)).sha256 != FROZEN_PLAN_SHA256


def test_splits_are_balanced_and_names_are_unique(videos: tuple[VideoPlan, ...]) -> None:
    per_class = Counter((video.subset, video.label) for video in videos)
    assert per_class == {
        (subset, label): count
        for subset, count in (("training", 10), ("test", 6))
        for label in ACTIONS
    }
    assert len({video.name for video in videos}) == len(videos)


def test_a_slice_does_not_depend_on_how_many_videos_there_are(
    videos: tuple[VideoPlan, ...],
) -> None:
    small = plan(CorpusSettings(training_videos_per_class=1, test_videos_per_class=1))
    whole = {video.name: video for video in videos}
    assert [whole[video.name] for video in small.videos] == list(small.videos)


def test_the_scene_goes_with_the_class_but_not_always(videos: tuple[VideoPlan, ...]) -> None:
    own = sum(video.scene == OWN_SCENE[video.label] for video in videos) / len(videos)
    assert 0.82 < own < 0.97


def test_some_videos_have_a_second_class(videos: tuple[VideoPlan, ...]) -> None:
    labels = [{instance.label for instance in video.instances} for video in videos]
    assert all(video.label in own for video, own in zip(videos, labels, strict=True))
    assert max(len(own) for own in labels) == 2
    assert 0.03 < sum(len(own) == 2 for own in labels) / len(videos) < 0.18


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    index=st.integers(0, 500),
    subset=st.sampled_from(["training", "test"]),
)
def test_timelines_keep_their_bounds(seed: int, index: int, subset: str) -> None:
    corpus = CorpusSettings(seed=seed)
    video = plan_video(corpus, subset, index)
    fps = corpus.frames_per_second
    assert video.label == ACTIONS[index % 6]
    assert corpus.min_video_seconds <= video.duration_seconds <= corpus.max_video_seconds
    assert corpus.min_instances <= len(video.instances) <= corpus.max_instances
    assert video.background_fraction >= corpus.min_background_fraction
    for instance in video.instances:
        seconds = (instance.end_frame - instance.start_frame) / fps
        assert corpus.min_instance_seconds <= seconds <= corpus.max_instance_seconds
        assert instance.num_repetitions >= 2
    ends = [0, *(instance.end_frame for instance in video.instances)]
    starts = [*(instance.start_frame for instance in video.instances), video.num_frames]
    for end, start in zip(ends, starts, strict=True):
        assert (start - end) / fps >= corpus.min_gap_seconds


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 500))
def test_instances_and_fillers_tile_the_video(seed: int, index: int) -> None:
    video = plan_video(CorpusSettings(seed=seed), "training", index)
    spans = sorted((p.start_frame, p.end_frame) for p in (*video.instances, *video.fillers))
    assert spans[0][0] == 0
    assert spans[-1][1] == video.num_frames
    assert all(left[1] == right[0] for left, right in pairwise(spans))


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 500))
def test_clicks_are_in_the_background(seed: int, index: int) -> None:
    corpus = CorpusSettings(seed=seed)
    video = plan_video(corpus, "training", index)
    expected = max(2, round(video.duration_seconds / corpus.seconds_a_click))
    assert len(video.click_seconds) == expected
    assert list(video.click_seconds) == sorted(set(video.click_seconds))
    for click in video.click_seconds:
        assert 0 <= click < video.duration_seconds
        for instance in video.instances:
            start = instance.start_frame / corpus.frames_per_second
            end = instance.end_frame / corpus.frames_per_second
            assert click <= start - 0.4 + 1e-9 or click >= end + 0.4 - 1e-9


def test_test_videos_have_no_clicks(videos: tuple[VideoPlan, ...]) -> None:
    assert all(bool(video.click_seconds) == (video.subset == "training") for video in videos)


def test_select_by_name_and_split() -> None:
    whole = plan()
    assert [video.name for video in select(whole, only=["test_0003"])] == ["test_0003"]
    assert len(select(whole, split="test")) == 36
    with pytest.raises(NotFound, match=r"test_0042.*96"):
        select(whole, only=["test_0042"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"min_video_seconds": 70.0}, "min_video_seconds"),
        ({"min_instance_seconds": 6.0}, "do not fit"),
        ({"width_pixels": 341}, "width_pixels"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        CorpusSettings(**change)  # type: ignore[arg-type]
