"""What an index can be exported as: one module a format, each from videos to text.

`FORMATS` has them by the name that `backtal index export --as` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import ModuleType

from backtal_indexing.exports.activitynet import activitynet
from backtal_indexing.exports.chapters import chapters
from backtal_indexing.exports.fiftyone import fiftyone
from backtal_indexing.exports.label_studio import label_studio
from backtal_indexing.exports.rows import rows
from backtal_indexing.exports.video import IndexedVideo, named

Files = dict[str, str]
# Videos and the rate to count frames at (None: each video's own) to texts by file name.
Export = Callable[[Sequence[IndexedVideo], Fraction | None], Files]


def _each(suffix: str, write: Callable[[IndexedVideo, Fraction | None], str]) -> Export:
    """One file a video that has segments."""

    def export(videos: Sequence[IndexedVideo], rate: Fraction | None) -> Files:
        return {
            f"{name}{suffix}": write(video, rate) for name, video in named(videos) if video.segments
        }

    return export


def _timeline() -> ModuleType:
    """Imported when it is asked for: OpenTimelineIO is an extra."""
    from backtal_indexing.exports import timeline

    return timeline


FORMATS: Mapping[str, Export] = {
    "activitynet": lambda videos, _: {"results.json": activitynet(videos)},
    "csv": lambda videos, rate: {"segments.csv": rows(videos, rate)},
    "webvtt": _each(".vtt", lambda video, _: chapters(video)),
    "otio": _each(".otio", lambda video, rate: _timeline().otio_json(video, rate)),
    "edl": _each(".edl", lambda video, rate: _timeline().edl(video, rate)),
    "fcpxml": _each(".fcpxml", lambda video, rate: _timeline().fcpxml(video, rate)),
    "label-studio": label_studio,
    "fiftyone": fiftyone,
}
