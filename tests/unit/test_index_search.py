"""Searching an index: the same answer whatever of it is compacted, and that of a plain loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal import cli
from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal_indexing.compact import compact
from backtal_indexing.layout import SEGMENTS_NAME, Index
from backtal_indexing.reading import Tables, open_tables
from backtal_indexing.schema import SEGMENTS
from backtal_indexing.search import ORDERS, Query, search
from backtal_indexing.subcommands import query_options
from tests.made_index import append, new_index, row, segment

LIBRARY = [
    row(
        "s3://films/2026/a.mp4",
        segment(1, 4, "high jump", 0.9),
        segment(10, 11, "high jump", 0.4),
        segment(2, 30, "run", 0.7),
    ),
    row("s3://films/2026/b.mp4", segment(5, 25, "high jump", 0.6)),
    row("s3://films/20260/c.mp4", segment(0, 3, "high jump", 0.8)),
    row("s3://films/2026/empty.mp4"),
    row("s3://films/2026/bad.mp4", status="quarantined", error="no video"),
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = new_index(tmp_path / "index")
    append(made, LIBRARY)
    return made


def found_in(tables: Tables, **query: Any) -> list[tuple[Any, ...]]:
    rows = search(tables, Query(**query)).to_pylist()
    return [(one["uri"][-5:], one["label"], round(one["score"], 3)) for one in rows]


def found(index: Index, **query: Any) -> list[tuple[Any, ...]]:
    with open_tables(index) as tables:
        return found_in(tables, **query)


def test_a_folder_is_meant_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_index(tmp_path / "index")
    append(made, [row(f"file://{tmp_path}/films/a.mp4", segment(1, 4))])
    (tmp_path / "films").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for under in (f"{tmp_path}/films", "../films", "../other/../films/", "../films/a.mp4"):
        assert len(found(made, under=under)) == 1, under
    assert found(made, under="films") == []


@pytest.mark.parametrize("is_compacted", [False, True])
def test_what_a_query_asks_is_what_comes(index: Index, is_compacted: bool) -> None:
    if is_compacted:
        compact(index)
    with open_tables(index) as tables:
        high = {"labels": ("high jump",)}
        assert [one[2] for one in found_in(tables, **high)] == [0.9, 0.8, 0.6, 0.4]
        assert found_in(tables, **high, min_score=0.9) == [("a.mp4", "high jump", 0.9)]
        assert [one[2] for one in found_in(tables, max_score=0.6)] == [0.6, 0.4]
        assert [one[2] for one in found_in(tables, min_length_seconds=20)] == [0.7, 0.6]
        assert [one[2] for one in found_in(tables, max_length_seconds=1)] == [0.4]
        # A folder, not any URI that starts so; and one video.
        assert len(found_in(tables, under="s3://films/2026")) == 4
        assert len(found_in(tables, under="s3://films/2026/")) == 4
        assert len(found_in(tables, under="s3://films/2026/b.mp4")) == 1
        assert [one[2] for one in found_in(tables, after_seconds=2, before_seconds=12)] == [0.4]
        assert [one[2] for one in found_in(tables, order="length", limit=2)] == [0.7, 0.6]
        assert [one[0] for one in found_in(tables, order="video")] == ["a.mp4"] * 3 + [
            "b.mp4",
            "c.mp4",
        ]
        assert len(found_in(tables, labels=("high jump", "run"))) == 5


def test_the_answer_is_arrow_of_the_index_s_schema(index: Index) -> None:
    with open_tables(index.url) as tables:
        table = search(tables, Query(limit=1))
    assert isinstance(table, pa.Table)
    assert table.schema == SEGMENTS


def test_rows_newer_than_the_compaction_take_the_place_of_its_own(index: Index) -> None:
    compact(index)
    num_covered = len(index.videos_names())
    append(
        index,
        [
            row("s3://films/2026/a.mp4", segment(0, 1, "run", 0.1), identity="2"),
            row("s3://films/2026/b.mp4", status="deleted"),
            row("s3://films/2026/d.mp4", segment(0, 1, "swim", 0.2)),
        ],
    )
    expected = [("c.mp4", "high jump", 0.8), ("d.mp4", "swim", 0.2), ("a.mp4", "run", 0.1)]
    assert found(index) == expected
    with open_tables(index) as tables:
        # Only what is newer is read row by row.
        assert tables.num_fresh_files == len(index.videos_names()) - num_covered
    compact(index)
    assert found(index) == expected
    with open_tables(index) as tables:
        assert tables.num_fresh_files == 0


SCORES = st.floats(0, 1, width=32)
SEGMENT = st.builds(
    segment,
    st.integers(0, 20).map(float),
    st.integers(21, 40).map(float),
    st.sampled_from(["run", "jump", "it's"]),
    SCORES,
)
ROW = st.builds(
    lambda number, segments, bundle, status: row(
        f"file:///{number}.mp4", *segments, bundle=bundle, status=status
    ),
    st.integers(0, 5),
    st.lists(SEGMENT, max_size=3),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["done", "done", "done", "failed", "deleted"]),
)
QUERY = st.builds(
    Query,
    min_score=st.none() | SCORES,
    min_length_seconds=st.none() | st.integers(0, 40),
    after_seconds=st.none() | st.integers(0, 20),
    before_seconds=st.none() | st.integers(21, 40),
    order=st.sampled_from(ORDERS),
)


def is_wanted(one: dict[str, Any], query: Query) -> bool:
    return (
        np.float32(one["score"]) >= np.float32(query.min_score or 0)
        and one["end_seconds"] - one["start_seconds"] >= (query.min_length_seconds or 0)
        and one["start_seconds"] >= (query.after_seconds or 0)
        and one["end_seconds"] <= (query.before_seconds or 1e9)
    )


@settings(max_examples=25)
@given(st.lists(st.lists(ROW, max_size=4), max_size=3), st.integers(0, 3), QUERY)
def test_a_search_is_the_loop_over_the_current_rows(
    tmp_path_factory: pytest.TempPathFactory, batches, compact_after: int, query: Query
) -> None:
    index = new_index(tmp_path_factory.mktemp("index"))
    current: dict[tuple[str, str], dict[str, Any]] = {}
    for number, batch in enumerate(batches):
        if number == compact_after:
            compact(index)
        newest = {(one["uri"], one["bundle"]): one for one in batch}
        # Each a version of its own, else the log takes it for written already.
        append(index, [{**one, "identity": str(number)} for one in newest.values()])
        current |= newest
    expected = sorted(
        (uri, bundle, one["start_seconds"], one["end_seconds"], one["label"], one["score"])
        for (uri, bundle), video in current.items()
        if video["status"] == "done"
        for one in video["segments"]
        if is_wanted(one, query)
    )
    with open_tables(index) as tables:
        rows = search(tables, query).to_pylist()
    columns = ("uri", "bundle", "start_seconds", "end_seconds", "label", "score")
    assert sorted(tuple(one[name] for name in columns) for one in rows) == expected
    keys = {"score": lambda one: -one["score"], "start": lambda one: one["start_seconds"]}
    if query.order in keys:
        assert rows == sorted(rows, key=keys[query.order])


def test_a_name_that_nothing_has_is_an_error_with_the_nearest(index: Index) -> None:
    with pytest.raises(InvalidArgument, match="label 'HighJump'; did you mean 'high jump'"):
        found(index, labels=("run", "HighJump"))
    with pytest.raises(InvalidArgument, match="label 'xyz'; known are 'high jump', 'run'"):
        found(index, labels=("xyz",))
    with pytest.raises(InvalidArgument, match="bundle 'tinny'; did you mean 'tiny'"):
        found(index, bundle="tinny")
    # One that is there but not so sure is no error.
    assert found(index, labels=("run",), min_score=0.99) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"min_score": 1.5}, r"a least score of 1.5; it must be in \[0, 1\]"),
        ({"max_score": -0.1}, r"a largest score of -0.1; it must be in \[0, 1\]"),
        ({"min_score": float("nan")}, "a least score of nan"),
        ({"min_length_seconds": -2}, "a least length of -2; it must be at least 0"),
        ({"max_length_seconds": float("inf")}, "a largest length of inf"),
        ({"min_score": 0.5, "max_score": 0.4}, "a score from 0.5 to 0.4, which is none"),
        ({"after_seconds": 9, "before_seconds": 3}, "a time in the video from 9 to 3"),
        ({"limit": 0}, "a limit of 0; it must be at least 1"),
        ({"order": "luck"}, "order 'luck'; allowed are score, length, start, video"),
    ],
)
def test_figures_out_of_range_are_refused(query: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Query(**query)


def test_an_empty_index_a_missing_and_a_damaged_one(tmp_path: Path, index: Index) -> None:
    empty = new_index(tmp_path / "empty")
    assert found(empty) == []
    with pytest.raises(InvalidArgument, match="has no segments yet"):
        found(empty, labels=("run",))
    with pytest.raises(NotFound, match="no index at"), open_tables(str(tmp_path / "none")):
        pass
    index.store.replace(SEGMENTS_NAME, b"no Parquet")
    with pytest.raises(InvalidFile, match="cannot be read as an index"), open_tables(index):
        pass


def test_the_command_prints_a_table_or_json(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["index", "search", index.url, "--label", "high jump", "--min-score", ".6"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "0.900" in shown
    assert "s3://films/2026/a.mp4" in shown
    assert cli.main([*words, "--limit", "1", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["segments"]
    assert (one["uri"], one["start_seconds"]) == ("s3://films/2026/a.mp4", 1.0)
    assert cli.main([*words, "--min-length", "-1"]) == cli.EXIT_MENDABLE
    assert "at least 0" in capsys.readouterr().err


def test_the_orders_of_the_command_are_those_of_a_query() -> None:
    assert query_options.ORDERS == ORDERS
