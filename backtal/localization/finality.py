"""What can be told before the video ends: the proposals that no later position can change.

A proposal is changed by what overlaps it in its class, and that by what overlaps it in turn. So
those that hang together are final together, once none of them reaches as far as a proposal that
is still to come. Those begin

- where the next window does, or later;
- further left, where a run touches that window's left edge and is followed back: but no further
  than the last position that is at or below every level there can be (`lowest_levels`), and no
  further than the history that is kept;
- at the runs that are being followed, or that wait for their neighbour.

Between a run's outermost position and the one before it lies the crossing: half a position back.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from backtal.localization.joining import Followed
from backtal.localization.proposals import Doubles
from backtal.localization.scores import Array, CasForm
from backtal.localization.settings import LocalizationSettings
from backtal.localization.window import Window

HALF = 0.5


def lowest_levels(settings: LocalizationSettings, kind: CasForm) -> tuple[float, float]:
    """The lowest level that runs of a class, and of the magnitude, are cut at in any window.

    Ranges are clipped at 0 from below; a probability is cut at the thresholds themselves.
    """
    lowest = min(settings.cas_thresholds) if kind == "probability" else 0.0
    # As the window computes it, in the rows' own precision.
    return float(np.float32(lowest)), 0.0


class Frontier:
    """From which position on proposals of a class may still come, after a window was taken.

    `rows` [R, n] are the positions from `rows_start` on, the magnitude last where it is used;
    `last` is the window that was taken and `following` where the next one begins, `reach` how many
    positions before its window a run is followed back.
    """

    def __init__(
        self,
        rows: Array,
        rows_start: int,
        *,
        last: Window,
        followed: Iterable[Followed],
        following: int,
        reach: int,
        levels: tuple[float, float],
        has_magnitude: bool,
    ) -> None:
        self._rows = rows[:, : following - rows_start]
        self._rows_start = rows_start
        self._oldest = float(max(0, following - reach))
        self._levels = levels
        self._has_magnitude = has_magnitude
        self._begun: dict[int, float] = {}
        for one in followed:
            self._add(one.class_index, one.first)
        for run in last.edge_runs:
            if run.is_dropped:
                continue
            first = run.first
            if run.follows_left:
                first = self._behind_last(run.row, run.first, float(run.level))
            self._add(run.class_index, first)

    def of(self, class_index: int) -> float:
        """No proposal of the class that is still to come begins before this position."""
        end = self._rows_start + self._rows.shape[1]
        first = self._behind_last(class_index, end, self._levels[0])
        if self._has_magnitude:
            row = self._rows.shape[0] - 1
            first = min(first, self._behind_last(row, end, self._levels[1]))
        return min(max(self._oldest, first - HALF), self._begun.get(class_index, np.inf))

    def _add(self, class_index: int, first: int) -> None:
        known = self._begun.get(class_index, np.inf)
        self._begun[class_index] = min(known, first - HALF)

    def _behind_last(self, row: int, end: int, level: float) -> int:
        """One past the last position before `end` at which `row` is at or below `level`."""
        below = np.flatnonzero(self._rows[row, : end - self._rows_start] <= level)
        return self._rows_start + (int(below[-1]) + 1 if below.size else 0)


def settled(start: Doubles, end: Doubles, frontier: float) -> NDArray[np.bool_]:
    """Which of a class's proposals [P] are final: those that hang together end by `frontier`.

    All in one unit, and as NMS compares them.
    """
    order = np.argsort(start, kind="stable")
    reach = np.maximum.accumulate(end[order])
    goes_on = np.append(start[order][1:] < reach[:-1], False)
    ends = np.flatnonzero(~goes_on & (reach <= frontier))
    is_settled = np.zeros(start.size, dtype=np.bool_)
    if ends.size:
        is_settled[order[: ends[-1] + 1]] = True
    return is_settled
