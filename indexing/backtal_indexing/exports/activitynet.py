"""ActivityNet's file of results, as its evaluator and `backtal evaluate --from` read it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from backtal.evaluation import results_document
from backtal_indexing.exports.video import IndexedVideo, named


def activitynet(videos: Sequence[IndexedVideo]) -> str:
    """The file's text; a video without a segment has an empty list."""
    document = results_document({name: video.segments for name, video in named(videos)})
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
