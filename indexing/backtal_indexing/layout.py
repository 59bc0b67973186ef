"""Where an index keeps what, in a folder or under an `s3://` prefix.

    INDEX/index.json                          what this is: format, schema version, `num_parts`
    INDEX/videos/PART-GENERATION.parquet      rows of VIDEOS, written whole and never changed
    INDEX/segments/segments.parquet           made by `compact`, replaced as a whole

A video belongs to one part for ever, by the hash of its URI. The files of a part are a log: whoever
appends the next generation has read all before it (`backtal_indexing.part_log`), so that no video
is written twice, whoever else is at work.

**The current rows**: for a URI and a bundle's name, the row in the file of the highest generation
counts, whatever its status. So a row is history once the video, or the bundle of that name, has
changed, or it was seen to be deleted. `NEWEST` is that in SQL.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Literal

from pydantic import Field

from backtal.errors import InvalidFile, NotFound
from backtal.settings import Settings, parse
from backtal_indexing.schema import SCHEMA_VERSION
from backtal_indexing.store import Store

MANIFEST_NAME = "index.json"
VIDEOS_FOLDER = "videos"
SEGMENTS_NAME = "segments/segments.parquet"
# A key of the metadata of SEGMENTS_NAME: `covers` of the files that it was made from.
COVERS_KEY = b"backtal.covers"
SUFFIX = ".parquet"
# DuckDB's condition for the current row of each video and bundle, of rows with their `filename`.
NEWEST = "row_number() over (partition by uri, bundle order by parse_filename(filename) desc) = 1"

# Few enough files for a listing, enough for a shard a worker in a library that has just begun.
MIN_PARTS, MAX_PARTS = 64, 16384


class IndexManifest(Settings):
    """`index.json`. `num_parts` defines the shards and can never change."""

    format: Literal["backtal-index"] = "backtal-index"
    schema_version: int = SCHEMA_VERSION
    num_parts: int = Field(ge=1, le=99_999)
    created_at: datetime

    @classmethod
    def new(cls, num_videos: int, videos_per_shard: int) -> IndexManifest:
        """That of an index that begins with so many videos."""
        num_parts = parts_for(num_videos, videos_per_shard)
        return cls(num_parts=num_parts, created_at=datetime.now(timezone.utc))


class Index:
    """An index at `url`, for reading; `create` makes one. `store` has its objects."""

    def __init__(self, store: Store, manifest: IndexManifest) -> None:
        self.store = store
        self.manifest = manifest
        self.url = store.url

    @classmethod
    def open(cls, url: str) -> Index:
        """The index there. Raises NotFound; InvalidFile for what this version cannot read."""
        try:
            store = Store(url)
            raw = store.read(MANIFEST_NAME)
        except NotFound:
            raise NotFound(
                f"no index at {url}: it has no {MANIFEST_NAME}. Make one: "
                f"backtal index run VIDEOS --to {url}"
            ) from None
        return cls(store, _manifest_of(raw, store.url_of(MANIFEST_NAME)))

    @classmethod
    def create(cls, url: str, manifest: IndexManifest) -> Index:
        """A new index; the one that is there, where there is one. Raises as `open`."""
        store = Store(url, make=True)
        store.create(MANIFEST_NAME, manifest.model_dump_json(indent=2).encode() + b"\n")
        return cls.open(url)

    @property
    def name(self) -> str:
        """What the metrics call it: the last part of its URL."""
        return self.url.rpartition("/")[2]

    def videos_names(self) -> list[str]:
        """The names of the files of VIDEOS rows, by part, then by rising generation."""
        return sorted(name for name in self.store.names(VIDEOS_FOLDER) if name.endswith(SUFFIX))

    def segments_urls(self) -> list[str]:
        """Paths or `s3://` URIs of the files of SEGMENTS rows; [] before the first `compact`."""
        names = set(self.store.names("segments"))
        return [self.store.url_of(SEGMENTS_NAME)] if SEGMENTS_NAME in names else []


def hash_of(uri: str) -> int:
    """64 bits of a URI, of which its part is the remainder by `num_parts`."""
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest(), "big")


def part_of(uri: str, num_parts: int) -> int:
    """The part that a URI belongs to."""
    return hash_of(uri) % num_parts


def file_name(part: int, generation: int) -> str:
    """The name of a file of VIDEOS rows. Names of one part sort by generation."""
    return f"{VIDEOS_FOLDER}/{part:05}-{generation:07}{SUFFIX}"


def part_and_generation(name: str) -> tuple[int, int]:
    """What `file_name` put together. Raises InvalidFile for another name."""
    part, _, generation = name.rpartition("/")[2].removesuffix(SUFFIX).partition("-")
    if not (part.isdecimal() and generation.isdecimal()):
        raise InvalidFile(f"{name} is no file of an index, expected PART-GENERATION{SUFFIX}")
    return int(part), int(generation)


def covers(videos_names: Sequence[str]) -> str:
    """What a table that was made from these files is marked with: each part's last generation."""
    generations: dict[int, int] = {}
    for part, generation in map(part_and_generation, videos_names):
        generations[part] = max(generation, generations.get(part, -1))
    num_parts = max(generations, default=-1) + 1
    return json.dumps([generations.get(part, -1) for part in range(num_parts)])


def newer_than(covered: str, videos_names: Sequence[str]) -> list[str]:
    """Which of these files a table with this mark was made without. Raises InvalidFile."""
    try:
        lasts = dict(enumerate(json.loads(covered)))
    except (ValueError, TypeError):
        raise InvalidFile(f"{SEGMENTS_NAME} covers {covered!r:.80}, expected generations") from None
    return [
        name
        for name in videos_names
        if (found := part_and_generation(name))[1] > lasts.get(found[0], -1)
    ]


def parts_for(num_videos: int, videos_per_shard: int) -> int:
    """How many parts a new index of so many videos has: a power of two."""
    wanted = max(1, -(-num_videos // videos_per_shard))
    return min(max(1 << (wanted - 1).bit_length(), MIN_PARTS), MAX_PARTS)


def _manifest_of(raw: bytes, source: str) -> IndexManifest:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise InvalidFile(f"{source} is no JSON: {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidFile(
            f"{source} has schema version {version}, this backtal reads up to {SCHEMA_VERSION}"
        )
    return parse(IndexManifest, document, source=source)
