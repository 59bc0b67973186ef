"""One window of the sequence, scored, normalised and thresholded as a video of its own.

A run that touches an inner edge, one behind which the video goes on, is set aside as an
`EdgeRun` until the neighbour is known: see `joining`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.localization.proposals import Proposals, crossings
from backtal.localization.scores import (
    Array,
    CasForm,
    Indices,
    clipped_range,
    companions,
    runs_above,
    shares,
    top_means,
)
from backtal.localization.scoring import Scoring
from backtal.localization.settings import LocalizationSettings

# A class that keeps to the upper part of the preceding window's range, these shares of it, for a
# whole window goes on with what it was doing: nothing there is its background.
ONGOING_FROM, ONGOING_TO = 0.5, 1.25


@dataclass(frozen=True)
class Runs:
    """Runs above a level, ordered by slot, then by time: arrays of [P].

    A slot is a class and a threshold; it has the same number in every window. `row` is the row
    that the run is a run of: the class's own, or the magnitude's. `first` and `end` (one past
    the last position) count from the start of the video.
    """

    slot: Indices
    class_index: Indices
    row: Indices
    level: Array
    first: Indices
    end: Indices

    def select(self, which: NDArray[np.bool_]) -> Runs:
        """Those runs that a mask [P] names."""
        return Runs(
            self.slot[which],
            self.class_index[which],
            self.row[which],
            self.level[which],
            self.first[which],
            self.end[which],
        )

    def overlaps(self, slot: int, first: int, end: int) -> bool:
        """Whether a run of this slot shares a position with [first, end)."""
        low, high = np.searchsorted(self.slot, [slot, slot + 1])
        return bool(np.any((self.first[low:high] < end) & (self.end[low:high] > first)))


@dataclass
class EdgeRun:
    """A run that touches an inner edge, and what is to become of it."""

    slot: int
    class_index: int
    row: int
    level: np.floating[Any]
    first: int
    end: int
    is_dropped: bool = False
    follows_left: bool = False
    follows_right: bool = False


@dataclass(frozen=True)
class Measure:
    """How classes are measured in a window: ``(rows - low) / delta`` [R], video scores [C].

    `present` [C] are the classes that are looked for and pass; `any_passes` counts the others too.
    """

    low: Array
    delta: Array
    scores: NDArray[np.float64]
    present: NDArray[np.bool_]
    any_passes: bool


@dataclass(frozen=True)
class Window:
    """A window of `rows` [R, n] from position `start` on.

    The rows are the classes, background where there is one, and last the feature magnitude
    where it is used. `proposals` are of the runs that touch no inner edge.
    """

    start: int
    rows: Array
    measure: Measure
    runs: Runs
    proposals: Proposals
    edge_runs: tuple[EdgeRun, ...]

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.start + int(self.rows.shape[1])


@dataclass(frozen=True)
class WindowScorer:
    """Scores the windows of one bundle; `wanted` [C] says which classes are looked for."""

    settings: LocalizationSettings
    scoring: Scoring
    kind: CasForm
    wanted: NDArray[np.bool_]

    @property
    def has_magnitude(self) -> bool:
        """Whether the feature magnitude is looked at: then it is the last row of a window."""
        return bool(self.settings.magnitude_thresholds)

    def score(self, rows: Array, start: int, before: Window | None, *, is_last: bool) -> Window:
        """Score the window `rows` [R, n] at position `start`; `before` is the one before it."""
        measure = self._measure(rows, before)
        runs = self._runs(rows, start, measure)
        end = start + rows.shape[1]
        at_edge = ((runs.first == start) & (start > 0)) | ((runs.end == end) & (not is_last))
        return Window(
            start=start,
            rows=rows,
            measure=measure,
            runs=runs,
            proposals=self._proposals(rows, start, measure, runs.select(~at_edge)),
            edge_runs=_edge_runs(runs.select(at_edge)),
        )

    def score_surest(self, rows: Array) -> Proposals:
        """Proposals of the surest class of a whole video [R, L], whether it passes or not."""
        measure = self._measure(rows, None)
        surest = np.arange(self.wanted.size) == measure.scores.argmax()
        measure = replace(measure, present=surest & self.wanted)
        return self._proposals(rows, 0, measure, self._runs(rows, 0, measure))

    def _measure(self, rows: Array, before: Window | None) -> Measure:
        cas = rows[: rows.shape[0] - int(self.has_magnitude)]
        num_classes = self.wanted.size
        means = top_means(cas, self.settings.top_k_ratio)
        scores = shares(means, self.kind)[:num_classes]
        passes = scores >= self.settings.class_score_threshold
        if self.settings.companion_ratio is not None and passes.any():
            passes |= companions(means, num_classes, self.settings.companion_ratio)
        low, delta = clipped_range(rows)
        if self.kind == "probability":
            low[: len(cas)], delta[: len(cas)] = 0, 1
        elif before is not None:
            low, delta = _keep_measure(rows, low, delta, before)
        return Measure(low, delta, scores, self.wanted & passes, bool(passes.any()))

    def _runs(self, rows: Array, start: int, measure: Measure) -> Runs:
        thresholds, of_magnitude = self.scoring.thresholds, self.scoring.of_magnitude
        present = np.flatnonzero(measure.present)
        class_index = np.repeat(present, thresholds.size)
        row = np.where(np.tile(of_magnitude, present.size), rows.shape[0] - 1, class_index)
        threshold = np.tile(thresholds, present.size)
        slot = class_index * thresholds.size + np.tile(np.arange(thresholds.size), present.size)
        # In the rows' own precision, so that a level cuts every window at the same positions.
        level = (measure.low[row] + threshold * measure.delta[row]).astype(rows.dtype)
        track, first, end = runs_above(rows[row], level)
        return Runs(
            slot[track], class_index[track], row[track], level[track], start + first, start + end
        )

    def _proposals(self, rows: Array, start: int, measure: Measure, runs: Runs) -> Proposals:
        first, end = runs.first - start, runs.end - start
        begin, stop = crossings(rows, runs.row, first, end, runs.level)
        classes, row = np.unique(runs.class_index, return_inverse=True)
        low, delta = measure.low[classes, None], measure.delta[classes, None]
        video_score = measure.scores[runs.class_index]
        # In float64: an empty range next to large values is beyond float32.
        normalised = (rows[classes].astype(np.float64) - low) / delta
        score = self.scoring.score(normalised, row, runs.slot, begin, stop, video_score)
        return Proposals(runs.class_index, start + begin, start + stop, score)


def _keep_measure(rows: Array, low: Array, delta: Array, before: Window) -> tuple[Array, Array]:
    """Measure by the preceding window where an action that began there fills the whole window.

    By itself such a window would be stretched until its noise spans the range from 0 to 1.
    """
    known = np.zeros(low.shape, dtype=np.bool_)
    known[: before.measure.present.size] = before.measure.present
    from_value = before.measure.low + ONGOING_FROM * before.measure.delta
    to_value = before.measure.low + ONGOING_TO * before.measure.delta
    ongoing = known & (rows.min(axis=1) >= from_value) & (rows.max(axis=1) <= to_value)
    kept_low = np.where(ongoing, before.measure.low, low)
    return kept_low, np.where(ongoing, before.measure.delta, delta)


def _edge_runs(runs: Runs) -> tuple[EdgeRun, ...]:
    return tuple(
        EdgeRun(
            int(runs.slot[i]),
            int(runs.class_index[i]),
            int(runs.row[i]),
            runs.level[i],
            int(runs.first[i]),
            int(runs.end[i]),
        )
        for i in range(runs.slot.size)
    )
