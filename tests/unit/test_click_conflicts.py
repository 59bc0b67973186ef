"""Clicks in conflict: the planted ones are found, and nothing else decides but what is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal_training.click_conflicts import click_conflicts, without_conflicts
from backtal_training.datasets import Sample
from backtal_training.relabel import RelabelSettings, prepared

DIM, LENGTH = 8, 60
ABOVE = 0.5
ACTION = slice(10, 30)


def video(number: int, inside: tuple[int, ...] = (), label: int = 0) -> Sample:
    """Of two classes, an action each, at ACTION; four clicks outside it, and those `inside`."""
    random = np.random.default_rng(number)
    features = random.standard_normal((DIM, LENGTH)) + 4 * random.standard_normal((DIM, 1))
    features[label, ACTION] += 8
    outside = random.choice(np.r_[0:10, 30:LENGTH], 4, replace=False)
    labels = np.zeros(2, np.float32)
    labels[label] = 1
    return Sample(
        name=f"video_{number}",
        features=features.astype(np.float32),
        position_seconds=0.5,
        duration_seconds=LENGTH / 2,
        video_labels=labels,
        click_positions=np.array(sorted({*outside.tolist(), *inside}), np.int64),
        frame_labels=np.full(LENGTH, 2, np.int64),
        instances=(),
    )


def planted() -> list[Sample]:
    """Twenty videos, 80 clicks outside actions and 8 inside."""
    return [
        video(number, (12 + number // 2,) if number % 5 in (0, 3) else (), number % 2)
        for number in range(20)
    ]


def is_inside(sample: Sample) -> np.ndarray:
    return (sample.click_positions >= ACTION.start) & (sample.click_positions < ACTION.stop)


def test_planted_clicks_are_found() -> None:
    samples = planted()
    conflicts = np.concatenate(click_conflicts(samples))
    inside = np.concatenate([is_inside(one) for one in samples])
    assert conflicts[inside].min() > conflicts[~inside].max()
    kept = without_conflicts(samples, ABOVE)
    for before, after in zip(samples, kept, strict=True):
        expected = before.click_positions[~is_inside(before)]
        np.testing.assert_array_equal(after.click_positions, expected)


def test_nothing_is_dropped_without_conflict() -> None:
    samples = [video(number, label=number % 2) for number in range(20)]
    assert np.concatenate(click_conflicts(samples)).max() < ABOVE
    for before, after in zip(samples, without_conflicts(samples, ABOVE), strict=True):
        np.testing.assert_array_equal(after.click_positions, before.click_positions)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(20)))
def test_the_order_of_videos_does_not_matter(order: list[int]) -> None:
    samples = planted()
    expected = click_conflicts(samples)
    shuffled = click_conflicts([samples[index] for index in order])
    for index, found in zip(order, shuffled, strict=True):
        np.testing.assert_allclose(found, expected[index], rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_neither_the_features_unit_nor_a_videos_level_matters(scale: float, shift: float) -> None:
    samples = planted()
    moved = [
        replace(one, features=(one.features.astype(np.float64) * scale + shift * scale * number))
        for number, one in enumerate(samples)
    ]
    for ours, theirs in zip(click_conflicts(samples), click_conflicts(moved), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_a_click_does_not_speak_for_itself() -> None:
    """What a video's other clicks are changes none of its conflicts."""
    samples = planted()
    before = click_conflicts(samples)[0]
    fewer = replace(samples[0], click_positions=samples[0].click_positions[:2])
    np.testing.assert_allclose(click_conflicts([fewer, *samples[1:]])[0], before[:2], rtol=1e-9)


def test_where_nobody_else_has_clicked_there_is_no_conflict() -> None:
    alone = video(0, (15,), label=1)
    others = [video(number) for number in range(1, 6)]
    assert (click_conflicts([alone, *others])[0] == -np.inf).all()
    unlabelled = replace(video(6, (15,)), video_labels=np.zeros(2, np.float32))
    assert (click_conflicts([unlabelled, *others])[0] == -np.inf).all()
    bare = [one.without_clicks() for one in others]
    assert [len(one) for one in click_conflicts(bare)] == [0] * 5
    assert click_conflicts([]) == []
    silent = [replace(one, features=np.zeros_like(one.features)) for one in others]
    assert all((one == 0).all() for one in click_conflicts(silent))


def test_of_several_classes_the_greatest_conflict_counts() -> None:
    samples = planted()
    both = replace(samples[0], video_labels=np.ones(2, np.float32))
    ones = [
        click_conflicts([replace(both, video_labels=labels), *samples[1:]])[0]
        for labels in np.eye(2, dtype=np.float32)
    ]
    expected = np.maximum(*ones)
    np.testing.assert_allclose(click_conflicts([both, *samples[1:]])[0], expected, rtol=1e-9)


def test_clicks_are_dropped_before_they_spread() -> None:
    """Else the neighbours of a dropped click would stay."""
    samples = planted()
    chosen = RelabelSettings(drop_above=ABOVE, spread_positions=1, spread_cosine=-0.99)
    for before, after in zip(samples, prepared(samples, chosen), strict=True):
        kept = before.click_positions[~is_inside(before)]
        reached = {place + step for place in kept.tolist() for step in (-1, 0, 1)}
        assert set(after.click_positions.tolist()) <= reached
    off = prepared(samples, RelabelSettings())
    for before, after in zip(samples, off, strict=True):
        np.testing.assert_array_equal(after.click_positions, before.click_positions)


def test_a_threshold_is_above_zero() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        RelabelSettings(drop_above=0.0)
