from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from backtal_training.motion_energy import PART_SECONDS, main, motion_energy
from tests.made_videos import GREY_STEP, Layout, encode, steady


def test_the_energy_is_the_change_of_the_grey_levels(tmp_path: Path) -> None:
    (tmp_path / "steps.mp4").write_bytes(steady(32))
    energy = motion_energy(tmp_path / "steps.mp4")
    assert energy.dtype == np.float32
    # 32 frames at 25 a second; every other one is read, two steps of grey on.
    assert len(energy) == round(32 / 25 / PART_SECONDS)
    np.testing.assert_allclose(energy, 2 * GREY_STEP, atol=1.5)


def test_a_part_without_a_frame_goes_on_as_the_one_before(tmp_path: Path) -> None:
    stamps = [0, 2, 4, 6, 8, 50, 52]
    layout = Layout(stamps=stamps, time_base=Fraction(1, 25))
    (tmp_path / "gap.mp4").write_bytes(encode(layout))
    energy = motion_energy(tmp_path / "gap.mp4")
    assert np.isfinite(energy).all()
    assert energy[1] == energy[2] == energy[3] > 0


def test_the_command_writes_an_array_a_video(tmp_path: Path, capsys) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(steady(20))
    assert main([str(tmp_path), "--to", str(tmp_path / "motion.npz")]) == 0
    with np.load(tmp_path / "motion.npz") as written:
        assert sorted(written.files) == ["a", "b"]
    assert "2 videos" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"no video"])
def test_a_folder_without_sound_videos_is_refused(tmp_path: Path, content, capsys) -> None:
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    assert main([str(tmp_path), "--to", str(tmp_path / "motion.npz")]) == 1
    assert "error: " in capsys.readouterr().err
