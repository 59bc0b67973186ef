from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.errors import InvalidFile
from backtal.published import NO_CLICK, PublishedFeatures, load_published, save_published


@pytest.fixture
def published() -> PublishedFeatures:
    random = np.random.default_rng(2)
    clicks = np.full(9, NO_CLICK)
    clicks[4] = 20
    label = np.zeros(20, np.float32)
    label[3] = 1
    return PublishedFeatures(
        video_name="video_validation_0000051",
        values=random.normal(size=(8, 9)).astype(np.float32),
        streams=("rgb", "flow"),
        class_label=label,
        click_label=clicks,
        num_frames=900,
        frames_per_second=30.0,
        duration_seconds=30.0,
    )


def test_what_is_written_is_read(published: PublishedFeatures, tmp_path: Path) -> None:
    path = tmp_path / "video.npz"
    save_published(path, published)
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["feat_spa"], published.values[:4])
        np.testing.assert_array_equal(archive["feat_tem"], published.values[4:])
    loaded = load_published(path)
    np.testing.assert_array_equal(loaded.values, published.values)
    np.testing.assert_array_equal(loaded.class_label, published.class_label)
    assert loaded.click_label is not None
    assert loaded.click_label.tolist() == published.click_label.tolist()  # type: ignore[union-attr]
    assert loaded.video_name == published.video_name
    assert (loaded.num_frames, loaded.frames_per_second) == (900, 30.0)
    sequence = loaded.to_sequence()
    assert sequence.streams == ("rgb", "flow")
    assert sequence.duration_seconds == 30.0
    assert sequence.num_clips == 9


def test_a_training_file_has_no_times(published: PublishedFeatures, tmp_path: Path) -> None:
    path = tmp_path / "video.npz"
    fields: dict[str, Any] = {
        "feat_spa": published.values,
        "cls_label": published.class_label,
        "vid_name": np.array("v"),
    }
    np.savez(path, **fields)
    loaded = load_published(path)
    assert loaded.streams == ("rgb",)
    assert loaded.click_label is None
    with pytest.raises(InvalidFile, match="no duration"):
        loaded.to_sequence()
    assert loaded.to_sequence(12.0).duration_seconds == 12.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feat_spa": None, "feat_tem": None}, "neither of feat_spa, feat_tem"),
        ({"feat_tem": np.zeros((4, 8))}, "differ in length"),
        ({"feat_spa": np.zeros(9)}, "feat_spa is float64"),
        ({"cls_label": None}, "cls_label is missing"),
        ({"point_label": np.zeros(8)}, "point_label has 8"),
        ({"vid_name": np.array(3)}, "vid_name is int64"),
        ({"duration": np.array("long")}, "duration is"),
    ],
)
def test_each_field_is_checked_by_name(
    published: PublishedFeatures, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "video.npz"
    save_published(path, published)
    with np.load(path) as archive:
        fields = {**archive, **changes}
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})
    with pytest.raises(InvalidFile, match=message):
        load_published(path)
