"""SEGMENTS: the actions of the current rows, by label and falling score, as one file.

Sorted so, a reader of Parquet finds "this class, above this score" by the bounds of row groups,
and reads no other. It is a copy: VIDEOS has all that it has, and `compact` makes it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backtal_indexing.layout import COVERS_KEY, SEGMENTS_NAME, Index, covers
from backtal_indexing.rows import current_of, read_parts
from backtal_indexing.schema import SEGMENTS

COLUMNS = ("uri", "bundle", "bundle_sha256", "status", "segments")
# Small enough that a row group has one label of many; large enough for a reader's rhythm.
ROW_GROUP_ROWS = 100_000
SORTED = "select * from read_parquet($1) order by label, score desc, uri, start_seconds, bundle"


@dataclass(frozen=True)
class Compacted:
    """What `compact` made."""

    num_videos: int
    num_segments: int


def compact(index: Index, memory_limit: str = "1GB") -> Compacted:
    """Write the index's table of segments anew; readers see the old one until it is whole.

    Raises the kinds of `backtal.errors` for an index that cannot be read or written.
    """
    names = index.videos_names()
    with tempfile.TemporaryDirectory(prefix="backtal-compact-") as folder:
        unsorted, result = Path(folder, "unsorted.parquet"), Path(folder, "segments.parquet")
        num_videos = 0
        with pq.ParquetWriter(unsorted, SEGMENTS) as writer:
            for done, segments in _done_parts(index, names):
                num_videos += done
                writer.write_table(segments)
        schema = SEGMENTS.with_metadata({COVERS_KEY: covers(names).encode()})
        num_segments = 0
        with (
            duckdb.connect(
                config={"memory_limit": memory_limit, "temp_directory": folder}
            ) as database,
            pq.ParquetWriter(result, schema, compression="zstd") as writer,
        ):
            found = database.sql(SORTED, params=[str(unsorted)])
            for batch in found.to_arrow_reader(ROW_GROUP_ROWS):
                num_segments += batch.num_rows
                writer.write_table(
                    pa.Table.from_batches([batch]).cast(SEGMENTS), row_group_size=ROW_GROUP_ROWS
                )
        index.store.replace(SEGMENTS_NAME, result)
    return Compacted(num_videos, num_segments)


def segments_are_current(index: Index) -> bool:
    """Whether the table of segments was made from all the rows that there are now."""
    if not index.segments_urls():
        return False
    told = (_footer(index).metadata or {}).get(COVERS_KEY)
    return bool(told == covers(index.videos_names()).encode())


def _footer(index: Index) -> pq.FileMetaData:
    """The end of the table, which is all that is read of it: its length is before the last word."""
    num_bytes = int.from_bytes(index.store.tail(SEGMENTS_NAME, 8)[:4], "little") + 8
    return pq.read_metadata(pa.BufferReader(index.store.tail(SEGMENTS_NAME, num_bytes)))


def _done_parts(index: Index, names: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """For each part the videos that are done, and their segments as rows of SEGMENTS."""
    for _, _, rows in read_parts(index, names, COLUMNS):
        current = current_of(rows)
        done = current.filter(pc.equal(current["status"], "done")).combine_chunks()
        yield done.num_rows, segments_of(done)


def segments_of(videos: pa.Table) -> pa.Table:
    """The segments of rows of VIDEOS, as rows of SEGMENTS."""
    segments = pc.list_flatten(videos["segments"])
    video = pc.list_parent_indices(videos["segments"])
    columns = []
    for name in SEGMENTS.names:
        if name in videos.column_names:
            columns.append(videos[name].take(video))
        else:
            columns.append(pc.struct_field(segments, name))
    return pa.Table.from_arrays(columns, schema=SEGMENTS)
