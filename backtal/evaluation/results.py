"""Detections in ActivityNet's file of results, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backtal.evaluation.matching import Detections
from backtal.fields import (
    expect_interval,
    expect_list,
    expect_number,
    expect_object,
    expect_text,
    parse_json_object,
    read_bytes,
)
from backtal.segments import Segment

RESULTS_VERSION = "VERSION 1.3"


def read_results(path: Path) -> dict[str, tuple[Segment, ...]]:
    """Read detections in ActivityNet's format of results.

    Raises NotFound, or InvalidFile naming the video, the detection and the value.
    """
    return parse_results(read_bytes(path), str(path))


def parse_results(content: bytes, source: str = "results") -> dict[str, tuple[Segment, ...]]:
    """Read the bytes of such a file. Raises InvalidFile."""
    document = parse_json_object(content, source)
    results = expect_object(document.get("results"), f"{source}: results")
    detections = {}
    for name, entries in results.items():
        where = f"{source}: results.{name}"
        detections[name] = tuple(
            _segment(entry, f"{where}[{index}]")
            for index, entry in enumerate(expect_list(entries, where))
        )
    return detections


def _segment(entry: Any, where: str) -> Segment:
    fields = expect_object(entry, where)
    start, end = expect_interval(fields.get("segment"), f"{where}.segment")
    label = expect_text(fields.get("label"), f"{where}.label")
    return Segment(start, end, label, expect_number(fields.get("score"), f"{where}.score"))


def write_results(path: Path, detections: Detections) -> None:
    """Write detections in ActivityNet's format of results, to full precision."""
    path.write_text(json.dumps(results_document(detections)), encoding="utf-8")


def results_document(detections: Detections) -> dict[str, Any]:
    """Detections as ActivityNet's results: what `write_results` writes, as plain data."""
    results = {
        name: [
            {
                "label": segment.label,
                "score": segment.score,
                "segment": [segment.start_seconds, segment.end_seconds],
            }
            for segment in segments
        ]
        for name, segments in detections.items()
    }
    external: dict[str, Any] = {"used": False, "details": ""}
    return {"version": RESULTS_VERSION, "results": results, "external_data": external}
