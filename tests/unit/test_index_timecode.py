"""Frames and timecode, held against counting one by one and against OpenTimelineIO."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentimelineio.opentime import RationalTime, to_timecode

from backtal.errors import InvalidArgument
from backtal_indexing.timecode import (
    DROP_FRAME_RATES,
    TIMECODE_RATES,
    exact_rate,
    frame_at,
    timecode,
)

NTSC_30, _ = DROP_FRAME_RATES
A_DAY_SECONDS = 24 * 3600


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (25.0, Fraction(25)),
        (24.0, Fraction(24)),
        (19.6, Fraction(98, 5)),
        (12.5, Fraction(25, 2)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_a_rounded_rate_is_the_exact_one(written: float, exact: Fraction) -> None:
    assert exact_rate(written) == exact


@pytest.mark.parametrize("rate", [0.0, -25.0, float("nan"), float("inf")])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(InvalidArgument, match="frames a second"):
        exact_rate(rate)


@given(st.floats(1e-6, 1e4))
def test_a_rate_is_positive_and_near_the_figure(figure: float) -> None:
    rate = exact_rate(figure)
    assert rate > 0
    assert abs(float(rate) - figure) <= max(0.005, figure / 1e6)


@given(st.floats(0, 1e6), st.sampled_from(TIMECODE_RATES))
def test_a_frame_starts_at_most_half_a_frame_away(seconds: float, rate: Fraction) -> None:
    assert abs(frame_at(seconds, rate) / rate - Fraction(seconds)) <= 1 / (2 * rate)


def numbers_shown(rate: Fraction, num_frames: int) -> list[tuple[int, ...]]:
    """Hour, minute, second and frame of every frame, counted as SMPTE says it in words."""
    per_second = round(rate)
    dropped = {30: 2, 60: 4}[per_second]
    shown = []
    hour = minute = second = frame = 0
    for _ in range(num_frames):
        shown.append((hour, minute, second, frame))
        frame += 1
        if frame == per_second:
            frame, second = 0, second + 1
        if second == 60:
            second, minute = 0, minute + 1
            frame = 0 if minute % 10 == 0 else dropped
        if minute == 60:
            minute, hour = 0, hour + 1
    return shown


@pytest.mark.parametrize("rate", DROP_FRAME_RATES)
def test_numbers_are_dropped_as_one_counts(rate: Fraction) -> None:
    num_frames = int(21 * 60 * rate)
    for frame, parts in enumerate(numbers_shown(rate, num_frames)):
        hours, minutes, seconds, frames = parts
        assert timecode(frame, rate) == f"{hours:02}:{minutes:02}:{seconds:02};{frames:02}"


@given(st.sampled_from(TIMECODE_RATES), st.integers(0, 24 * 3600 * 60))
def test_opentimelineio_says_the_same(rate: Fraction, frame: int) -> None:
    frame %= int(A_DAY_SECONDS * rate) // 10 * 10
    assert timecode(frame, rate) == to_timecode(RationalTime(frame, float(rate)), float(rate))


@given(st.sampled_from(DROP_FRAME_RATES), st.integers(0, 23))
def test_an_hour_of_timecode_is_an_hour(rate: Fraction, hours: int) -> None:
    frame = frame_at(hours * 3600.0, rate)
    assert timecode(frame, rate).startswith(f"{hours:02}:00:00;0")


def test_what_has_no_timecode_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"19\.6 frames a second.*23\.976, 24, 25, 29\.97"):
        timecode(0, Fraction(98, 5))
    with pytest.raises(InvalidArgument, match="frame -1 has no timecode"):
        timecode(-1, NTSC_30)
