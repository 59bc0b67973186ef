"""What arrives in pieces is what the whole would have been, to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtal.cas_chunks import CasChunks, chunked_cas, joined
from backtal.clips import clip_times, num_clips
from backtal.features import FloatArray, resample_to_grid
from backtal.grid import GridSampler
from backtal.manifest import ClipPlan
from backtal.stages import CasOutput

PIECES = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def cut(values: FloatArray, pieces: list[int]) -> list[FloatArray]:
    """`values` in pieces of these lengths, over and over."""
    found, start = [], 0
    while start < values.shape[1]:
        length = pieces[len(found) % len(pieces)]
        found.append(values[:, start : start + length])
        start += length
    return found


@settings(max_examples=400)
@example(1.375, 2, 1, 10.0, 0.0625, [1])
@example(10.1, 16, 8, 25.0, 0.32, [4])
@given(
    duration=st.floats(0.01, 60.0),
    frames=st.integers(1, 20),
    stride=st.integers(1, 24),
    rate=st.sampled_from([10.0, 25.0, 29.97]),
    position_seconds=st.floats(0.05, 8.0),
    pieces=PIECES,
)
def test_a_grid_filled_as_clips_come_is_the_whole_grid(
    duration: float,
    frames: int,
    stride: int,
    rate: float,
    position_seconds: float,
    pieces: list[int],
) -> None:
    plan = ClipPlan(frames_per_second=rate, frames_per_clip=frames, stride_frames=stride)
    count = num_clips(plan, duration)
    values = np.random.default_rng(count).normal(size=(3, count)).astype(np.float32)
    whole = resample_to_grid(values, *clip_times(plan, duration), duration, position_seconds)
    sampler = GridSampler(plan, position_seconds)
    parts = [sampler.push(piece) for piece in cut(values, pieces)]
    parts.append(sampler.finish(duration))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_grid_holds_a_few_clips_only() -> None:
    plan = ClipPlan()
    sampler = GridSampler(plan, plan.stride_seconds)
    for _ in range(200):
        sampler.push(np.zeros((2, 4), np.float32))
        assert sampler._values is not None
        assert sampler._values.shape[1] <= 8


class Sums:
    """A network whose channels are sums of what it sees, as far as its halo."""

    def __init__(self, halo: int) -> None:
        self.halo = halo
        self.longest = 0

    def features(self, stream: str, clips: object) -> FloatArray:
        raise NotImplementedError

    def cas(self, features: FloatArray) -> CasOutput:
        self.longest = max(self.longest, features.shape[2])
        padded = np.pad(features[0], ((0, 0), (self.halo, self.halo)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * self.halo + 1, axis=1)
        return CasOutput(windows.sum(axis=2)[None], features[:, 0])


@given(
    length=st.integers(1, 60),
    halo=st.integers(0, 4),
    chunk=st.integers(1, 20),
    pieces=PIECES,
)
def test_chunks_of_what_arrives_are_the_whole(
    length: int, halo: int, chunk: int, pieces: list[int]
) -> None:
    grid = np.random.default_rng(length).integers(0, 9, (3, length)).astype(np.float32)
    stages = Sums(halo)
    chunks = CasChunks(stages, halo, chunk)
    parts = [output for piece in cut(grid, pieces) for output in chunks.push(piece)]
    together = joined([*parts, *chunks.finish()])
    whole = Sums(halo).cas(grid[None])
    np.testing.assert_array_equal(together.cas, whole.cas)
    assert whole.magnitude is not None
    assert together.magnitude is not None
    np.testing.assert_array_equal(together.magnitude, whole.magnitude)
    assert stages.longest <= chunk + 2 * halo
    again = chunked_cas(Sums(halo), grid, halo_positions=halo, chunk_positions=chunk)
    np.testing.assert_array_equal(again.cas, whole.cas)
