from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.manifest import ClipPlan
from backtal.video.scaling import crop_middle, quarter_turns, scaled_size, upright_size
from backtal.video.timeline import Timeline


@pytest.mark.parametrize(
    ("width", "height", "aspect", "expected"),
    [
        (640, 360, Fraction(1), (456, 256)),
        (360, 640, Fraction(1), (256, 456)),
        (320, 240, Fraction(1), (342, 256)),
        (256, 256, Fraction(1), (256, 256)),
        (640, 360, Fraction(2), (910, 256)),
        (640, 360, Fraction(1, 2), (256, 288)),
        (340, 256, Fraction(64, 51), (426, 256)),
    ],
)
def test_the_short_side_is_256_and_pixels_are_square(
    width: int, height: int, aspect: Fraction, expected: tuple[int, int]
) -> None:
    assert scaled_size(width, height, aspect, 256) == expected


@given(st.integers(16, 5000), st.integers(16, 5000), st.integers(8, 200).map(lambda n: 2 * n))
def test_the_shape_is_kept_to_a_pixel_and_the_long_side_is_even(
    width: int, height: int, short: int
) -> None:
    scaled = scaled_size(width, height, Fraction(1), short)
    assert min(scaled) == short
    assert max(scaled) % 2 == 0
    assert max(scaled) == pytest.approx(short * max(width, height) / min(width, height), abs=1)


def test_a_frame_on_its_side_is_scaled_as_it_will_stand() -> None:
    assert upright_size(640, 360, Fraction(1), 0, 256) == (456, 256)
    assert upright_size(640, 360, Fraction(1), 1, 256) == (256, 456)
    assert upright_size(640, 360, Fraction(2), 3, 256) == (256, 910)
    assert upright_size(640, 360, Fraction(2), 2, 256) == (910, 256)


@pytest.mark.parametrize(
    ("degrees", "quarters"),
    [(0, 0), (90, 1), (-90, 3), (180, 2), (-180, 2), (270, 3), (-(2**31), 0), (89, 1), (30, 0)],
)
def test_rotations_are_whole_quarters(degrees: int, quarters: int) -> None:
    assert quarter_turns(degrees) == quarters


def test_the_middle_square_is_cut_out() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[6:14, 11:19] = 1
    plan = ClipPlan(short_side_pixels=20, crop_pixels=16)
    square = crop_middle(frame, plan)
    assert square.shape == (16, 16, 3)
    assert (square[4:12, 4:12] == 1).all()
    assert square.sum() == 8 * 8 * 3


def test_stamps_become_seconds_from_the_first() -> None:
    timeline = Timeline(0.04)
    times = [timeline.add(stamp, Fraction(1, 12800)) for stamp in (1024, 1536, 2048, 4096)]
    assert times == [0.0, 0.04, 0.08, 0.24]
    assert timeline.num_restamped == 0


def test_missing_and_backward_stamps_step_by_a_frame() -> None:
    timeline = Timeline(0.5)
    times = [timeline.add(stamp, Fraction(1)) for stamp in (5, 6, None, 3, 6, 10)]
    assert times == [0.0, 1.0, 1.5, 2.0, 2.5, 5.0]
    assert timeline.num_restamped == 3


@given(st.lists(st.one_of(st.none(), st.integers(-(2**62), 2**62)), min_size=1))
def test_times_always_rise(stamps: list[int | None]) -> None:
    timeline = Timeline(0.04)
    times = [timeline.add(stamp, Fraction(1, 90000)) for stamp in stamps]
    assert times[0] == 0
    assert all(later >= earlier for earlier, later in pairwise(times))
