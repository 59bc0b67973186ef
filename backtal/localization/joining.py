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

from backtal.localization.proposals import Proposals, crossings
from backtal.localization.scores import Array
from backtal.localization.scoring import Scoring
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
    `start` on; the run is [first, end), `end` being None while it goes on. It is measured as its
    own window measures, against what lies around it there and in the other windows.
    """

    slot: int
    class_index: int
    row: int
    level: np.floating[Any]
    low: float
    delta: float
    video_score: float
    start: int
    first: int
    end: int | None
    values: Array
    track: Array

    @classmethod
    def begin(cls, run: EdgeRun, window: Window, history: Array) -> Followed:
        """Follow `run` of `window` to the left, as far as `history` [R, m] reaches.

        `history` ends with the window.
        """
        start, first = window.end - history.shape[1], run.first
        if run.follows_left:
            below = np.flatnonzero(history[run.row, : first - start] <= run.level)
            first = start + (int(below[-1]) + 1 if below.size else 0)
        measure = window.measure
        return cls(
            slot=run.slot,
            class_index=run.class_index,
            row=run.row,
            level=run.level,
            low=float(measure.low[run.class_index]),
            delta=float(measure.delta[run.class_index]),
            video_score=float(measure.scores[run.class_index]),
            start=start,
            first=first,
            end=None if run.follows_right else run.end,
            values=history[run.class_index].copy(),
            track=history[run.row].copy(),
        )

    def extend(self, window: Window) -> None:
        """Take the positions of `window` that are not there yet."""
        known = self.start + self.values.size
        new = window.rows[:, known - window.start :]
        if self.end is None:
            below = np.flatnonzero(new[self.row] <= self.level)
            self.end = known + int(below[0]) if below.size else None
        self.values = np.concatenate([self.values, new[self.class_index]])
        self.track = np.concatenate([self.track, new[self.row]])

    def is_complete(self, outer_width: float, most_positions: int) -> bool:
        """Whether the run has ended, and what it is measured against behind it is there.

        That is `outer_width` of its lengths, but no more than `most_positions`.
        """
        if self.end is None:
            return False
        wanted = min(outer_width * (self.end - self.first) + 1, most_positions)
        return self.start + self.values.size - self.end >= wanted

    def proposal(self, scoring: Scoring) -> Proposals:
        """The run as a proposal; one that has not ended reaches the last position."""
        end = self.start + self.track.size if self.end is None else self.end
        zero = np.zeros(1, dtype=np.int64)
        first, stop = zero + self.first - self.start, zero + end - self.start
        begin, finish = crossings(self.track[None], zero, first, stop, np.array([self.level]))
        normalised = ((self.values.astype(np.float64) - self.low) / self.delta)[None]
        video_score = np.array([self.video_score])
        score = scoring.score(normalised, zero, zero + self.slot, begin, finish, video_score)
        return Proposals(zero + self.class_index, self.start + begin, self.start + finish, score)
