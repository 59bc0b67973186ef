"""Where windows meet: what becomes of a run that touches an inner edge.

Neighbouring windows overlap by about half. Each has its own levels, but both cut the same
values, so inside the overlap the runs of one lie within the runs of the other. A run that
touches an inner edge

- and lies beside or inside the overlap is left to the neighbour, which sees it whole, if the
  neighbour has a run there; if it has none, the run is followed past the edge;
- and covers the whole overlap is too long for a window: it is followed past the edge at the
  level of the window that it was found in, to where it ends. The neighbour's own part of it is
  dropped if its level is no lower, so that a segment of any length comes out once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backtal.localization.proposals import Proposals, contrast, crossings
from backtal.localization.scores import Array, integral
from backtal.localization.window import EdgeRun, Window


def decide(window: Window, following: Window) -> None:
    """Settle the runs that touch the edges at which two neighbours overlap."""
    rightward = {run.slot: run for run in window.edge_runs if run.end == window.end}
    leftward = [run for run in following.edge_runs if run.first == following.start]
    for run in rightward.values():
        covers_overlap = run.first <= following.start
        if not covers_overlap and following.runs.overlaps(run.slot, run.first, run.end):
            run.is_dropped = True
        else:
            run.follows_right = True
    for run in leftward:
        if run.end < window.end:
            is_seen = window.runs.overlaps(run.slot, run.first, run.end)
        else:
            other = rightward.get(run.slot)
            is_seen = (
                other is not None
                and other.first <= following.start
                and bool(other.level <= run.level)
            )
        run.is_dropped |= is_seen
        run.follows_left |= not is_seen


@dataclass
class Followed:
    """A run that is followed past the edges of the window that it was found in.

    `values` are the class's row and `track` the row that the run is a run of, both from position
    `start` on; the run begins at `first`. It is measured as its own window measures.
    """

    class_index: int
    row: int
    level: np.floating[Any]
    low: float
    delta: float
    video_score: float
    start: int
    first: int
    values: Array
    track: Array

    @classmethod
    def begin(cls, run: EdgeRun, window: Window, history: Array, history_start: int) -> Followed:
        """Follow `run` of `window` to the left, as far as `history` [R, m] reaches.

        `history` starts at position `history_start` and ends with the window.
        """
        start, first = window.start, run.first
        if run.follows_left:
            earlier = history[run.row, : first - history_start]
            below = np.flatnonzero(earlier <= run.level)
            first = history_start + (int(below[-1]) + 1 if below.size else 0)
            start = min(start, max(history_start, first - window.rows.shape[1]))
        kept = slice(start - history_start, window.end - history_start)
        measure = window.measure
        return cls(
            class_index=run.class_index,
            row=run.row,
            level=run.level,
            low=float(measure.low[run.class_index]),
            delta=float(measure.delta[run.class_index]),
            video_score=float(measure.scores[run.class_index]),
            start=start,
            first=first,
            values=history[run.class_index, kept].copy(),
            track=history[run.row, kept].copy(),
        )

    def extend(self, window: Window) -> None:
        """Take the positions of `window` that are not there yet."""
        known = self.start + self.values.size - window.start
        self.values = np.concatenate([self.values, window.rows[self.class_index, known:]])
        self.track = np.concatenate([self.track, window.rows[self.row, known:]])

    @property
    def end(self) -> int | None:
        """One past the run's last position; None while it goes on."""
        inside = self.track[self.first - self.start :]
        below = np.flatnonzero(inside <= self.level)
        return self.first + int(below[0]) if below.size else None

    def proposal(self, outer_width: float, gamma: float) -> Proposals:
        """The run as a proposal, against the windows that it was followed through."""
        end = self.end if self.end is not None else self.start + self.track.size
        zero = np.zeros(1, dtype=np.int64)
        first, stop = zero + self.first - self.start, zero + end - self.start
        begin, finish = crossings(self.track[None], zero, first, stop, np.array([self.level]))
        sums = integral(((self.values - self.low) / self.delta)[None])
        score = contrast(sums, zero, begin, finish, outer_width) + gamma * self.video_score
        return Proposals(zero + self.class_index, self.start + begin, self.start + finish, score)
