"""WebVTT chapters: what a player's chapter menu shows.

Chapters may lie inside one another but may not cross: where two segments do, the earlier one ends
where the later one starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backtal.segments import Segment
from backtal_indexing.exports.video import IndexedVideo, single_line


@dataclass(frozen=True)
class Chapter:
    """A cue, in whole milliseconds, never empty."""

    start_milliseconds: int
    end_milliseconds: int
    title: str


def chapters(video: IndexedVideo) -> str:
    """The file's text."""
    cues = [
        f"{_clock(one.start_milliseconds)} --> {_clock(one.end_milliseconds)}\n{one.title}\n"
        for one in uncrossed([_chapter(segment) for segment in video.segments])
    ]
    return "\n".join(["WEBVTT\n", *cues])


def uncrossed(cues: list[Chapter]) -> list[Chapter]:
    """The cues by start, the longer first, each pair one inside the other or apart."""
    ordered = sorted(cues, key=lambda one: (one.start_milliseconds, -one.end_milliseconds))
    ends = [one.end_milliseconds for one in ordered]
    still_open: list[int] = []
    for index, cue in enumerate(ordered):
        # The innermost is the last. One that ends first is crossed, or over: either way it closes.
        while still_open and ends[still_open[-1]] < cue.end_milliseconds:
            crossed = still_open.pop()
            ends[crossed] = min(ends[crossed], cue.start_milliseconds)
        still_open.append(index)
    return [replace(cue, end_milliseconds=end) for cue, end in zip(ordered, ends, strict=True)]


def _chapter(segment: Segment) -> Chapter:
    start = round(segment.start_seconds * 1000)
    end = max(start + 1, round(segment.end_seconds * 1000))
    title = single_line(segment.label)
    for letter, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        title = title.replace(letter, written)
    return Chapter(start, end, title)


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{rest:03d}"
