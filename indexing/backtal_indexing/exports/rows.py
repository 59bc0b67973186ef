"""CSV, one row a segment: seconds, and timecode where the video's rate has one."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from fractions import Fraction

from backtal_indexing.exports.video import IndexedVideo
from backtal_indexing.timecode import TIMECODE_RATES, frame_at, timecode

COLUMNS = (
    "uri",
    "label",
    "score",
    "start_seconds",
    "end_seconds",
    "start_timecode",
    "end_timecode",
    "bundle",
)


def rows(videos: Sequence[IndexedVideo], rate: Fraction | None = None) -> str:
    """The file's text, RFC 4180; the timecode is at `rate`, else at each video's own."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for video in videos:
        counted = rate or video.rate
        for one in video.segments:
            times = (one.start_seconds, one.end_seconds)
            codes = (_timecode(seconds, counted) for seconds in times)
            writer.writerow((video.uri, one.label, one.score, *times, *codes, video.bundle))
    return text.getvalue()


def _timecode(seconds: float, rate: Fraction | None) -> str:
    if rate not in TIMECODE_RATES:
        return ""
    return timecode(frame_at(seconds, rate), rate)
