"""The tables of an index, as any reader of Parquet sees them.

`VIDEOS` has one row a video and bundle, `SEGMENTS` one a detected action, sorted by label and
falling score. `SCHEMA_VERSION` is raised when a reader of the old form would read the new one
wrongly; a new column is not such a change.
"""

from __future__ import annotations

from typing import Literal, get_args

import pyarrow as pa

SCHEMA_VERSION = 1

Status = Literal["done", "failed", "quarantined", "deleted"]
STATUSES: tuple[Status, ...] = get_args(Status)
# failed: the next run tries it again. quarantined: only `retry --failed` does.
NOT_DONE: tuple[Status, ...] = ("failed", "quarantined")
SETTLED: tuple[Status, ...] = ("done", "quarantined")

_TIME = pa.timestamp("us", tz="UTC")

SEGMENT = pa.struct(
    [
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

# identity: the object's etag, or its size and hash. stamp: of a file, what a look at its inode said
# when it was read, so that it is not read again to find it unchanged. error_code: of
# backtal.errors, as gRPC names it. frames_per_second, codec, width, height: null where the file
# does not say.
VIDEOS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("stamp", pa.string()),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("bundle_sha256", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("duration_seconds", pa.float64()),
        pa.field("frames_per_second", pa.float64()),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("num_frames_decoded", pa.int64()),
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
        pa.field("started_at", _TIME),
        pa.field("finished_at", _TIME),
        pa.field("segments", pa.list_(SEGMENT), nullable=False),
    ]
)

SEGMENTS = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("bundle_sha256", pa.string(), nullable=False),
    ]
)
