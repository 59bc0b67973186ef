from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backtal.clips import ClipAssembler, clip_times, needs_frame, num_clips, num_ticks
from backtal.errors import InvalidVideo
from backtal.manifest import ClipPlan
from backtal.video.window import Window

SIZE = 2


@st.composite
def clip_plans(draw: st.DrawFn) -> ClipPlan:
    return ClipPlan(
        frames_per_second=draw(st.sampled_from([5.0, 10.0, 24.0, 25.0, 29.97])),
        frames_per_clip=draw(st.integers(1, 9)),
        stride_frames=draw(st.integers(1, 14)),
        flow=draw(st.sampled_from([None, "dis"])),
    )


@st.composite
def timelines(draw: st.DrawFn) -> tuple[NDArray[np.float64], float]:
    """Rising start times of frames, the first at 0, and the end of the last one."""
    gaps = draw(st.lists(st.integers(2, 700), min_size=1, max_size=60))
    edges = np.cumsum([0, *gaps]) / 1000
    return edges[:-1], float(edges[-1])


def frames_numbered(count: int) -> NDArray[np.uint8]:
    return np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, SIZE, SIZE, 3)
    )


def windows_of(starts: NDArray[np.float64], end: float, size: int) -> list[Window]:
    frames = frames_numbered(len(starts))
    edges = [*starts.tolist(), end]
    return [
        Window(starts[i : i + size], frames[i : i + size], edges[min(i + size, len(starts))])
        for i in range(0, len(starts), size)
    ]


def assembled(plan: ClipPlan, windows: list[Window]) -> list[list[int]]:
    """The clips, each as the numbers of its frames."""
    assembler = ClipAssembler(plan)
    clips = [clip for window in windows for clip in assembler.add(window)]
    clips += assembler.finish()
    return [clip[:, 0, 0, 0].tolist() for clip in clips]


def naive(plan: ClipPlan, starts: NDArray[np.float64], end: float) -> list[list[int]]:
    """The whole video at once, tick by tick, straight from the clip plan's words."""
    rate = plan.frames_per_second
    ticks = []
    while not ticks or len(ticks) / rate + 1.25e-3 < end:
        time = len(ticks) / rate
        ticks.append(max(i for i, start in enumerate(starts) if start <= time + 1.25e-3))
    clips = []
    first = 0
    while first == 0 or 2 * (len(ticks) - first) >= plan.frames_per_clip:
        real = ticks[first : first + plan.frames_taken]
        clips.append(real + [ticks[-1]] * (plan.frames_taken - len(real)))
        first += plan.stride_frames
    return clips


@given(clip_plans(), timelines(), st.integers(1, 20))
def test_clips_equal_those_of_the_whole_video(
    plan: ClipPlan, timeline: tuple[NDArray[np.float64], float], window_size: int
) -> None:
    starts, end = timeline
    got = assembled(plan, windows_of(starts, end, window_size))
    assert got == naive(plan, starts, end)
    assert len(got) == num_clips(plan, end)


@given(clip_plans(), timelines())
def test_frames_that_are_on_show_at_no_tick_may_be_left_out(
    plan: ClipPlan, timeline: tuple[NDArray[np.float64], float]
) -> None:
    starts, end = timeline
    ends = [*starts[1:], end]
    needed = [
        i
        for i, (start, until) in enumerate(zip(starts, ends, strict=True))
        if needs_frame(plan, start, until)
    ]
    if not needed:
        return
    window = Window(starts[needed], frames_numbered(len(starts))[needed], end)
    assert assembled(plan, [window]) == naive(plan, starts, end)
    shown = {number for clip in naive(plan, starts, end) for number in clip}
    assert shown <= set(needed)


@given(clip_plans(), st.floats(0.002, 60))
def test_clip_times_are_of_the_clips(plan: ClipPlan, duration: float) -> None:
    start, end = clip_times(plan, duration)
    assert len(start) == len(end) == num_clips(plan, duration)
    assert start[0] == 0
    assert (end > start).all()
    assert end.max() <= np.float32(duration)
    np.testing.assert_allclose(np.diff(start), plan.stride_seconds, atol=1e-5)


def test_two_seconds_at_25_ticks_have_three_clips() -> None:
    plan = ClipPlan()
    assert num_ticks(plan, 2.0) == 50
    assert num_clips(plan, 2.0) == 3
    # From tick 48 on there are 8 real frames, half a clip, only when the video has 56.
    assert [num_clips(plan, ticks / 25) for ticks in (55, 56)] == [3, 4]
    assert num_clips(plan, 0.04) == 1


def test_a_video_at_the_plans_rate_gives_each_frame_once() -> None:
    plan = ClipPlan(frames_per_clip=4, stride_frames=4, frames_per_second=30)
    starts = np.arange(12) / 30
    assert assembled(plan, windows_of(starts, 12 / 30, 5)) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


def test_times_rounded_to_milliseconds_do_not_shift_the_frames() -> None:
    plan = ClipPlan(frames_per_clip=30, stride_frames=30, frames_per_second=24)
    starts = np.array([math.ceil(1000 * i / 24) / 1000 for i in range(30)])
    assert assembled(plan, windows_of(starts, 1.25, 64)) == [list(range(30))]


def test_a_frame_that_stays_for_an_hour_comes_clip_by_clip() -> None:
    plan = ClipPlan()
    window = Window(np.array([0.0]), np.zeros((1, 224, 224, 3), np.uint8), 3600.0)
    clips = ClipAssembler(plan).add(window)
    assert next(clips).shape == (16, 224, 224, 3)
    assert next(clips).shape == (16, 224, 224, 3)


def test_no_frame_at_all_is_an_error() -> None:
    with pytest.raises(InvalidVideo, match="no frame"):
        list(ClipAssembler(ClipPlan()).finish())
