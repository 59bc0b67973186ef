"""The grid of positions, filled while a video is still being decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backtal.clips import clip_times
from backtal.features import FloatArray, clip_middles, position_middles, sample_between
from backtal.manifest import ClipPlan


class GridSampler:
    """`resample_to_grid` for clips that come one after another, to the same bits.

    It holds the few clips whose positions are not settled: how long the last clips last, and how
    many positions there are, is known at the end of the video only.
    """

    def __init__(self, plan: ClipPlan, position_seconds: float) -> None:
        self._plan = plan
        self._position_seconds = position_seconds
        self._values: FloatArray | None = None
        self._first_clip = 0
        self._num_clips = 0
        self._next_position = 0

    def push(self, values: FloatArray) -> FloatArray:
        """Take the next clips' features [D, n]; the positions [D, m] that they settle."""
        held = values if self._values is None else np.concatenate([self._values, values], axis=1)
        self._values = held
        self._num_clips += values.shape[1]
        plan, width = self._plan, self._position_seconds
        # The video may end before clips that overlap the last one do: their middles may move.
        num_unsettled = -(-plan.frames_per_clip // plan.stride_frames)
        if held.shape[1] <= num_unsettled:
            return held[:, :0]
        last_start_seconds = (self._num_clips - 1) * plan.stride_seconds
        middles = _middles_of_whole_clips(plan, self._first_clip, self._num_clips)
        positions = np.arange(self._next_position, int(last_start_seconds / width) + 1)
        seconds = (positions + 0.5) * width
        is_settled = (seconds <= middles[-1 - num_unsettled]) & (
            (positions + 1.5) * width <= last_start_seconds
        )
        sampled = self._sample(middles, seconds[: np.count_nonzero(is_settled)])
        self._forget(middles)
        return sampled

    def finish(self, duration_seconds: float) -> FloatArray:
        """The positions that are left, once the duration is known."""
        assert self._values is not None
        middles = clip_middles(*clip_times(self._plan, duration_seconds))[self._first_clip :]
        seconds = position_middles(duration_seconds, self._position_seconds)
        return self._sample(middles, seconds[self._next_position :])

    def _sample(self, middles: NDArray[np.float64], seconds: NDArray[np.float64]) -> FloatArray:
        assert self._values is not None
        self._next_position += len(seconds)
        return sample_between(self._values, middles, seconds)

    def _forget(self, middles: NDArray[np.float64]) -> None:
        """Drop the clips that lie before the ones around the next position."""
        next_seconds = (self._next_position + 0.5) * self._position_seconds
        num_passed = int(np.searchsorted(middles, next_seconds)) - 1
        # Where the last clip is the nearest, the one before it is wanted too.
        num_passed = min(num_passed, len(middles) - 2)
        if num_passed > 0 and self._values is not None:
            self._values = self._values[:, num_passed:].copy()
            self._first_clip += num_passed


def _middles_of_whole_clips(plan: ClipPlan, first: int, end: int) -> NDArray[np.float64]:
    """The middles of clips `first` to `end` of a video that goes on behind them."""
    ticks = np.arange(first, end) * plan.stride_frames
    start = ticks / plan.frames_per_second
    stop = (ticks + plan.frames_per_clip) / plan.frames_per_second
    return clip_middles(start.astype(np.float32), stop.astype(np.float32))
