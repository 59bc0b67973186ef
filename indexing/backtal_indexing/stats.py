"""What an index holds: hours, segments by class, and how their scores are spread. Arrow tables."""

from __future__ import annotations

import pyarrow as pa

from backtal_indexing.reading import Tables

NUM_BINS = 10

_VIDEOS = """
select bundle, status, count(*) as num_videos,
    coalesce(sum(duration_seconds), 0) / 3600 as hours
from videos where (? is null or bundle = ?)
group by bundle, status order by bundle, status
"""

_HISTOGRAM = ", ".join(f"count(*) filter (where tenth = {tenth})" for tenth in range(NUM_BINS))

_CLASSES = f"""
select bundle, label,
    count(*) as num_segments,
    count(distinct uri) as num_videos,
    sum(seconds) as total_seconds,
    median(seconds) as median_seconds,
    quantile_cont(score, 0.1) as score_p10,
    quantile_cont(score, 0.5) as score_p50,
    quantile_cont(score, 0.9) as score_p90,
    [{_HISTOGRAM}] as score_tenths
from (
    select *, end_seconds - start_seconds as seconds,
        greatest(0, least({NUM_BINS - 1}, floor(score * {NUM_BINS}))) as tenth
    from segments where (? is null or bundle = ?))
group by bundle, label order by bundle, num_segments desc, label
"""


def videos_by_status(tables: Tables, bundle: str | None = None) -> pa.Table:
    """bundle, status, num_videos, hours: a row for each bundle and status that occur."""
    tables.add_videos()
    return tables.ask(_VIDEOS, [bundle, bundle])


def segments_by_class(tables: Tables, bundle: str | None = None) -> pa.Table:
    """A row for each bundle and label, the most frequent first.

    bundle, label, num_segments, num_videos, total_seconds, median_seconds (of a segment),
    score_p10, score_p50, score_p90, and score_tenths: how many scores lie in each tenth of [0, 1],
    those beyond in the nearest.
    """
    return tables.ask(_CLASSES, [bundle, bundle])
