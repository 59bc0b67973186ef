"""A search over 5,000,000 segments of 1,000,000 videos, and yardsticks beside it.

    python benchmarks/index_search.py [--quick] [--json FILE] [--segments 5000000]

The library is made up, its files are those that a run and `backtal index compact` write. Every
round asks for another class (of 400, some frequent, some rare): score at least 0.5, length at
least 2 s, the best 50. Compared are

- the search on an opened index (`search_ms`), and with opening it, which lists the index's files;
- the same rows in the order of the videos, not sorted: what compaction is for;
- the same by a scan of everything with pyarrow's dataset;
- the whole command, a new process with its imports;
- the search with a hundredth of the files written since; --quick: with nothing compacted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
from machine import options, show, timed, write

from backtal_indexing.compact import compact
from backtal_indexing.layout import Index, IndexManifest, file_name, part_of
from backtal_indexing.reading import Tables, open_tables
from backtal_indexing.schema import SEGMENT, VIDEOS
from backtal_indexing.search import Query, search, selection

SEGMENTS_A_VIDEO = 5
VIDEOS_A_PART = 64
NUM_CLASSES = 400
TOGETHER = 5
LABELS = [f"class {number:03d}" for number in range(NUM_CLASSES)]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--segments", type=int, help="default: 5000000, quick: 100000")
    arguments = parser.parse_args()
    num_segments = arguments.segments or (100_000 if arguments.quick else 5_000_000)
    rounds = 5 if arguments.quick else 40
    with tempfile.TemporaryDirectory() as folder:
        index = _library(Path(folder, "index"), num_segments // SEGMENTS_A_VIDEO)
        # Of a large library, minutes that tell nothing more.
        uncompacted = timed(lambda: _once(index, 0)) if arguments.quick else None
        made = timed(lambda: compact(index))
        unsorted = Path(folder, "unsorted.parquet")
        _write_unsorted(index, unsorted)
        milliseconds = {
            name: [1000 * one for one in found]
            for name, found in _searches(index, unsorted, rounds).items()
        }
        command = timed(lambda: _command(index))
        _touch_some(index)
        with open_tables(index) as tables:
            stale = [timed(lambda n=n: search(tables, _query(n))) for n in range(rounds)]
            num_fresh = tables.num_fresh_files
    milliseconds[f"with {num_fresh} files newer"] = [1000 * one for one in stale]
    milliseconds["the command, a new process"] = [1000 * command]
    if uncompacted is not None:
        milliseconds["not compacted, with opening"] = [1000 * uncompacted]
    rows = [
        (name, f"{np.median(taken):.1f}", f"{np.quantile(taken, 0.95):.1f}")
        for name, taken in milliseconds.items()
    ]
    show(f"Search over {num_segments} segments, compacted in {made:.0f} s", ("", "ms", "p95"), rows)
    middle = {name: float(np.median(taken)) for name, taken in milliseconds.items()}
    ours = middle["sorted, opened"]
    write(
        arguments.json,
        {
            "num_segments": num_segments,
            "search_ms": ours,
            "search_p95_ms": float(np.quantile(milliseconds["sorted, opened"], 0.95)),
            "open_and_search_ms": middle["sorted, with opening"],
            "unsorted_over_sorted": middle["not sorted"] / ours,
            "scan_over_sorted": middle["a scan of everything"] / ours,
            "command_ms": 1000 * command,
            "compact_seconds": made,
        },
    )
    return 0


def _query(number: int) -> Query:
    # A step that has no divisor in common with the classes: frequent and rare ones in turn.
    label = LABELS[number * 37 % NUM_CLASSES]
    return Query(labels=(label,), min_score=0.5, min_length_seconds=2.0, limit=50)


def _once(index: Index, number: int) -> pa.Table:
    with open_tables(index) as tables:
        return search(tables, _query(number))


def _searches(index: Index, unsorted: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each way, taken in turns; all ways must find the same."""
    with open_tables(index) as tables:
        tables.connection.read_parquet(str(unsorted)).create_view("unsorted")
        dataset = pyarrow.dataset.dataset(str(unsorted))
        ways = {
            "sorted, opened": lambda number: search(tables, _query(number)),
            "sorted, with opening": lambda number: _once(index, number),
            "not sorted": lambda number: _unsorted(tables, number),
            "a scan of everything": lambda number: _scan(dataset, number),
        }
        first = {name: way(0)["score"].to_pylist() for name, way in ways.items()}
        assert len({tuple(scores) for scores in first.values()}) == 1, "the ways disagree"
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        # In turns, so that a busy minute meets them all, but some of each together: what a scan
        # leaves in the processor's caches is no cost of the search after it.
        for start in range(1, rounds + 1, TOGETHER):
            for name, way in ways.items():
                way(0)
                for number in range(start, start + TOGETHER):
                    seconds[name].append(timed(lambda way=way, number=number: way(number)))
    return seconds


def _unsorted(tables: Tables, number: int) -> pa.Table:
    sql, parameters = selection(_query(number))
    return tables.ask(sql.replace("from segments", "from unsorted"), parameters)


def _scan(dataset: pyarrow.dataset.Dataset, number: int) -> pa.Table:
    query = _query(number)
    found = dataset.to_table().filter(
        (pc.field("label") == query.labels[0])
        & (pc.field("score") >= pa.scalar(query.min_score, pa.float32()))
        & (pc.field("end_seconds") - pc.field("start_seconds") >= query.min_length_seconds)
    )
    return found.sort_by([("score", "descending")]).slice(0, query.limit)


def _command(index: Index) -> None:
    words = ["index", "search", index.url, "--label", LABELS[1], "--min-score", "0.5", "--json"]
    subprocess.run([sys.executable, "-m", "backtal.cli", *words], check=True, capture_output=True)


def _library(folder: Path, num_videos: int) -> Index:
    """An index of made-up videos, all done."""
    manifest = IndexManifest.new(num_videos, VIDEOS_A_PART)
    index = Index.create(str(folder), manifest)
    uris = [
        f"s3://library/2026/{number % 365:03d}/{number:07d}.mp4" for number in range(num_videos)
    ]
    parts = np.array([part_of(uri, manifest.num_parts) for uri in uris])
    order = np.argsort(parts, kind="stable")
    table = _rows([uris[number] for number in order])
    bounds = np.searchsorted(parts[order], np.arange(manifest.num_parts + 1))
    (folder / "videos").mkdir()
    for part, (start, stop) in enumerate(pairwise(bounds)):
        if stop > start:
            rows = table.slice(start, stop - start)
            pq.write_table(rows, folder / file_name(part, 0), compression="zstd")
    return index


def _rows(uris: list[str]) -> pa.Table:
    random = np.random.default_rng(0)
    counts = random.integers(0, 2 * SEGMENTS_A_VIDEO + 1, len(uris))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    total = int(offsets[-1])
    weights = 1 / (np.arange(NUM_CLASSES) + 10)
    labels = random.choice(NUM_CLASSES, total, p=weights / weights.sum())
    starts = random.random(total) * 600
    segments = pa.StructArray.from_arrays(
        [
            pa.array(starts),
            pa.array(starts + random.exponential(5, total)),
            pa.array(LABELS).take(pa.array(labels)),
            pa.array(random.random(total).astype(np.float32)),
        ],
        fields=list(SEGMENT),
    )
    constants = {
        "identity": "1",
        "bundle": "kinetics400",
        "bundle_sha256": "0" * 64,
        "status": "done",
        "attempts": 1,
        "duration_seconds": 600.0,
    }
    now = datetime.now(timezone.utc)
    columns = {"uri": pa.array(uris)}
    columns["segments"] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), segments)
    columns["warnings"] = pa.array([[]] * len(uris), pa.list_(pa.string()))
    for name, value in {**constants, "started_at": now, "finished_at": now}.items():
        columns[name] = pa.repeat(pa.scalar(value, VIDEOS.field(name).type), len(uris))
    nulls = {field.name: pa.nulls(len(uris), field.type) for field in VIDEOS}
    return pa.Table.from_arrays(
        [{**nulls, **columns}[name] for name in VIDEOS.names], schema=VIDEOS
    )


def _write_unsorted(index: Index, path: Path) -> None:
    """The rows of the sorted table, video by video."""
    with open_tables(index) as tables:
        by_video = tables.connection.sql("select * from segments order by uri, start_seconds")
        by_video.write_parquet(str(path), compression="zstd")


def _touch_some(index: Index) -> None:
    """Write every hundredth file's videos anew."""
    for name in index.videos_names()[::100]:
        data = index.store.read(name)
        index.store.create(name.replace("-0000000", "-0000001"), data)


if __name__ == "__main__":
    sys.exit(main())
