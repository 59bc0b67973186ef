"""What is to be done: the videos of the sources against what the index has, cut into shards.

A shard is some of a part's videos (`backtal_indexing.layout`), by their URIs: which videos are
together does not depend on the machine, the order of a listing, or the time. A plan is written to
a file, one record batch a shard, and read from it as the run goes on, so that the driver's memory
does not grow with the library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backtal_indexing.layout import Index
from backtal_indexing.listed import Listed
from backtal_indexing.listing import Listing
from backtal_indexing.part_log import ENTRY_COLUMNS, Entry, Key, entries_of
from backtal_indexing.rows import read_parts
from backtal_indexing.schema import NOT_DONE, SETTLED
from backtal_indexing.sources import Source

VIDEOS_PER_SHARD = 64


@dataclass(frozen=True)
class PlannedVideo:
    """A video that a worker is to look at.

    bundle: whose answer is wanted, or marked. identity, stamp: as it was listed. known_identity,
    known_sha256, known_status, known_attempts: of its newest row, where there is one. is_deleted:
    it is gone, and is to be marked so.
    """

    uri: str
    bundle: str
    identity: str | None = None
    stamp: str | None = None
    known_identity: str | None = None
    known_sha256: str | None = None
    known_status: str | None = None
    known_attempts: int = 0
    is_deleted: bool = False


@dataclass(frozen=True)
class Verdict:
    """What is to be written about a video that ended its worker each time."""

    error_code: str
    error: str


@dataclass(frozen=True)
class Shard:
    """Some videos of a part, of whose log all up to `generation` was seen.

    crashes: how often its worker ended over it. verdict: write this, do not try again.
    """

    part: int
    generation: int
    videos: tuple[PlannedVideo, ...]
    crashes: int = 0
    verdict: Verdict | None = None


@dataclass
class PlanCounts:
    """Videos by what a plan found: to do, gone, as they were, and quarantined before."""

    num_listed: int = 0
    num_to_do: int = 0
    num_deleted: int = 0
    num_unchanged: int = 0
    num_quarantined: int = 0
    num_shards: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a plan is for: a bundle, and whether what is gone is to be marked."""

    bundle: str
    bundle_sha256: str
    videos_per_shard: int = VIDEOS_PER_SHARD
    marks_deleted: bool = True


class Plan:
    """The shards of a run, in a file that goes with the plan; use it as a context manager."""

    def __init__(self, folder: Path | None = None) -> None:
        self.counts = PlanCounts()
        self._folder = tempfile.TemporaryDirectory(prefix="backtal-plan-", dir=folder)
        self._path = Path(self._folder.name, "shards.arrow")

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def write(self, shards: Iterable[Shard]) -> None:
        """Make these the plan's shards."""
        with pa.OSFile(str(self._path), "wb") as file, pa.ipc.new_file(file, _PLANNED) as writer:
            for shard in shards:
                writer.write(_batch_of(shard))
                self.counts.num_shards += 1

    def shards(self, seed: int | None = None) -> Iterator[Shard]:
        """The shards, in an order by chance: runs at one time then meet at few of them."""
        # Not mapped, which would count all that was read as this process's memory.
        with pa.OSFile(str(self._path)) as file:
            reader = pa.ipc.open_file(file)
            for number in np.random.default_rng(seed).permutation(reader.num_record_batches):
                yield _shard_of(reader.get_batch(int(number)))


def plan_run(
    plan: Plan, index: Index, listing: Listing, sources: Sequence[Source], wanted: Wanted
) -> None:
    """Fill `plan` with what the listing of the sources has and the index has not.

    Raises the kinds of `backtal.errors` for an index that cannot be read.
    """
    plan.counts.num_listed = listing.num_videos
    planner = _Planner(wanted, sources, plan.counts)
    listed_parts = listing.parts(index.manifest.num_parts)
    known_parts = _known_parts(index, index.videos_names())

    def shards() -> Iterator[Shard]:
        for part, listed, (generation, entries) in _joined(listed_parts, known_parts):
            videos = planner.videos(listed, entries)
            yield from _cut(part, generation, videos, wanted.videos_per_shard)

    plan.write(shards())


def plan_retry(plan: Plan, index: Index, uris: Collection[str], wanted: Wanted) -> None:
    """Fill `plan` with those of `uris` that the bundle failed at or has in quarantine."""

    def shards() -> Iterator[Shard]:
        for part, generation, entries in _known_parts(index, index.videos_names()):
            videos = [
                PlannedVideo(uri, bundle)
                for (uri, bundle), entry in sorted(entries.items())
                if bundle == wanted.bundle and entry.status in NOT_DONE and uri in uris
            ]
            plan.counts.num_to_do += len(videos)
            yield from _cut(part, generation, videos, wanted.videos_per_shard)

    plan.write(shards())
    plan.counts.num_listed = plan.counts.num_to_do


class _Planner:
    """Decides about the videos of one part after the other."""

    def __init__(self, wanted: Wanted, sources: Sequence[Source], counts: PlanCounts) -> None:
        self._wanted = wanted
        self._sources = sources
        self._counts = counts

    def videos(self, listed: Sequence[Listed], entries: Mapping[Key, Entry]) -> list[PlannedVideo]:
        """What is to be done about a part's videos."""
        bundle = self._wanted.bundle
        planned = [
            video for one in listed if (video := self._wish(one, entries.get((one.uri, bundle))))
        ]
        self._counts.num_to_do += len(planned)
        if self._wanted.marks_deleted:
            gone = list(self._gone({one.uri for one in listed}, entries))
            self._counts.num_deleted += len(gone)
            planned += gone
        return planned

    def _wish(self, listed: Listed, known: Entry | None) -> PlannedVideo | None:
        """What is to be done about a video, if anything."""
        video = PlannedVideo(listed.uri, self._wanted.bundle, listed.identity, listed.stamp)
        if known is None or known.status == "deleted":
            return video
        if known.status in SETTLED and self._is_as_known(listed, known):
            self._counts.num_unchanged += known.status == "done"
            self._counts.num_quarantined += known.status == "quarantined"
            return None
        return PlannedVideo(
            listed.uri,
            self._wanted.bundle,
            listed.identity,
            listed.stamp,
            known.identity,
            known.bundle_sha256,
            known.status,
            known.attempts,
        )

    def _is_as_known(self, listed: Listed, known: Entry) -> bool:
        if known.bundle_sha256 != self._wanted.bundle_sha256:
            return False
        if listed.identity is not None:
            return listed.identity == known.identity
        return listed.stamp is not None and listed.stamp == known.stamp

    def _gone(self, listed: set[str], entries: Mapping[Key, Entry]) -> Iterator[PlannedVideo]:
        """The videos that the sources had once, of every bundle that knows them."""
        for (uri, bundle), entry in sorted(entries.items()):
            if uri in listed or entry.status == "deleted":
                continue
            if any(source.covers(uri) for source in self._sources):
                yield PlannedVideo(
                    uri,
                    bundle,
                    known_identity=entry.identity,
                    known_sha256=entry.bundle_sha256,
                    known_status=entry.status,
                    is_deleted=True,
                )


def _known_parts(index: Index, names: Sequence[str]) -> Iterator[tuple[int, int, dict[Key, Entry]]]:
    for part, generation, rows in read_parts(index, names, ENTRY_COLUMNS):
        yield part, generation, entries_of(rows)


def _joined(
    listed_parts: Iterator[tuple[int, list[Listed]]],
    known_parts: Iterator[tuple[int, int, dict[Key, Entry]]],
) -> Iterator[tuple[int, list[Listed], tuple[int, dict[Key, Entry]]]]:
    """Part, its listed videos, its generation and entries: both sides are sorted by part."""
    nothing: tuple[int, dict[Key, Entry]] = (-1, {})
    listed, known = next(listed_parts, None), next(known_parts, None)
    while listed is not None or known is not None:
        part = min(side[0] for side in (listed, known) if side is not None)
        videos: list[Listed] = []
        state = nothing
        if listed is not None and listed[0] == part:
            videos = listed[1]
            listed = next(listed_parts, None)
        if known is not None and known[0] == part:
            state = known[1:]
            known = next(known_parts, None)
        yield part, videos, state


def _cut(
    part: int, generation: int, videos: Sequence[PlannedVideo], videos_per_shard: int
) -> Iterator[Shard]:
    for start in range(0, len(videos), videos_per_shard):
        yield Shard(part, generation, tuple(videos[start : start + videos_per_shard]))


_PLANNED = pa.schema(
    [
        ("part", pa.int32()),
        ("generation", pa.int32()),
        ("uri", pa.string()),
        ("bundle", pa.string()),
        ("identity", pa.string()),
        ("stamp", pa.string()),
        ("known_identity", pa.string()),
        ("known_sha256", pa.string()),
        ("known_status", pa.string()),
        ("known_attempts", pa.int32()),
        ("is_deleted", pa.bool_()),
    ]
)
_VIDEO_FIELDS = [field.name for field in fields(PlannedVideo)]


def _batch_of(shard: Shard) -> pa.RecordBatch:
    num_videos = len(shard.videos)
    columns: list[list[Any]] = [[shard.part] * num_videos, [shard.generation] * num_videos]
    columns += [[getattr(video, name) for video in shard.videos] for name in _VIDEO_FIELDS]
    return _record_batch(columns, _PLANNED)


def _record_batch(columns: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _shard_of(batch: pa.RecordBatch) -> Shard:
    columns = [batch[name].to_pylist() for name in _VIDEO_FIELDS]
    videos = tuple(PlannedVideo(*values) for values in zip(*columns, strict=True))
    return Shard(batch["part"][0].as_py(), batch["generation"][0].as_py(), videos)
