from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.unit.test_trainer import recipe, trained


def test_scalars_and_pictures_are_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from backtal_training.tensorboard import Board

    board = Board(tmp_path)
    run = trained(recipe(), on_epoch=board.on_epoch, on_answers=board.on_answers)
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    totals = [event.value for event in events.Scalars("loss/total")]
    np.testing.assert_allclose(totals, [epoch.losses["total"] for epoch in run.epochs], rtol=1e-6)
    maps = [event.value for event in events.Scalars("held-out/mAP")]
    np.testing.assert_allclose(maps, [epoch.held_out_map for epoch in run.epochs], rtol=1e-6)
    pictures = events.Tags()["images"]
    assert len(pictures) == 3
    assert len(events.Images(pictures[0])) == 4


def test_a_picture_shows_the_truth_above_each_class() -> None:
    from backtal_training.tensorboard import draw_cas
    from tests.unit.test_trainer import samples

    sample = samples()[0]
    cas = np.random.default_rng(0).standard_normal((4, sample.num_positions)).astype(np.float32)
    picture = draw_cas(sample, cas)
    assert picture.shape == (4 * 16, sample.num_positions, 3)
    own = int(np.flatnonzero(sample.video_labels)[0])
    assert (picture[0].any(axis=1) == (sample.frame_labels == own)).all()
    assert picture[4, int(cas[own].argmax()), 0] == 255
