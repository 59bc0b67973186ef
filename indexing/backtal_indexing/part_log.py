"""The files of one part as a log that several writers append to, each having read all before.

That is what keeps an index free of doubles: a file of the next generation is created only where
there is none (`Store.create`), so a writer that was overtaken learns it, reads what it missed, and
leaves out what is written already. No lock, hence none to be left behind by a killed run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backtal.errors import NotFound
from backtal_indexing.layout import Index, file_name
from backtal_indexing.rows import table_of
from backtal_indexing.schema import NOT_DONE, VIDEOS

WRITTEN_AS_KEY = b"backtal.written_as"
ENTRY_COLUMNS = ("uri", "bundle", "identity", "stamp", "bundle_sha256", "status", "attempts")


@dataclass(frozen=True)
class Entry:
    """What a row says about a video's state, without its answer."""

    identity: str
    stamp: str | None
    bundle_sha256: str
    status: str
    attempts: int

    def is_same_work(self, other: Entry) -> bool:
        """Whether both are of the same content and the same networks."""
        mine, theirs = (self.identity, self.bundle_sha256), (other.identity, other.bundle_sha256)
        return mine == theirs


Key = tuple[str, str]  # URI and the bundle's name
Row = Mapping[str, Any]


def entries_of(table: pa.Table) -> dict[Key, Entry]:
    """The entries of a part's rows, the newest of each video and bundle."""
    columns = [table[name].to_pylist() for name in ENTRY_COLUMNS]
    return {
        (uri, bundle): Entry(identity, stamp, sha256, status, attempts)
        for uri, bundle, identity, stamp, sha256, status, attempts in zip(*columns, strict=True)
    }


class PartLog:
    """The log of `part`, of which all up to `generation` is known to the caller (-1: nothing)."""

    def __init__(self, index: Index, part: int, generation: int = -1) -> None:
        self._index = index
        self._part = part
        self.generation = generation
        # What was written since.
        self.news: dict[Key, Entry] = {}

    def catch_up(self) -> None:
        """Read what was appended meanwhile into `news`."""
        while True:
            name = file_name(self._part, self.generation + 1)
            try:
                data = self._index.store.read(name)
            except NotFound:
                return
            table = table_of(data, self._index.store.url_of(name), ENTRY_COLUMNS)
            self.news.update(entries_of(table))
            self.generation += 1

    def append(self, rows: Iterable[Row]) -> int:
        """Write the rows that nobody else has written, as one file; how many those were."""
        left = list(rows)
        while True:
            self.catch_up()
            left = [row for row in left if not self._is_written(row)]
            if not left:
                return 0
            name = file_name(self._part, self.generation + 1)
            if self._index.store.create(name, parquet_of(left)):
                self.generation += 1
                self.news.update({(row["uri"], row["bundle"]): _entry_of(row) for row in left})
                return len(left)

    def _is_written(self, row: Row) -> bool:
        """Whether, since this writer planned its row, another has written the same or better."""
        known = self.news.get((row["uri"], row["bundle"]))
        if known is None or not known.is_same_work(_entry_of(row)):
            return False
        is_better = known.status == "done" and row["status"] in NOT_DONE
        return is_better or known.status == row["status"]


def _entry_of(row: Row) -> Entry:
    return Entry(*(row[name] for name in ENTRY_COLUMNS[2:]))


def parquet_of(rows: Sequence[Row]) -> bytes:
    """A file of VIDEOS rows. No two are alike, so that a writer knows its own (`Store.create`).

    By snappy: of so few rows zstd makes no smaller a file, and one that opens half as fast.
    """
    schema = VIDEOS.with_metadata({WRITTEN_AS_KEY: uuid.uuid4().bytes})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), sink, compression="snappy")
    return bytes(sink.getvalue())
