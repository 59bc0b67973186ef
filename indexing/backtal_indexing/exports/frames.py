"""Segments as the frames that annotation tools count: from 1, the last one included."""

from __future__ import annotations

from fractions import Fraction

from backtal.segments import Segment
from backtal_indexing.timecode import frame_at


def frame_range(segment: Segment, rate: Fraction) -> tuple[int, int]:
    """The first and the last frame of a segment, at least one."""
    first = frame_at(segment.start_seconds, rate) + 1
    return first, max(first, frame_at(segment.end_seconds, rate))
