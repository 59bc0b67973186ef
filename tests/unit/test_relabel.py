from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backtal_training.batches import make_batch, rescaled
from backtal_training.datasets import Sample
from backtal_training.losses import NO_CLICK
from backtal_training.relabel import (
    RelabelSettings,
    relabelled,
    spread_clicks,
    without_frames,
)
from tests.unit.test_trainer import recipe, trained, weights


def sample(length: int = 12, clicks: tuple[int, ...] = (2, 9)) -> Sample:
    random = np.random.default_rng(0)
    return Sample(
        name="one",
        features=random.standard_normal((4, length)).astype(np.float32),
        position_seconds=0.5,
        duration_seconds=length / 2,
        video_labels=np.array([0, 1], np.float32),
        click_positions=np.array(clicks, np.int64),
        frame_labels=np.arange(length) // 4 % 3,
        instances=(),
    )


def cas(strengths: list[float]) -> np.ndarray:
    """A video's cas [C+1, L] whose own class, 1, is as strong as given."""
    rows = np.zeros((3, len(strengths)), np.float32)
    rows[1] = strengths
    rows[0] = 9
    return rows


def test_pseudo_labels_are_of_the_videos_classes_where_the_teacher_is_sure() -> None:
    settings = RelabelSettings(pseudo_weight=1, pseudo_action=0.7, pseudo_background=0.1)
    answer = cas([0, 10, 5, 7.5, 0.5, 9])
    (labelled,) = relabelled([(sample(6, (5,)), answer, answer[0])], settings)
    assert labelled.frame_labels.tolist() == [2, 1, NO_CLICK, 1, 2, 2]


def test_a_click_reaches_its_near_identical_neighbours_only() -> None:
    one = sample(8, (3,))
    one.features[:, 2:5] = one.features[:, 3:4]
    one.features[:, 6] = one.features[:, 3]
    spread = spread_clicks(one, RelabelSettings(spread_positions=3, spread_cosine=0.999))
    assert spread.click_positions.tolist() == [2, 3, 4]
    near = spread_clicks(one, RelabelSettings(spread_positions=1, spread_cosine=-0.99))
    assert near.click_positions.tolist() == [2, 3, 4]
    assert spread_clicks(one, RelabelSettings()) is one


def test_weak_supervision_sees_no_frame() -> None:
    assert set(without_frames(sample()).frame_labels.tolist()) == {NO_CLICK}


@given(length=st.integers(1, 60), scale=st.floats(0.3, 3))
def test_another_speed_keeps_the_duration_and_the_clicks(length: int, scale: float) -> None:
    one = sample(length, tuple(range(0, length, 3)))
    other = rescaled(one, scale)
    assert other.num_positions == max(1, round(length / scale))
    assert other.num_positions * other.position_seconds == pytest.approx(length * 0.5)
    before = (one.click_positions + 0.5) * one.position_seconds
    after = (other.click_positions + 0.5) * other.position_seconds
    for moment in before:
        assert np.abs(after - moment).min() <= other.position_seconds / 2 + 1e-9
    assert np.abs(other.features).max() <= np.abs(one.features).max() + 1e-6


def test_a_ramp_stays_a_ramp_at_another_speed() -> None:
    ramp = sample(20)
    ramp = replace(ramp, features=np.arange(20, dtype=np.float32)[None] + 0.5)
    for scale in (0.5, 2.0):
        slower = rescaled(ramp, scale)
        expected = (np.arange(slower.num_positions) + 0.5) * scale
        np.testing.assert_allclose(slower.features[0], np.clip(expected, 0.5, 19.5), atol=1e-5)


def test_windows_come_in_all_scales() -> None:
    random = np.random.default_rng(0)
    batch = make_batch([sample(10)] * 40, 50, random, (0.5, 1.0, 2.0))
    assert set(batch.lengths.tolist()) == {5, 10, 20}


@pytest.mark.parametrize(
    "changes",
    [
        {"relabel": {"drop_above": 0.2}},
        {"relabel": {"pseudo_weight": 0.5, "from_epoch": 2}},
        {"relabel": {"spread_positions": 2, "spread_cosine": -0.5}},
        {"losses": {"hard_negative_weight": 1.0}},
    ],
)
def test_each_option_trains_and_goes_on_after_a_kill(changes: dict, tmp_path) -> None:  # type: ignore[no-untyped-def, type-arg]
    whole = trained(recipe(**changes))
    plain = trained(recipe())
    path = tmp_path / "state"

    def stop(epoch) -> None:  # type: ignore[no-untyped-def]
        if epoch.number == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(recipe(**changes), state_path=path, save_every_seconds=0, on_epoch=stop)
    again = trained(recipe(**changes), state_path=path)
    totals = [[epoch.losses["total"] for epoch in run.epochs] for run in (whole, again, plain)]
    assert totals[0] == totals[1]
    assert totals[0] != totals[2]
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name
