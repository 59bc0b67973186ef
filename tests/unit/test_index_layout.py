from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import cli
from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal_indexing.layout import (
    MAX_PARTS,
    MIN_PARTS,
    Index,
    IndexManifest,
    covers,
    file_name,
    newer_than,
    part_and_generation,
    part_of,
    parts_for,
)
from backtal_indexing.part_log import PartLog
from backtal_indexing.reading import open_tables
from backtal_indexing.rows import current_of, read_parts
from backtal_indexing.store import Store, normal_url

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def row(uri: str = "file:///a.mp4", **changes: Any) -> dict[str, Any]:
    return {
        "uri": uri,
        "identity": "1",
        "stamp": None,
        "bundle": "tiny",
        "bundle_sha256": "0" * 64,
        "status": "done",
        "attempts": 1,
        "duration_seconds": 2.0,
        "warnings": [],
        "segments": [],
        **changes,
    }


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(str(tmp_path / "index"), IndexManifest(num_parts=4, created_at=NOW))


def test_an_index_is_what_was_created_first(index: Index) -> None:
    again = Index.create(index.url, IndexManifest(num_parts=8, created_at=NOW))
    assert again.manifest.num_parts == 4
    assert Index.open(f"file://{index.url}").manifest == index.manifest


def test_no_index_and_one_of_the_future_are_refused(tmp_path: Path, index: Index) -> None:
    with pytest.raises(NotFound, match="backtal index run"):
        Index.open(str(tmp_path / "none"))
    path = Path(index.url) / "index.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "schema_version": 99}))
    with pytest.raises(InvalidFile, match="schema version 99"):
        Index.open(index.url)
    path.write_text("{")
    with pytest.raises(InvalidFile, match="no JSON"):
        Index.open(index.url)


@pytest.mark.parametrize("url", ["https://host/x", "s3://", "ftp://a/b"])
def test_other_places_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="expected s3|allowed are"):
        normal_url(url)


def test_one_place_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normal_url("s3://bucket//a/b/") == "s3://bucket/a/b"
    assert normal_url("x/../y/") == str(tmp_path / "y")
    assert normal_url((tmp_path / "a b").as_uri()) == str(tmp_path / "a b")


@given(st.text(st.characters(exclude_categories=("Cs",))), st.integers(1, 500))
def test_a_uri_has_one_part(uri: str, num_parts: int) -> None:
    part = part_of(uri, num_parts)
    assert 0 <= part < num_parts
    assert part_and_generation(file_name(part, 7)) == (part, 7)


@given(st.integers(0, 10**8), st.integers(1, 1000))
def test_parts_hold_a_shard_each_within_their_bounds(num_videos: int, a_shard: int) -> None:
    parts = parts_for(num_videos, a_shard)
    assert MIN_PARTS <= parts <= MAX_PARTS
    if MIN_PARTS < parts < MAX_PARTS:
        assert a_shard / 2 <= num_videos / parts <= a_shard


def test_a_log_takes_no_row_twice(index: Index) -> None:
    first, second = PartLog(index, 0), PartLog(index, 0)
    assert first.append([row("a"), row("b")]) == 2
    # Overtaken: of its three rows one is new.
    assert second.append([row("a"), row("b"), row("c")]) == 1
    assert second.append([row("c")]) == 0
    # What is done again on purpose is planned by one that knows of the first.
    assert PartLog(index, 0, generation=1).append([row("a", identity="2")]) == 1
    assert [name[-15:] for name in index.videos_names()] == [
        "0000000.parquet",
        "0000001.parquet",
        "0000002.parquet",
    ]


def test_many_writers_at_once_write_each_row_once(index: Index) -> None:
    uris = [f"file:///{number}" for number in range(12)]

    def write(writer: int) -> int:
        log = PartLog(index, 0)
        rotated = uris[writer:] + uris[:writer]
        return sum(log.append([row(uri)]) for uri in rotated)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(write, range(6))) == len(uris)
    ((part, generation, table),) = read_parts(index, index.videos_names())
    assert (part, generation) == (0, len(uris) - 1)
    assert sorted(table["uri"].to_pylist()) == sorted(uris)


def test_current_rows_are_the_last_written_in_arrow_and_in_sql(index: Index) -> None:
    log = PartLog(index, 0)
    log.append([row("a"), row("b"), row("c")])
    log.append([row("a", identity="2"), row("a", bundle="other")])
    log.append([row("b", status="deleted")])
    ((_, _, table),) = read_parts(index, index.videos_names())
    expected = {
        ("a", "tiny", "2", "done"),
        ("a", "other", "1", "done"),
        ("b", "tiny", "1", "deleted"),
        ("c", "tiny", "1", "done"),
    }
    columns = ("uri", "bundle", "identity", "status")
    found = current_of(table).select(columns).to_pylist()
    assert {tuple(one.values()) for one in found} == expected
    with open_tables(index) as tables:
        tables.add_videos()
        found = tables.ask(f"select {', '.join(columns)} from videos").to_pylist()
    assert {tuple(one.values()) for one in found} == expected


def test_a_file_is_created_once_and_nothing_else_is_left(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    store.replace("a/b", b"third")
    assert store.read("a/b") == b"third"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    with pytest.raises(NotFound, match="a/c"):
        store.read("a/c")


@pytest.fixture
def some(index: Index) -> Index:
    PartLog(index, 0).append([row("a"), row("b", status="quarantined", error="no video at all")])
    return index


def test_status_counts_videos_and_names_failures(some: Index, capsys) -> None:
    assert cli.main(["index", "status", some.url]) == 0
    shown = capsys.readouterr().out
    assert "tiny" in shown
    assert "b: quarantined after 1: no video at all" in shown
    assert cli.main(["index", "status", some.url, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["videos"] == {"tiny": {"done": 1, "quarantined": 1}}
    assert document["hours"] == pytest.approx(2 / 3600)


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 5)), st.data())
def test_what_a_table_does_not_cover_is_what_was_written_since(last: dict[int, int], data) -> None:
    names = [file_name(part, number) for part in last for number in range(last[part] + 1)]
    then = [name for name in names if data.draw(st.booleans())]
    # Of a part's log what is covered is a beginning.
    covered = {part_and_generation(name)[0]: -1 for name in names}
    for name in then:
        part, generation = part_and_generation(name)
        covered[part] = max(covered[part], generation)
    known = [name for name in names if part_and_generation(name)[1] <= covered[int(name[7:12])]]
    assert newer_than(covers(known), names) == [name for name in names if name not in known]


def test_a_mark_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidFile, match="covers 'x', expected generations"):
        newer_than("x", [])
