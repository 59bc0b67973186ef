from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backtal.errors import InvalidFile, NotFound
from backtal.features import (
    FeatureProvenance,
    FeatureSequence,
    clip_middles,
    position_middles,
    resample_to_grid,
)
from backtal.manifest import ClipPlan


@pytest.fixture
def sequence() -> FeatureSequence:
    random = np.random.default_rng(1)
    start = np.arange(6, dtype=np.float32) * 0.5
    return FeatureSequence(
        values=random.normal(size=(5, 6)).astype(np.float32),
        clip_start_seconds=start,
        clip_end_seconds=start + np.float32(0.64),
        duration_seconds=3.14,
        num_frames_decoded=78,
        streams=("rgb",),
        provenance=FeatureProvenance(
            decoder="pyav",
            resizer="a resizer",
            clip_plan=ClipPlan(stride_frames=8),
            backbone_sha256=("ab" * 32,),
            precision="float32",
        ),
    )


def saved_fields(sequence: FeatureSequence, folder: Path) -> dict[str, NDArray[Any]]:
    path = folder / "sound.npz"
    sequence.save(path)
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_what_is_saved_is_loaded(sequence: FeatureSequence, tmp_path: Path) -> None:
    path = tmp_path / "video.npz"
    sequence.save(path)
    loaded = FeatureSequence.load(path)
    np.testing.assert_array_equal(loaded.values, sequence.values)
    np.testing.assert_array_equal(loaded.clip_start_seconds, sequence.clip_start_seconds)
    np.testing.assert_array_equal(loaded.clip_end_seconds, sequence.clip_end_seconds)
    assert loaded.duration_seconds == sequence.duration_seconds
    assert loaded.num_frames_decoded == 78
    assert loaded.streams == ("rgb",)
    assert loaded.provenance == sequence.provenance
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_sequence_gives_the_same_bytes(sequence: FeatureSequence, tmp_path: Path) -> None:
    sequence.save(tmp_path / "one.npz")
    sequence.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_float16_halves_the_file_and_is_loaded_as_float32(
    sequence: FeatureSequence, tmp_path: Path
) -> None:
    path = tmp_path / "video.npz"
    sequence.save(path, "float16")
    loaded = FeatureSequence.load(path)
    assert loaded.values.dtype == np.float32
    np.testing.assert_array_equal(loaded.values, sequence.values.astype(np.float16))


def test_values_beyond_float16_are_refused_and_no_file_is_left(
    sequence: FeatureSequence, tmp_path: Path
) -> None:
    large = replace(sequence, values=sequence.values + np.float32(1e5))
    with pytest.raises(InvalidFile, match="65504"):
        large.save(tmp_path / "video.npz", "float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", np.array("other"), "format 'other'"),
        ("version", np.array(2), "version 2"),
        ("version", np.array([1]), r"version is int64 \[1\]"),
        ("values", np.zeros((5, 6)), "values is float64"),
        ("values", np.zeros(6, np.float32), r"values is float32 \[6\]"),
        ("values", np.zeros((5, 0), np.float32), "values is empty"),
        ("values", np.full((5, 6), np.nan, np.float32), r"values\[0, 0\] is nan"),
        ("clip_start_seconds", np.zeros(5, np.float32), "clip_start_seconds has 5 clips"),
        ("clip_start_seconds", np.zeros(6), "clip_start_seconds is float64"),
        ("clip_end_seconds", np.full(6, -1, np.float32), "before its start"),
        ("duration_seconds", np.array(0.0), "duration_seconds is 0.0"),
        ("duration_seconds", np.array(np.inf), "duration_seconds is inf"),
        ("num_frames_decoded", np.array(-1), "num_frames_decoded is -1"),
        ("metadata", np.array("{"), "metadata is no JSON"),
        ("metadata", np.array('{"streams": ["rgb"]}'), "metadata: provenance"),
        ("extra", np.array(1), "unknown field extra"),
    ],
)
def test_each_field_is_checked_by_name(
    sequence: FeatureSequence, tmp_path: Path, field: str, value: NDArray[Any], message: str
) -> None:
    fields = saved_fields(sequence, tmp_path)
    fields[field] = value
    path = tmp_path / "broken.npz"
    np.savez(path, **fields)
    with pytest.raises(InvalidFile, match=rf"broken\.npz.*{message}"):
        FeatureSequence.load(path)


def test_each_field_must_be_there(sequence: FeatureSequence, tmp_path: Path) -> None:
    fields = saved_fields(sequence, tmp_path)
    for name in fields:
        path = tmp_path / "broken.npz"
        np.savez(path, **{other: value for other, value in fields.items() if other != name})
        with pytest.raises(InvalidFile, match=f"field {name} is missing"):
            FeatureSequence.load(path)


def test_a_pickle_is_not_loaded(sequence: FeatureSequence, tmp_path: Path) -> None:
    fields = saved_fields(sequence, tmp_path)
    fields["metadata"] = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "pickle.npz", **fields)
    with pytest.raises(InvalidFile, match=r"no \.npz of plain arrays"):
        FeatureSequence.load(tmp_path / "pickle.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 not a zip"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=r"video\.npz"):
        FeatureSequence.load(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "video.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InvalidFile, match="single array"):
        FeatureSequence.load(path)


def test_a_truncated_file_is_refused(sequence: FeatureSequence, tmp_path: Path) -> None:
    path = tmp_path / "video.npz"
    sequence.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidFile):
        FeatureSequence.load(path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.npz"):
        FeatureSequence.load(tmp_path / "nothing.npz")


def test_clips_must_come_one_after_the_other(sequence: FeatureSequence) -> None:
    start = sequence.clip_start_seconds.copy()
    start[3] = start[2] - 1
    end = sequence.clip_end_seconds.copy()
    end[3] = end[2]
    with pytest.raises(InvalidFile, match=r"clip 3 .* does not come after clip 2"):
        replace(sequence, clip_start_seconds=start, clip_end_seconds=end)


def test_equal_parts_cover_the_video() -> None:
    sequence = FeatureSequence.from_equal_parts(np.ones((2, 4), np.float32), 6.0)
    assert sequence.clip_start_seconds.tolist() == [0, 1.5, 3, 4.5]
    assert sequence.clip_end_seconds.tolist() == [1.5, 3, 4.5, 6]


grids = st.tuples(st.integers(1, 40), st.floats(0.05, 2), st.floats(0.05, 3))


@given(grids, st.floats(-100, 100, width=32))
def test_a_constant_stays_what_it_is(grid: tuple[int, float, float], value: float) -> None:
    num_clips, clip_seconds, position_seconds = grid
    sequence = FeatureSequence.from_equal_parts(
        np.full((2, num_clips), value, np.float32), num_clips * clip_seconds
    )
    resampled = sequence.on_grid(position_seconds)
    assert resampled.dtype == np.float32
    assert resampled.shape == (2, max(1, round(sequence.duration_seconds / position_seconds)))
    assert (resampled == np.float32(value)).all()


@given(grids)
def test_a_line_stays_a_line_and_the_edges_are_held(grid: tuple[int, float, float]) -> None:
    num_clips, clip_seconds, position_seconds = grid
    start = np.arange(num_clips, dtype=np.float32) * np.float32(clip_seconds)
    end = start + np.float32(clip_seconds)
    middles = clip_middles(start, end)
    values = (3 * middles - 1)[None].astype(np.float32)
    duration = num_clips * clip_seconds
    resampled = resample_to_grid(values, start, end, duration, position_seconds)
    inside = np.clip(position_middles(duration, position_seconds), middles[0], middles[-1])
    np.testing.assert_allclose(resampled[0], 3 * inside - 1, rtol=1e-4, atol=1e-3)


@given(st.integers(1, 50), st.floats(0.1, 2))
def test_the_grid_of_the_clips_gives_the_clips(num_clips: int, clip_seconds: float) -> None:
    values = np.random.default_rng(num_clips).normal(size=(3, num_clips)).astype(np.float32)
    sequence = FeatureSequence.from_equal_parts(values, num_clips * clip_seconds)
    np.testing.assert_allclose(sequence.on_grid(clip_seconds), values, atol=2e-5)
