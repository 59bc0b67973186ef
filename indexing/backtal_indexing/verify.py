"""Whether an index is what its layout promises, by reading all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from backtal.errors import BacktalError
from backtal_indexing.layout import Index, file_name, part_and_generation, part_of
from backtal_indexing.rows import read_files
from backtal_indexing.schema import STATUSES, VIDEOS

COLUMNS = ("uri", "bundle", "identity", "bundle_sha256", "status", "duration_seconds", "segments")
MAX_PROBLEMS = 100
# Where the last segment may end: scores and times are float32 on the wire.
SLACK_SECONDS = 1e-2


@dataclass
class Findings:
    """What was read, and the first MAX_PROBLEMS of what is wrong."""

    num_files: int = 0
    num_rows: int = 0
    problems: list[str] = field(default_factory=list)


def verify(index: Index) -> Findings:
    """Read the whole index and hold it against its layout."""
    findings = Findings()
    names = index.videos_names()
    for part_number, members in groupby(names, key=lambda name: part_and_generation(name)[0]):
        for problem in _problems_of_part(index, part_number, list(members), findings):
            findings.problems.append(problem)
            if len(findings.problems) == MAX_PROBLEMS:
                return findings
    return findings


def _problems_of_part(
    index: Index, part: int, names: list[str], findings: Findings
) -> Iterator[str]:
    if part >= index.manifest.num_parts:
        yield f"part {part} is beyond the {index.manifest.num_parts} of {index.url}"
    expected = [file_name(part, generation) for generation in range(len(names))]
    if names != expected:
        missing = sorted(set(expected) - set(names))
        yield f"part {part}: the file {missing[0]} of its log is missing"
    done: dict[tuple[str, str], tuple[str, str]] = {}
    for name in names:
        findings.num_files += 1
        try:
            ((_, table),) = read_files(index, [name])
        except BacktalError as error:
            yield error.message
            continue
        if not table.schema.equals(VIDEOS):
            yield f"{name} has other columns than VIDEOS: {_difference(table.schema)}"
            continue
        findings.num_rows += table.num_rows
        for row in table.select(list(COLUMNS)).to_pylist():
            yield from (f"{name}: {row['uri']}: {it}" for it in _problems_of_row(index, part, row))
            yield from (f"{name}: {row['uri']}: {it}" for it in _doubles(row, done))


def _problems_of_row(index: Index, part: int, row: dict[str, Any]) -> Iterator[str]:
    belongs_to = part_of(row["uri"], index.manifest.num_parts)
    if belongs_to != part:
        yield f"is in part {part} and belongs to part {belongs_to}"
    if row["status"] not in STATUSES:
        yield f"has status {row['status']!r}, allowed are {', '.join(STATUSES)}"
    if row["status"] == "done" and row["duration_seconds"] is None:
        yield "is done and has no duration"
    scores = [segment["score"] for segment in row["segments"]]
    if scores != sorted(scores, reverse=True):
        yield "has segments that are not by falling score"
    end_seconds = (row["duration_seconds"] or 0.0) + SLACK_SECONDS
    for segment in row["segments"]:
        if not 0.0 <= segment["start_seconds"] <= segment["end_seconds"] <= end_seconds:
            start, end = segment["start_seconds"], segment["end_seconds"]
            yield f"has a segment from {start} to {end} s in {row['duration_seconds']} s"


def _doubles(row: dict[str, Any], done: dict[tuple[str, str], tuple[str, str]]) -> Iterator[str]:
    """Whether the same work is written twice; what changed in between makes it other work.

    `done` has of each video and bundle what its last row says, if that is done.
    """
    video, work = (row["uri"], row["bundle"]), (row["identity"], row["bundle_sha256"])
    last = done.pop(video, None)
    if row["status"] != "done":
        return
    if work == last:
        yield "is written as done twice"
    done[video] = work


def _difference(schema: pa.Schema) -> str:
    mine = {f"{field.name} {field.type}" for field in schema}
    theirs = {f"{field.name} {field.type}" for field in VIDEOS}
    return ", ".join(sorted(mine ^ theirs)) or "their order, or which may be null"
