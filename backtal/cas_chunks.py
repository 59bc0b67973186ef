"""The CAS of a grid, in chunks that carry their halo: exact, in memory that does not grow.

The network sees no further than `halo_positions` to either side (METHOD, Network).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from backtal.features import FloatArray
from backtal.stages import CasOutput, Stages

CAS_CHUNK_POSITIONS = 512


class CasChunks:
    """Runs the network on positions as they arrive. How they are cut does not change a bit."""

    def __init__(
        self,
        stages: Stages,
        halo_positions: int,
        chunk_positions: int = CAS_CHUNK_POSITIONS,
        before_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        self._stages = stages
        self._halo = halo_positions
        self._chunk = chunk_positions
        self._before_chunk = before_chunk
        self._held: FloatArray | None = None
        self._held_start = 0
        self._next_start = 0

    def push(self, grid: FloatArray) -> Iterator[CasOutput]:
        """Take positions [D, m]; the CAS of each chunk that is complete with its halo.

        The iterator must be exhausted before the next push.
        """
        held = grid if self._held is None else np.concatenate([self._held, grid], axis=1)
        self._held = held
        length = self._held_start + held.shape[1]
        while length >= self._next_start + self._chunk + self._halo:
            yield self._run(self._next_start + self._chunk, length)

    def finish(self) -> Iterator[CasOutput]:
        """The CAS of what is left."""
        if self._held is None:
            return
        length = self._held_start + self._held.shape[1]
        while self._next_start < length:
            yield self._run(min(self._next_start + self._chunk, length), length)

    def _run(self, end: int, length: int) -> CasOutput:
        assert self._held is not None
        self._before_chunk()
        start, self._next_start = self._next_start, end
        left, right = max(0, start - self._halo), min(length, end + self._halo)
        piece = self._held[:, left - self._held_start : right - self._held_start]
        output = self._stages.cas(np.ascontiguousarray(piece[None]))
        oldest = max(0, end - self._halo)
        self._held = self._held[:, oldest - self._held_start :].copy()
        self._held_start = oldest
        return _inner(output, start - left, end - start)


def chunked_cas(
    stages: Stages,
    features: FloatArray,
    *,
    halo_positions: int,
    chunk_positions: int = CAS_CHUNK_POSITIONS,
    before_chunk: Callable[[], None] = lambda: None,
) -> CasOutput:
    """The CAS of a whole grid's features [D, L]."""
    chunks = CasChunks(stages, halo_positions, chunk_positions, before_chunk)
    return joined([*chunks.push(features), *chunks.finish()])


def joined(parts: list[CasOutput]) -> CasOutput:
    """Chunks one after another."""
    magnitudes = [part.magnitude for part in parts if part.magnitude is not None]
    return CasOutput(
        cas=np.concatenate([part.cas for part in parts], axis=2),
        magnitude=np.concatenate(magnitudes, axis=1) if magnitudes else None,
    )


def _inner(output: CasOutput, start: int, length: int) -> CasOutput:
    inner = slice(start, start + length)
    magnitude = None if output.magnitude is None else output.magnitude[:, inner]
    return CasOutput(output.cas[:, :, inner], magnitude)
