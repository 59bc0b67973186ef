"""Label Studio: tasks with predictions on a timeline, and the labelling interface they fit.

Import `tasks.json` into a project whose interface is `interface.xml`. A task's `fps` is what its
frames were counted with; the interface takes it from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from xml.sax.saxutils import quoteattr

from backtal.segments import Segment
from backtal_indexing.exports.frames import frame_range
from backtal_indexing.exports.video import IndexedVideo, single_line

_CONTROL, _OBJECT = "actions", "video"


def label_studio(videos: Sequence[IndexedVideo], rate: Fraction | None = None) -> dict[str, str]:
    """`tasks.json` and `interface.xml`. Raises InvalidArgument for a video without a rate."""
    tasks = [_task(video, video.rate_or(rate)) for video in videos]
    return {
        "tasks.json": json.dumps(tasks, ensure_ascii=False, indent=1) + "\n",
        "interface.xml": _interface(videos),
    }


def _task(video: IndexedVideo, rate: Fraction) -> dict[str, Any]:
    prediction = {
        "model_version": video.bundle,
        "score": max((one.score for one in video.segments), default=0.0),
        "result": [_region(number, one, rate) for number, one in enumerate(video.segments)],
    }
    return {"data": {"video": video.uri, "fps": float(rate)}, "predictions": [prediction]}


def _region(number: int, segment: Segment, rate: Fraction) -> dict[str, Any]:
    first, last = frame_range(segment, rate)
    return {
        "id": f"segment-{number}",
        "type": "timelinelabels",
        "from_name": _CONTROL,
        "to_name": _OBJECT,
        "score": segment.score,
        "value": {
            "ranges": [{"start": first, "end": last}],
            "timelinelabels": [single_line(segment.label)],
        },
    }


def _interface(videos: Sequence[IndexedVideo]) -> str:
    found = sorted({single_line(one.label) for video in videos for one in video.segments})
    labels = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in found)
    return (
        "<View>\n"
        f'  <TimelineLabels name="{_CONTROL}" toName="{_OBJECT}">\n{labels}  </TimelineLabels>\n'
        f'  <Video name="{_OBJECT}" value="$video" frameRate="$fps"/>\n'
        "</View>\n"
    )
