"""FiftyOne: a folder of its type FiftyOneTemporalDetectionDataset, with the videos where they are.

fiftyone.Dataset.from_dir(
    dataset_dir=FOLDER,
    dataset_type=fiftyone.types.FiftyOneTemporalDetectionDataset,
    data_path="data.json",
)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import unquote, urlsplit

from backtal_indexing.exports.frames import frame_range
from backtal_indexing.exports.video import IndexedVideo, named, path_of


def fiftyone(videos: Sequence[IndexedVideo], rate: Fraction | None = None) -> dict[str, str]:
    """`labels.json` and `data.json`. Raises InvalidArgument for a video without a rate."""
    pairs = named(videos)
    labels = {
        "classes": sorted({one.label for video in videos for one in video.segments}),
        "labels": {name: _detections(video, video.rate_or(rate)) for name, video in pairs},
    }
    # FiftyOne takes the suffix off to find the name.
    places = {
        f"{name}{path_of(video.uri).suffix or '.mp4'}": _place(video) for name, video in pairs
    }
    return {
        "labels.json": json.dumps(labels, ensure_ascii=False, indent=1) + "\n",
        "data.json": json.dumps(places, ensure_ascii=False, indent=1) + "\n",
    }


def _detections(video: IndexedVideo, rate: Fraction) -> list[dict[str, Any]]:
    return [
        {"label": one.label, "support": list(frame_range(one, rate)), "confidence": one.score}
        for one in video.segments
    ]


def _place(video: IndexedVideo) -> str:
    parts = urlsplit(video.uri)
    return unquote(parts.path) if parts.scheme == "file" else video.uri
