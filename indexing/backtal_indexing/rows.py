"""The rows of an index, part by part: a library of any size takes the memory of one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.parquet as pq

from backtal.errors import InvalidFile
from backtal_indexing.layout import Index, part_and_generation

# Of objects elsewhere: what bounds the rate is how many are asked for at a time. Of files of this
# machine: it is their decoding, which does not hold the interpreter's lock.
REMOTE_THREADS, LOCAL_THREADS = 32, 2
FILES_AT_ONCE = 64


def read_files(
    index: Index, names: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """The files' rows in the order of `names`, some read ahead. Raises InvalidFile, NotFound."""

    def read(some: Sequence[str]) -> list[tuple[str, pa.Table]]:
        store = index.store
        return [(name, table_of(store.read(name), store.url_of(name), columns)) for name in some]

    is_local = index.store.folder is not None
    size = FILES_AT_ONCE if is_local else 1
    chunks = (names[start : start + size] for start in range(0, len(names), size))
    if is_local and len(names) <= size:
        yield from read(names)
        return
    threads = LOCAL_THREADS if is_local else REMOTE_THREADS
    ahead: deque[Future[list[tuple[str, pa.Table]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        ahead.extend(pool.submit(read, some) for some in islice(chunks, 2 * threads))
        while ahead:
            found = ahead.popleft().result()
            ahead.extend(pool.submit(read, some) for some in islice(chunks, 1))
            yield from found


def read_parts(
    index: Index, names: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[tuple[int, int, pa.Table]]:
    """Part, its last generation, and its rows in the order in which they were written.

    `names` as `Index.videos_names` gives them.
    """
    files = read_files(index, names, columns)
    for part, members in groupby(files, key=lambda file: part_and_generation(file[0])[0]):
        tables = []
        generation = -1
        for name, table in members:
            generation = part_and_generation(name)[1]
            tables.append(table)
        yield part, generation, pa.concat_tables(tables)


def current_of(part_rows: pa.Table) -> pa.Table:
    """The current rows among those of a part; see `backtal_indexing.layout`."""
    uris, bundles = part_rows["uri"].to_pylist(), part_rows["bundle"].to_pylist()
    newest = {key: row for row, key in enumerate(zip(uris, bundles, strict=True))}
    if len(newest) == part_rows.num_rows:
        return part_rows
    return part_rows.take(pa.array(newest.values(), pa.int64()))


def table_of(data: bytes, source: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file in memory. Raises InvalidFile."""
    try:
        wanted = None if columns is None else list(columns)
        return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(
            wanted, use_threads=False
        )
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InvalidFile(f"{source} is no Parquet file of an index: {error}") from None
