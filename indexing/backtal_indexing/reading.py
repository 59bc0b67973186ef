"""An index opened for questions: DuckDB over its Parquet, where it lies.

The tables of a connection, as they are when it is opened:

    segments    what the current rows of the videos that are done found
    videos      the current row of each video and bundle, whatever its status
    video_rows  every row ever written, with its `filename`

The last two are there after `add_videos`.

`segments` is read from the compacted, sorted table. It is older than the index where files of
`videos/` were written since: rows of these, the *fresh* ones, take the place of all that the
compacted table says of their video and bundle. So an answer is never behind the index; it is only
slower, the more fresh files there are, until `backtal index compact`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from backtal.errors import InvalidFile
from backtal_indexing.layout import COVERS_KEY, NEWEST, Index, newer_than
from backtal_indexing.range_file import RangeFile
from backtal_indexing.rows import read_files
from backtal_indexing.schema import SEGMENTS, VIDEOS

# Nothing is fetched from DuckDB's own servers.
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

_VIDEOS = f"""
create view videos as select * exclude (filename) from video_rows qualify {NEWEST}
"""

# The columns of SEGMENTS, in its order.
_COLUMNS = "label, score, start_seconds, end_seconds, uri, bundle, bundle_sha256"

_FRESH = f"""
create temp table fresh as
select uri, bundle, bundle_sha256, status, segments from fresh_rows qualify {NEWEST}
"""

_FRESH_SEGMENTS = f"""
select {_COLUMNS} from (
    select uri, bundle, bundle_sha256, unnest(segments, recursive := true)
    from fresh where status = 'done')
"""

_SEGMENTS_WITH_FRESH = f"""
create view segments as
select {_COLUMNS} from compacted anti join fresh using (uri, bundle)
union all {_FRESH_SEGMENTS}
"""


class Tables:
    """An opened index. `num_fresh_files` are those that the compacted table does not cover yet."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, index: Index) -> None:
        self.url = index.url
        self.connection = connection
        self._index = index
        self._names = index.videos_names()
        self._knows_videos = False
        fresh = _add_compacted(connection, index, self._names)
        self.num_fresh_files = len(fresh)
        if fresh:
            _add_video_rows(connection, index, fresh, "fresh_rows")
            connection.execute(_FRESH)
            connection.execute(_SEGMENTS_WITH_FRESH)
        else:
            connection.execute("create view segments as select * from compacted")

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The rows that DuckDB answers with. Raises InvalidFile for a file that is damaged."""
        with _translated(self.url):
            return self.connection.sql(sql, params=list(parameters)).to_arrow_table()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """A statement without an answer. Raises as `ask`."""
        with _translated(self.url):
            self.connection.execute(sql, list(parameters))

    def add_videos(self) -> None:
        """Make `videos` and `video_rows` known, once: of many files, each is opened for that."""
        if not self._knows_videos:
            with _translated(self.url):
                _add_video_rows(self.connection, self._index, self._names, "video_rows")
                self.connection.execute(_VIDEOS)
            self._knows_videos = True


@contextmanager
def open_tables(index: Index | str) -> Iterator[Tables]:
    """Open an index, or the one at a path or an `s3://` prefix, as it is now.

    Raises NotFound where there is none, InvalidFile where it is damaged.
    """
    opened = Index.open(index) if isinstance(index, str) else index
    with duckdb.connect(config=_SETTINGS) as connection:
        with _translated(opened.url):
            tables = Tables(connection, opened)
        yield tables


def _add_video_rows(
    connection: duckdb.DuckDBPyConnection, index: Index, names: Sequence[str], view: str
) -> None:
    """Rows of these files as `view`, each with its `filename`."""
    if names and index.store.folder is not None:
        urls = [index.store.url_of(name) for name in names]
        connection.read_parquet(urls, filename=True, union_by_name=True).create_view(view)
        return
    # DuckDB reads s3: through an extension that it would have to download. We have a client.
    tables = [VIDEOS.empty_table().append_column("filename", pa.array([], pa.string()))]
    for name, rows in read_files(index, names):
        filename = pa.repeat(pa.scalar(name), rows.num_rows)
        tables.append(rows.append_column("filename", filename))
    connection.register(view, pa.concat_tables(tables, promote_options="default"))


def _add_compacted(
    connection: duckdb.DuckDBPyConnection, index: Index, names: Sequence[str]
) -> list[str]:
    """The compacted segments as the view `compacted`; the names of the files it does not cover."""
    urls = index.segments_urls()
    if not urls:
        connection.register("compacted", SEGMENTS.empty_table())
        return list(names)
    (url,) = urls
    is_here = index.store.folder is not None
    metadata = (_add_file if is_here else _add_object)(connection, url)
    covered = (metadata or {}).get(COVERS_KEY)
    return list(names) if covered is None else newer_than(covered.decode(), names)


def _add_file(connection: duckdb.DuckDBPyConnection, path: str) -> dict[bytes, bytes] | None:
    connection.read_parquet(path).create_view("compacted")
    # The footer of a large table is a good part of a search.
    connection.execute("set parquet_metadata_cache = true")
    metadata: dict[bytes, bytes] | None = pq.read_metadata(path).metadata
    return metadata


def _add_object(connection: duckdb.DuckDBPyConnection, url: str) -> dict[bytes, bytes] | None:
    import pyarrow.dataset as ds

    form = ds.ParquetFileFormat()
    fragment = form.make_fragment(pa.PythonFile(io.BufferedReader(RangeFile(url)), mode="r"))
    dataset = ds.FileSystemDataset([fragment], fragment.physical_schema, form)
    connection.register("compacted", dataset)
    metadata: dict[bytes, bytes] | None = fragment.metadata.metadata
    return metadata


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException, pa.ArrowInvalid) as error:
        first_line = str(error).partition("\n")[0]
        raise InvalidFile(f"{url} cannot be read as an index: {first_line}") from None
