"""Presentation times: when each frame is on show, the first one at 0."""

from __future__ import annotations

from fractions import Fraction


class Timeline:
    """Turns the time stamps of frames, in the order they come, into rising seconds.

    Decoders give frames in the order they are shown, yet some files have no stamps, or stamps
    that step backwards. Such a frame comes one nominal frame after the one before.
    """

    def __init__(self, nominal_frame_seconds: float) -> None:
        self._nominal = nominal_frame_seconds
        self._first: int | None = None
        self._last = 0.0
        self.num_frames = 0
        self.num_restamped = 0

    def add(self, stamp: int | None, time_base: Fraction) -> float:
        """Seconds from the first frame to the one stamped `stamp`."""
        self.num_frames += 1
        if self.num_frames == 1:
            self._first = stamp
            return 0.0
        seconds = None
        if stamp is not None and self._first is not None:
            # One division of integers: equal to k / rate where the file's stamps allow it.
            seconds = (stamp - self._first) * time_base.numerator / time_base.denominator
        if seconds is None or seconds <= self._last:
            self.num_restamped += 1
            seconds = self._last + self._nominal
        self._last = seconds
        return seconds
