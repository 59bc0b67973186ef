"""The segments themselves: a folder of clips, and `clips.csv`, which says what each holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import BacktalError, InvalidArgument
from backtal.segments import Segment
from backtal.video.limits import VideoLimits
from backtal.video.source import Source, open_source
from backtal_indexing.cutting import Cut, cut
from backtal_indexing.exports.video import IndexedVideo, named
from backtal_indexing.range_file import RangeFile
from backtal_indexing.store import S3_PREFIX, normal_url

COLUMNS = (
    "file",
    "uri",
    "label",
    "score",
    "start_seconds",
    "end_seconds",
    "clip_start_seconds",
    "clip_end_seconds",
)
_LABEL_LETTERS = 40
# Nothing is decoded: a video that was indexed is not too long to be cut.
_LIMITS = VideoLimits(max_bytes=1 << 62)


@dataclass(frozen=True)
class Clip:
    """A clip of `video`."""

    video: IndexedVideo
    cut: Cut


@dataclass(frozen=True)
class NotCut:
    """A video of which not all clips could be cut, and why."""

    video: IndexedVideo
    error: BacktalError


def cut_clips(videos: list[IndexedVideo], folder: Path) -> Iterator[Clip | NotCut]:
    """Cut every segment into a file of its own, in a folder that is made where there is none.

    The original is read where its URI says: `file:` and `s3:`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, video in named(videos):
        if not video.segments:
            continue
        wanted = [
            (segment, folder / f"{name}-{number:03d}-{_slug(segment)}")
            for number, segment in enumerate(video.by_start)
        ]
        try:
            source = _open(video.uri)
            try:
                for one in cut(source, wanted):
                    yield Clip(video, one)
            finally:
                source.close()
        except BacktalError as error:
            yield NotCut(video, error)


def clips_table(clips: Iterable[Clip]) -> str:
    """The text of `clips.csv`."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for clip in clips:
        one = clip.cut.segment
        times = (one.start_seconds, one.end_seconds, clip.cut.start_seconds, clip.cut.end_seconds)
        writer.writerow((clip.cut.path.name, clip.video.uri, one.label, one.score, *times))
    return text.getvalue()


def _open(uri: str) -> Source:
    if uri.startswith(S3_PREFIX):
        remote = RangeFile(uri)
        return Source(uri, None, remote.num_bytes, file=remote)
    if uri.startswith("file:"):
        return open_source(Path(normal_url(uri)), _LIMITS)
    raise InvalidArgument(f"{uri}: clips can be cut from file: and s3: only")


def _slug(segment: Segment) -> str:
    """The label in letters that every file system takes."""
    return "".join(c if c.isalnum() else "_" for c in segment.label)[:_LABEL_LETTERS]
