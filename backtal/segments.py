"""A detected action, and how much two stretches of time overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Segment:
    """A detected action: where it starts and ends in the video, its class, how sure."""

    start_seconds: float
    end_seconds: float
    label: str
    score: float

    @property
    def seconds(self) -> float:
        """The segment's length."""
        return self.end_seconds - self.start_seconds


def overlap_ratio(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Temporal intersection over union (tIoU) of every pair.

    `first` [N, 2] and `second` [M, 2] hold start and end, in any one unit. Returns [N, M].
    Two stretches without length overlap 0, even where they are one and the same.
    """
    start = np.maximum(first[:, None, 0], second[None, :, 0])
    end = np.minimum(first[:, None, 1], second[None, :, 1])
    shared = np.maximum(end - start, 0.0)
    lengths = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None, :]
    union = lengths - shared
    ratio: NDArray[np.float64] = np.zeros_like(union)
    np.divide(shared, union, out=ratio, where=union > 0)
    return ratio
