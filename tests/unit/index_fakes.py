"""A library and a service for tests of index runs, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backtal.detection import DetectionAnswer
from backtal.errors import BacktalError
from backtal.segments import Segment
from backtal_indexing.layout import Index
from backtal_indexing.listed import Listed
from backtal_indexing.listing import Listing
from backtal_indexing.planning import Plan, Wanted, plan_run
from backtal_indexing.rows import current_of, read_parts
from backtal_indexing.shard import Rules, ShardReport, process_shard

SHA = "a" * 64
URI = "given://library/{}.mp4"


@dataclass
class Library:
    """Videos by URI, each with the identity that it has now."""

    content: dict[str, str]

    def videos(self) -> Iterator[Listed]:
        for uri, identity in self.content.items():
            yield Listed(uri, f"given:{identity}")

    def covers(self, uri: str) -> bool:
        return True

    def folders(self) -> set[str]:
        return set()


@dataclass
class FakeService:
    """Answers with a segment whose score is of the URI, or with the errors it is told to."""

    sha256: str = SHA
    errors: dict[str, list[BacktalError]] = field(default_factory=dict)
    ready: list[bool] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def answer(self, uri: str, timeout_seconds: float) -> DetectionAnswer:
        self.asked.append(uri)
        if self.errors.get(uri):
            raise self.errors[uri].pop(0)
        return DetectionAnswer(
            segments=(Segment(0.5, 1.5, "jump", 0.75),),
            duration_seconds=2.0,
            provenance=provenance(self.sha256),
        )

    def is_ready(self) -> bool:
        return self.ready.pop(0) if self.ready else True


def provenance(sha256: str) -> Mapping[str, Any]:
    return {
        "bundle_sha256": sha256,
        "num_frames_decoded": 50,
        "warnings": [],
        "video": {"codec": "h264", "width": 64, "height": 48, "frames_per_second": 25.0},
    }


def index_library(
    index: Index, library: Library, service: FakeService, bundle: str = "tiny", **changes: Any
) -> tuple[Plan, ShardReport]:
    """One run in this process; the plan's counts and the sum of the reports."""
    wanted = Wanted(bundle, service.sha256, videos_per_shard=3, **changes)
    total = ShardReport()
    with Plan() as plan, Listing([library]) as listing:
        plan_run(plan, index, listing, [library], wanted)
        for shard in plan.shards():
            report = process_shard(shard, index, service, service.sha256, Rules())
            total.num_videos.update(report.num_videos)
            total.num_retries += report.num_retries
            total.video_seconds += report.video_seconds
            total.failures += report.failures
    return plan, total


def current_rows_of(index: Index) -> dict[tuple[str, str], dict[str, Any]]:
    """The current rows by URI and bundle."""
    parts = read_parts(index, index.videos_names())
    rows = [row for _, _, table in parts for row in current_of(table).to_pylist()]
    found = {(row["uri"], row["bundle"]): row for row in rows}
    assert len(found) == len(rows)
    return found
