"""An index in a real object store: searched, counted and exported where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import obstore
import pytest

from backtal.errors import NotFound, Unavailable
from backtal_indexing.compact import compact
from backtal_indexing.drift import drift
from backtal_indexing.exports.clips import Clip, cut_clips
from backtal_indexing.exports.selection import select_videos
from backtal_indexing.layout import Index
from backtal_indexing.range_file import RangeFile
from backtal_indexing.reading import open_tables
from backtal_indexing.search import Query, search
from backtal_indexing.stats import videos_by_status
from backtal_indexing.store import open_objects
from tests.made_index import append, new_index, row, segment
from tests.made_videos import steady
from tests.object_store import ObjectStore, object_store

pytestmark = pytest.mark.slow

FILM = "s3://shelf/films/2026/a.mp4"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store")) as started:
        yield started


@pytest.fixture
def index(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, request) -> Index:
    settings = {**store.environment, "AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    made = new_index(f"s3://shelf/{request.node.name}")
    append(
        made,
        [row(FILM, segment(0.6, 0.9, "run", 0.9)), row("s3://shelf/films/b.mp4", segment(1, 2))],
    )
    return made


def test_a_search_reads_the_sorted_table_and_what_is_newer(index: Index) -> None:
    def found() -> list[str]:
        with open_tables(index.url) as tables:
            rows = search(tables, Query(labels=("run",), under="s3://shelf/films/2026"))
        return rows["uri"].to_pylist()

    assert found() == [FILM]
    compact(index)
    with open_tables(index.url) as tables:
        assert tables.num_fresh_files == 0
    assert found() == [FILM]
    append(
        index,
        [row(FILM, status="deleted"), row("s3://shelf/films/2026/c.mp4", segment(0, 1, "run"))],
    )
    assert found() == ["s3://shelf/films/2026/c.mp4"]


def test_statistics_and_drift(index: Index) -> None:
    append(index, [row(FILM, segment(0.6, 0.9, "run", 0.5), bundle="other")])
    with open_tables(index.url) as tables:
        counts = {one["bundle"]: one["num_videos"] for one in videos_by_status(tables).to_pylist()}
        assert counts == {"tiny": 2, "other": 1}
        (run,) = drift(tables, "tiny", "other").classes
    assert run.agreement == 1


def test_clips_are_cut_from_objects(index: Index, tmp_path: Path) -> None:
    obstore.put(open_objects("s3://shelf/films/2026"), "a.mp4", steady(44))
    with open_tables(index.url) as tables:
        videos = select_videos(tables, Query(under=FILM))
    (clip,) = cut_clips(videos, tmp_path)
    assert isinstance(clip, Clip)
    assert clip.cut.start_seconds == pytest.approx(0.48)
    with av.open(str(clip.cut.path)) as container:
        assert len(list(container.decode(video=0))) >= 10


def test_an_object_that_changes_while_it_is_read_is_an_error(index: Index) -> None:
    films = open_objects("s3://shelf/films")
    obstore.put(films, "changing", bytes(1000))
    file = RangeFile("s3://shelf/films/changing", block_bytes=100)
    assert file.read(200) == bytes(200)
    obstore.put(films, "changing", bytes([1]) * 1000)
    with pytest.raises(Unavailable, match="changing"):
        file.read(200)
    with pytest.raises(NotFound, match="none"):
        RangeFile("s3://shelf/films/none")
