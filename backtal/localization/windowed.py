"""The `calibrated` preset: half-overlapping windows, each as a video of its own, one NMS."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from backtal.errors import InvalidArgument
from backtal.localization.choice import Choice, surest
from backtal.localization.finality import Frontier, lowest_levels, settled
from backtal.localization.inputs import check_duration, checked_rows
from backtal.localization.joining import Followed, decide
from backtal.localization.nms import suppress, suppress_softly
from backtal.localization.proposals import Doubles, Proposals
from backtal.localization.scores import Array, Indices
from backtal.localization.scoring import Scoring
from backtal.localization.window import Window, WindowScorer
from backtal.segments import Segment

if TYPE_CHECKING:
    from backtal.manifest import BundleDescription

# How far a run that outgrows its window is followed back, and measured against what is around it.
HISTORY_WINDOWS = 8


def num_windows(num_positions: int, description: BundleDescription) -> int:
    """The windows that a CAS of so many positions is scored in."""
    settings, size = description.localization, description.grid.window_positions
    if settings.preset == "released" or settings.windows == "whole" or num_positions <= size:
        return 1
    return 1 + math.ceil((num_positions - size) / (size // 2))


class WindowedLocalizer:
    """Turns a CAS into segments as it arrives, in memory that does not grow with the video.

    Push the raw CAS in pieces of any size, then finish. How it was cut into pieces does not
    change the answer. Windows of T positions, each T // 2 after the one before, are scored as
    soon as they are complete; what no later one can change is given by `take_final`. The setting
    `argmax_fallback` keeps the whole CAS for as long as no class passes.
    """

    def __init__(self, description: BundleDescription, choice: Choice | None = None) -> None:
        """Raises InvalidArgument for a choice out of its range or of an unknown class."""
        self._description = description
        self._choice = choice or Choice()
        self._choice.check(description.classes)
        self._settings = self._choice.settle(description.localization)
        wanted = [self._choice.wants(name) for name in description.classes]
        self._scorer = WindowScorer(
            self._settings, Scoring.of(self._settings), description.cas.kind, np.array(wanted)
        )
        is_whole = self._settings.windows == "whole"
        self._window_positions = sys.maxsize if is_whole else description.grid.window_positions
        self._rows = np.zeros((self._num_rows, 0), dtype=np.float32)
        self._rows_start = 0
        self._next_start = 0
        self._before: Window | None = None
        self._any_passes = False
        self._followed: list[Followed] = []
        self._proposals: list[Proposals] = []
        self._levels = lowest_levels(self._settings, description.cas.kind)
        # The surest of what is final, and what of it was not given out yet.
        self._final: tuple[Segment, ...] = ()
        self._new: list[Segment] = []

    @property
    def _num_rows(self) -> int:
        return self._description.cas_channels + int(self._scorer.has_magnitude)

    @property
    def _may_fall_back(self) -> bool:
        return self._settings.argmax_fallback and not self._any_passes

    @property
    def _num_positions(self) -> int:
        return self._rows_start + self._rows.shape[1]

    def push(self, cas: Array, magnitude: Array | None = None) -> None:
        """Take the next positions: `cas` [C(+1), n] raw, `magnitude` [n].

        Raises InvalidArgument for another shape, values that are not finite, or a magnitude
        that the settings want and that is not there.
        """
        rows = checked_rows(
            cas,
            magnitude,
            channels=self._description.cas_channels,
            needs_magnitude=self._scorer.has_magnitude,
        )
        self._rows = np.concatenate([self._rows, rows], axis=1)
        while self._num_positions > self._next_start + self._window_positions:
            self._take_window(self._next_start + self._window_positions, is_last=False)
            self._next_start += self._window_positions // 2
            self._settle()
            self._forget()

    def take_final(self) -> tuple[Segment, ...]:
        """What became final since the last call, by falling score; each segment is given once.

        The answer is what was given, with what `finish` finds, or of that the `max_segments`
        surest: what so many others already surpass is not given.
        """
        kept = set(self._final)
        given = [segment for segment in self._new if segment in kept]
        self._new = []
        return surest(given, len(given))

    def finish(self, duration_seconds: float) -> tuple[Segment, ...]:
        """The segments by falling score, cut to [0, duration_seconds].

        Raises InvalidArgument where nothing was pushed or the duration is not positive.
        """
        check_duration(duration_seconds)
        if not self._num_positions:
            raise InvalidArgument("the CAS has no positions")
        self._take_window(self._num_positions, is_last=True)
        rest = self._segments(Proposals.joined(self._proposals), duration_seconds)
        narrowed = self._choice.narrow(rest, self._settings, duration_seconds)
        return surest([*self._final, *narrowed], self._settings.max_segments)

    def _take_window(self, end: int, *, is_last: bool) -> None:
        start = self._next_start
        rows = self._rows[:, start - self._rows_start : end - self._rows_start]
        window = self._scorer.score(rows, start, self._before, is_last=is_last)
        self._proposals.append(window.proposals)
        self._any_passes |= window.measure.any_passes
        if self._before is not None:
            decide(self._before, window)
            self._follow(self._before)
            self._extend_followed(window)
        if is_last:
            self._follow(window)
            self._close(self._followed)
            if self._may_fall_back:
                self._proposals.append(self._scorer.score_surest(self._rows))
        self._before = window

    def _follow(self, window: Window) -> None:
        oldest = self._history_start(window)
        history = self._rows[:, oldest - self._rows_start : window.end - self._rows_start]
        self._followed += [
            Followed.begin(run, window, history) for run in window.edge_runs if not run.is_dropped
        ]

    def _extend_followed(self, window: Window) -> None:
        most = HISTORY_WINDOWS * self._window_positions
        complete: list[Followed] = []
        others: list[Followed] = []
        for run in self._followed:
            run.extend(window)
            is_complete = run.is_complete(self._settings.outer_width, most)
            (complete if is_complete else others).append(run)
        self._close(complete)
        self._followed = others

    def _close(self, runs: list[Followed]) -> None:
        self._proposals += [run.proposal(self._scorer.scoring) for run in runs]

    def _history_start(self, window: Window) -> int:
        return max(0, window.start - HISTORY_WINDOWS * self._window_positions)

    def _forget(self) -> None:
        if self._may_fall_back:
            return
        if self._before is not None and (oldest := self._history_start(self._before)):
            self._rows = self._rows[:, oldest - self._rows_start :].copy()
            self._rows_start = oldest

    def _settle(self) -> None:
        """Take out the proposals that no later position can change."""
        if self._before is None:
            return
        waiting = Proposals.joined(self._proposals)
        self._proposals = [waiting]
        frontier = Frontier(
            self._rows,
            self._rows_start,
            last=self._before,
            followed=self._followed,
            following=self._next_start,
            reach=HISTORY_WINDOWS * self._window_positions,
            levels=self._levels,
            has_magnitude=self._scorer.has_magnitude,
        )
        seconds = self._description.grid.position_seconds
        is_final = np.zeros(waiting.score.size, dtype=np.bool_)
        for index in np.unique(waiting.class_index):
            mine = np.flatnonzero(waiting.class_index == index)
            is_final[mine] = settled(
                waiting.start_position[mine] * seconds,
                waiting.end_position[mine] * seconds + self._settings.nms_added_seconds,
                frontier.of(int(index)) * seconds,
            )
        if is_final.any():
            self._proposals = [waiting.select(~is_final)]
            found = self._segments(waiting.select(is_final), math.inf)
            new = self._choice.narrow(found, self._settings, math.inf)
            self._final = surest([*self._final, *new], self._settings.max_segments)
            self._new += new

    def _segments(self, proposals: Proposals, duration_seconds: float) -> list[Segment]:
        """What stays of the proposals of each class."""
        position = np.stack([proposals.start_position, proposals.end_position], axis=1)
        seconds = np.minimum(position * self._description.grid.position_seconds, duration_seconds)
        if math.isfinite(duration_seconds):
            # The grid is rounded to whole positions, so its end may fall short of the video's.
            seconds[position[:, 1] >= self._num_positions, 1] = duration_seconds
        segments: list[Segment] = []
        for index in np.unique(proposals.class_index):
            is_mine = proposals.class_index == index
            mine = np.flatnonzero(is_mine & (seconds[:, 1] > seconds[:, 0]))
            kept, scores = self._suppress(seconds[mine], proposals.score[mine])
            label = self._description.classes[index]
            for (start, end), one in zip(
                seconds[mine[kept]].tolist(), scores.tolist(), strict=True
            ):
                segments.append(Segment(start, end, label, one))
        return segments

    def _suppress(self, seconds: Doubles, score: Doubles) -> tuple[Indices, Doubles]:
        """Which of one class's proposals stay, and their scores then."""
        settings = self._settings
        added = settings.nms_added_seconds
        if settings.nms_sigma is None:
            kept = suppress(seconds, score, settings.nms_tiou, added_length=added)
            return kept, score[kept]
        return suppress_softly(
            seconds, score, settings.nms_tiou, settings.nms_sigma, added_length=added
        )
