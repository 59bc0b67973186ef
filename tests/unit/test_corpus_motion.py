"""The skeleton and its choreography: limbs keep their length, feet the ground, motion flows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backtal_training.corpus import ACTIONS, CorpusSettings, plan_video
from backtal_training.corpus.choreography import poses_of
from backtal_training.corpus.motions import ACTION_MOTIONS, FILLER_MOTIONS
from backtal_training.corpus.settings import HABIT
from backtal_training.corpus.skeleton import COLUMN, JOINT, Floats, joints, mirror, pose
from backtal_training.corpus.timeline import FILLERS

ANGLES = hnp.arrays(np.float64, (3, len(COLUMN)), elements=st.floats(-3.0, 3.0))
BONES = [
    (f"{side}_{start}", f"{side}_{end}")
    for side in ("left", "right")
    for start, end in (
        ("shoulder", "elbow"),
        ("elbow", "wrist"),
        ("wrist", "hand"),
        ("hip", "knee"),
        ("knee", "ankle"),
    )
]


def _lengths(world: Floats) -> Floats:
    return np.stack(
        [np.linalg.norm(world[:, JOINT[a]] - world[:, JOINT[b]], axis=1) for a, b in BONES]
    )


@settings(deadline=None)
@given(poses=ANGLES)
def test_limbs_keep_their_length(poses: Floats) -> None:
    expected = np.repeat(_lengths(joints(pose(1))), 3, axis=1)
    np.testing.assert_allclose(_lengths(joints(poses)), expected, atol=1e-9)


@settings(deadline=None)
@given(poses=ANGLES)
def test_the_lower_foot_is_on_the_ground(poses: Floats) -> None:
    poses[:, COLUMN["lift"]] = 0.0
    ankles = joints(poses)[:, [JOINT["left_ankle"], JOINT["right_ankle"]], 1]
    np.testing.assert_allclose(ankles.min(axis=1), 0.035, atol=1e-9)


@settings(deadline=None)
@given(poses=ANGLES)
def test_mirroring_mirrors_the_picture(poses: Floats) -> None:
    np.testing.assert_array_equal(mirror(mirror(poses)), poses)
    there, here = joints(mirror(poses)), joints(poses)
    swapped = [
        JOINT[name.replace("left", "?").replace("right", "left").replace("?", "right")]
        for name in JOINT
    ]
    np.testing.assert_allclose(there[:, swapped] * [-1, 1, 1], here, atol=1e-9)


def test_standing_is_one_body_high() -> None:
    head = joints(pose(1))[0, JOINT["head"], 1]
    assert head + 0.075 == pytest.approx(1.0, abs=0.03)


def test_an_unknown_angle_is_refused() -> None:
    with pytest.raises(KeyError):
        pose(1, left_tail=1.0)


def test_every_class_and_filler_has_a_motion() -> None:
    assert set(ACTION_MOTIONS) == set(ACTIONS) == set(HABIT)
    assert set(FILLER_MOTIONS) == set(FILLERS)
    assert set(HABIT.values()) <= set(FILLERS)


@pytest.mark.parametrize("label", ACTIONS)
def test_actions_are_larger_than_any_filler_in_place(label: str) -> None:
    def travel(poses: Floats) -> float:
        world = joints(poses)
        return float(np.abs(np.diff(world, axis=0)).sum(axis=2).mean() * 25)

    phase = np.linspace(0.0, 2.0, 50)
    seconds = np.arange(75) / 25.0
    still = max(
        travel(FILLER_MOTIONS[kind](seconds, 0.9, 1.0, 0.0))
        for kind in ("sway", "phone", "scratch")
    )
    assert travel(ACTION_MOTIONS[label](phase, 0.9)) > 1.5 * still


@given(seed=st.integers(0, 2**32), index=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_motion_flows_through_all_boundaries(seed: int, index: int) -> None:
    corpus = CorpusSettings(seed=seed)
    video = plan_video(corpus, "training", index)
    poses = poses_of(video, corpus.blend_seconds)
    assert poses.shape == (video.num_frames, len(COLUMN))
    world = joints(poses)
    assert np.isfinite(world).all()
    step = np.linalg.norm(np.diff(world, axis=0), axis=2).max()
    # An arm from overhead to hanging, and a turn, within one blend; unwound turns make 0.7.
    assert step < 0.6


def test_the_weight_is_a_half_on_the_boundary() -> None:
    corpus = CorpusSettings()
    video = plan_video(corpus, "training", 0)
    assert {instance.label for instance in video.instances} >= {"jumping_jack"}
    blended = poses_of(video, corpus.blend_seconds)
    sharp = poses_of(video, 1e-6)
    instance = video.instances[0]
    changed = np.abs(blended - sharp).max(axis=1) > 1e-9
    around = np.flatnonzero(changed[: instance.end_frame - 20])
    near = around[np.abs(around - instance.start_frame) <= 4]
    assert len(near) > 0
    assert abs(near.mean() - instance.start_frame) <= 1.0


@given(index=st.sampled_from([4, 10, 16, 22]), seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_windmill_does_not_unwind_at_its_end(index: int, seed: int) -> None:
    corpus = CorpusSettings(seed=seed, second_class_probability=0.0)
    video = plan_video(corpus, "training", index)
    poses = poses_of(video, corpus.blend_seconds)
    for instance in video.instances:
        around = slice(instance.end_frame - 4, instance.end_frame + 5)
        for side in ("left", "right"):
            turned = np.abs(np.diff(poses[around, COLUMN[f"{side}_arm_flex"]]))
            turned = np.minimum(turned, np.abs(turned - 2.0 * np.pi))
            assert turned.sum() < 2.0 * np.pi
