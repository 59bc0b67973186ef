"""Proposals with their boundaries between positions, and how they are scored.

Everything here is measured in positions: position p covers [p, p + 1) and its value is taken at
its middle, p + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtal.localization.scores import Array, Indices

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Proposals:
    """Proposed segments of one piece of the sequence: four arrays of [P]."""

    class_index: Indices
    start_position: Doubles
    end_position: Doubles
    score: Doubles

    @classmethod
    def joined(cls, parts: Sequence[Proposals]) -> Proposals:
        """One after another."""
        return cls(
            np.concatenate([part.class_index for part in parts]),
            np.concatenate([part.start_position for part in parts]),
            np.concatenate([part.end_position for part in parts]),
            np.concatenate([part.score for part in parts]),
        )

    def select(self, which: NDArray[np.bool_]) -> Proposals:
        """Those that a mask [P] names."""
        return Proposals(
            self.class_index[which],
            self.start_position[which],
            self.end_position[which],
            self.score[which],
        )


def crossings(
    rows: Array, row: Indices, first: Indices, end: Indices, level: Array
) -> tuple[Doubles, Doubles]:
    """Where runs above a level begin and end, to a part of a position.

    The line between the middles of a run's outermost position and its neighbour crosses the
    level there. A run at either end of `rows` [R, n] reaches that end. `row`, `first`, `end`
    (one past the last) and `level` are [P]; returns starts and ends [P].
    """
    length = rows.shape[1]
    level = level.astype(np.float64)

    def share(inside: Indices, outside: Indices) -> Doubles:
        """How far from the middle inside to the middle outside the level is crossed."""
        within = rows[row, inside].astype(np.float64)
        beyond = rows[row, np.clip(outside, 0, length - 1)].astype(np.float64)
        drop = within - beyond
        return np.divide(within - level, drop, out=np.ones_like(drop), where=drop > 0)

    start = np.where(first == 0, 0.0, first + 0.5 - share(first, first - 1))
    stop = np.where(end == length, float(length), end - 0.5 + share(end - 1, end))
    return start, stop


def contrast(sums: Doubles, row: Indices, start: Doubles, end: Doubles, width: float) -> Doubles:
    """Mean inside minus mean outside, the outer region being `width` lengths on each side.

    Where the outer region reaches beyond the sequence, the row's mean stands in: counted as 0
    it would let a proposal win by touching an end. `sums` [R, n + 1] are the rows' running sums
    (`scores.integral`); `row`, `start` and `end` are [P], in positions.
    """
    length = sums.shape[1] - 1

    def area(left: Doubles, right: Doubles) -> Doubles:
        return _area_before(sums, row, right) - _area_before(sums, row, left)

    size = end - start
    # A peak that barely passes its level has no length in floating point.
    inner = np.divide(area(start, end), size, out=np.zeros_like(size), where=size > 0)
    wanted = width * size
    left = np.maximum(start - wanted, 0.0)
    right = np.minimum(end + wanted, float(length))
    missing = np.maximum(2 * wanted - (start - left) - (right - end), 0.0)
    outer = area(left, start) + area(end, right) + missing * sums[row, -1] / length
    outside = np.divide(outer, 2 * wanted, out=np.zeros_like(outer), where=wanted > 0)
    difference: Doubles = inner - outside
    return difference


def _area_before(sums: Doubles, row: Indices, position: Doubles) -> Doubles:
    whole = np.clip(position.astype(np.int64), 0, sums.shape[1] - 2)
    below = sums[row, whole]
    area: Doubles = below + (position - whole) * (sums[row, whole + 1] - below)
    return area
