"""Small indexes for tests, written as a run and `compact` write them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backtal_indexing.layout import Index, IndexManifest, part_of
from backtal_indexing.part_log import PartLog

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
NUM_PARTS = 4


def segment(start: float, end: float, label: str = "run", score: float = 0.5) -> dict[str, Any]:
    return {"start_seconds": start, "end_seconds": end, "label": label, "score": score}


def row(uri: str, *segments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A row of VIDEOS: of a video that is done unless `changes` say otherwise."""
    return {
        "uri": uri,
        "identity": "1",
        "stamp": None,
        "bundle": "tiny",
        "bundle_sha256": "0" * 64,
        "status": "done",
        "attempts": 1,
        "duration_seconds": 60.0,
        "frames_per_second": 25.0,
        "width": 64,
        "height": 48,
        "warnings": [],
        "segments": list(segments),
        **changes,
    }


def new_index(url: str | Path) -> Index:
    return Index.create(str(url), IndexManifest(num_parts=NUM_PARTS, created_at=NOW))


def append(index: Index, rows: Sequence[dict[str, Any]]) -> None:
    """One more file in each part that these rows belong to."""
    by_part: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in rows:
        by_part[part_of(one["uri"], index.manifest.num_parts)].append(one)
    for part, members in by_part.items():
        PartLog(index, part).append(members)
