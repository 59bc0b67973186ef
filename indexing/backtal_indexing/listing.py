"""The videos of a run's sources, by part: written to the disk as they are listed and sorted there.

So a driver has some thousands of them in memory at a time, of a library of any size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from backtal_indexing.layout import hash_of
from backtal_indexing.listed import Listed
from backtal_indexing.sources import Source

# Of the list in memory; of what is sorted at once.
BATCH_VIDEOS = 2_000
BUCKET_VIDEOS = 20_000

_LISTED = ("uri", "identity", "stamp")
_TEXTS = [(name, pa.string()) for name in _LISTED]
_LISTING = pa.schema([("hash", pa.uint64()), *_TEXTS])
_SORTED = pa.schema([("part", pa.int64()), *_TEXTS])


class Listing:
    """The videos of `sources`, in files that go with it; use it as a context manager.

    Raises the kinds of `backtal.errors` for a source that cannot be read or has no video.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.num_videos = 0
        self._folder = tempfile.TemporaryDirectory(prefix="backtal-listing-")
        self._path = Path(self._folder.name, "videos.arrow")
        try:
            self._read(sources)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def parts(self, num_parts: int) -> Iterator[tuple[int, list[Listed]]]:
        """By rising part its videos, by URI, each once."""
        for path in self._buckets(num_parts):
            yield from _parts_of(_read_file(path))

    def _read(self, sources: Sequence[Source]) -> None:
        found = (video for source in sources for video in source.videos())
        with pa.OSFile(str(self._path), "wb") as file, pa.ipc.new_stream(file, _LISTING) as writer:
            while chunk := list(islice(found, BATCH_VIDEOS)):
                self.num_videos += len(chunk)
                hashes = pa.array([hash_of(video.uri) for video in chunk], pa.uint64())
                texts = [
                    pa.array([getattr(video, name) for video in chunk], pa.string())
                    for name in _LISTED
                ]
                writer.write(pa.RecordBatch.from_arrays([hashes, *texts], schema=_LISTING))

    def _buckets(self, num_parts: int) -> list[Path]:
        """Files of the videos of neighbouring parts, few enough in each to be sorted."""
        wanted = -(-self.num_videos // BUCKET_VIDEOS)
        num_buckets = max(1, min(wanted, num_parts))
        paths = [Path(self._folder.name, f"{number}.arrow") for number in range(num_buckets)]
        with ExitStack() as stack:
            writers = []
            for path in paths:
                file = stack.enter_context(pa.OSFile(str(path), "wb"))
                writers.append(stack.enter_context(pa.ipc.new_stream(file, _SORTED)))
            source = stack.enter_context(pa.OSFile(str(self._path)))
            for batch in stack.enter_context(pa.ipc.open_stream(source)):
                parts = (batch["hash"].to_numpy() % np.uint64(num_parts)).astype(np.int64)
                buckets = parts * num_buckets // num_parts
                order = np.argsort(buckets, kind="stable")
                texts = [batch[name] for name in _LISTED]
                keyed = pa.RecordBatch.from_arrays([pa.array(parts), *texts], schema=_SORTED)
                keyed = keyed.take(pa.array(order))
                for start, end in _runs(buckets[order]):
                    writers[buckets[order[start]]].write(keyed.slice(start, end - start))
        return paths


def _parts_of(bucket: pa.Table) -> Iterator[tuple[int, list[Listed]]]:
    order = pc.sort_indices(bucket, [("part", "ascending"), ("uri", "ascending")])
    bucket = bucket.take(order)
    parts = bucket["part"].to_numpy()
    for start, end in _runs(parts):
        columns = [bucket[name].slice(start, end - start).to_pylist() for name in _LISTED]
        listed = {values[0]: Listed(*values) for values in zip(*columns, strict=True)}
        yield int(parts[start]), list(listed.values())


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal ones among sorted values from 0 on."""
    starts = np.flatnonzero(np.diff(values, prepend=-1)).tolist()
    return pairwise([*starts, len(values)])


def _read_file(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return reader.read_all()
