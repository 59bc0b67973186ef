"""Which frames make a clip.

A video is read at ticks, `frames_per_second` of the clip plan apart, the first at 0: for each
tick the frame that is on show then. Clip i is the `frames_per_clip` ticks from tick
``i * stride_frames`` on. The last clip is the last one that has at least half of its ticks
within the video; what is beyond is the last frame again. A video shorter than that is one clip.

At 25 ticks a second, 16 a clip, stride 16, a video of 2 s has ticks 0 to 49: clips from ticks 0,
16 and 32, none from tick 48, which would have two real frames.

Where flow is needed a clip takes one frame more, to have the flow of its last one; which clips
there are stays the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidVideo
from backtal.manifest import ClipPlan
from backtal.video.window import Window

# Matroska rounds times to milliseconds: a frame meant for a tick may be stamped just after it.
# No whole number of milliseconds, so that such times do not lie on the edge.
TICK_TOLERANCE_SECONDS = 1.25e-3


def first_tick(plan: ClipPlan, seconds: float) -> int:
    """The first tick at or after `seconds`: the first that shows a frame which starts then."""
    return max(0, math.ceil((seconds - TICK_TOLERANCE_SECONDS) * plan.frames_per_second))


def num_ticks(plan: ClipPlan, duration_seconds: float) -> int:
    """How many ticks a video has: at least one."""
    return max(1, first_tick(plan, duration_seconds))


def num_clips(plan: ClipPlan, duration_seconds: float) -> int:
    """How many clips a video has: at least one."""
    least_real = math.ceil(plan.frames_per_clip / 2)
    return max(0, (num_ticks(plan, duration_seconds) - least_real) // plan.stride_frames) + 1


def clip_times(
    plan: ClipPlan, duration_seconds: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Start and end of each clip, seconds, both [N]; the last ends with the video."""
    first = np.arange(num_clips(plan, duration_seconds)) * plan.stride_frames
    start = first / plan.frames_per_second
    end = (first + plan.frames_per_clip) / plan.frames_per_second
    return start.astype(np.float32), np.minimum(end, duration_seconds).astype(np.float32)


def needs_frame(plan: ClipPlan, start_seconds: float, end_seconds: float) -> bool:
    """Whether a frame that is on show from start to end is on show at any tick of a clip."""
    tick, end = first_tick(plan, start_seconds), first_tick(plan, end_seconds)
    into_stride = tick % plan.stride_frames
    if into_stride >= plan.frames_taken:
        tick += plan.stride_frames - into_stride
    return tick < end


class ClipAssembler:
    """Turns decode windows into clips, holding no more frames than one clip needs."""

    def __init__(self, plan: ClipPlan) -> None:
        self._plan = plan
        self._shown: deque[NDArray[np.uint8]] = deque(maxlen=plan.frames_taken)
        self._next_tick = 0
        self._next_start = 0

    def add(self, window: Window) -> Iterator[NDArray[np.uint8]]:
        """The clips that `window` completes, each uint8 [frames_taken, H, W, 3].

        Windows come in order; each must be exhausted before the next is added.
        """
        ends = [*window.presentation_seconds[1:].tolist(), window.end_seconds]
        for frame, end_seconds in zip(window.frames, ends, strict=True):
            end_tick = first_tick(self._plan, end_seconds)
            while self._next_tick < end_tick:
                yield from self._show(frame)

    def finish(self) -> Iterator[NDArray[np.uint8]]:
        """The clips that need padding, after the last window."""
        if self._next_tick == 0:
            raise InvalidVideo("no frame is on show at any time", problem="nothing_decoded")
        num_real_ticks = self._next_tick
        least_real = math.ceil(self._plan.frames_per_clip / 2)
        last = self._shown[-1]
        while self._next_start == 0 or self._next_start + least_real <= num_real_ticks:
            yield from self._show(last)

    def _show(self, frame: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        self._shown.append(frame)
        self._next_tick += 1
        if self._next_tick == self._next_start + self._plan.frames_taken:
            self._next_start += self._plan.stride_frames
            yield np.stack(self._shown)
