"""An index in S3, and a library in S3: SeaweedFS and moto, each by its own server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backtal.errors import NotFound, PermissionDenied, Unavailable
from backtal_indexing.compact import compact, segments_are_current
from backtal_indexing.layout import Index, IndexManifest
from backtal_indexing.part_log import PartLog
from backtal_indexing.rows import read_parts
from backtal_indexing.store import Store
from backtal_indexing.verify import verify
from tests.index_runs import running
from tests.integration.conftest import Served
from tests.integration.index_places import s3_bucket
from tests.integration.videos import moving_colours
from tests.unit.index_fakes import current_rows_of
from tests.unit.test_index_layout import NOW, row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def bucket(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An empty bucket, and this process's environment for it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if request.param == "seaweedfs":
            with s3_bucket(tmp_path_factory.mktemp("s3"), monkeypatch) as url:
                Store(url).create("exists", b"")
                yield url
            return
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        _make_bucket(f"http://{host}:{port}/videos")
        yield "s3://videos"
        server.stop()


def _make_bucket(url: str) -> None:
    import httpx

    httpx.put(url, trust_env=False).raise_for_status()


def test_an_object_is_created_once(bucket: str) -> None:
    store = Store(f"{bucket}/place")
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda number: store.create("one", b"%d" % number), range(8)))
    assert sum(written) == 1
    assert store.read("one") == b"%d" % written.index(True)
    # The same bytes: a put whose answer was lost and that was sent again.
    assert store.create("one", store.read("one"))
    store.replace("one", b"other")
    assert store.tail("one", 3) == b"her"
    assert b"".join(store.pieces("one")) == b"other"
    assert [(found.name, found.num_bytes) for found in store.list()] == [("one", 5)]
    with pytest.raises(NotFound, match="place/two"):
        store.read("two")


def test_writers_at_once_write_each_row_once(bucket: str) -> None:
    index = Index.create(f"{bucket}/logs", IndexManifest(num_parts=1, created_at=NOW))
    uris = [f"s3://library/{number}.mp4" for number in range(8)]

    def write(writer: int) -> int:
        log = PartLog(index, 0)
        return sum(log.append([row(uri)]) for uri in uris[writer:] + uris[:writer])

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == len(uris)
    ((_, generation, table),) = read_parts(index, index.videos_names())
    assert generation == len(uris) - 1
    assert sorted(table["uri"].to_pylist()) == uris
    assert verify(index).problems == []
    compact(index)
    assert segments_are_current(index)


def test_what_a_store_refuses(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((NotFound, PermissionDenied), match="nowhere"):
        Index.open("s3://nowhere/index")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("backtal_indexing.store.RETRY_SECONDS", 0.5)
    with pytest.raises(Unavailable, match="its store cannot be used"):
        Index.open(f"{bucket}/index")


def test_a_library_in_s3(bucket: str, served: Served, tmp_path: Path) -> None:
    """The service may not read it: each video goes there as its bytes."""
    library = Store(f"{bucket}/videos")
    for number in range(3):
        library.create(f"2026/a video {number}.mp4", moving_colours(1.0, seed=number))
    library.create("2026/notes.txt", b"no video")
    words = ["run", f"{bucket}/videos/", "--to", f"{bucket}/index of it", "--workers", "1"]
    words += ["--server", served.address]
    with running(words, tmp_path / "first") as run:
        assert run.finish() == 0, run.log.read_text()
    index = Index.open(f"{bucket}/index of it")
    uris = [f"{bucket}/videos/2026/a video {number}.mp4" for number in range(3)]
    rows = current_rows_of(index)
    assert sorted(uri for uri, _ in rows) == uris
    assert all(row["status"] == "done" for row in rows.values())
    # Unchanged by its etag; changed and gone ones are seen.
    library.replace("2026/a video 0.mp4", moving_colours(2.0, seed=9))
    with running(words, tmp_path / "second") as run:
        assert run.finish() == 0, run.log.read_text()
        (plan,) = run.events("plan")
    assert (plan["to_do"], plan["deleted"], plan["unchanged"]) == (1, 0, 2)
    rows = current_rows_of(index)
    assert rows[uris[0], "tiny"]["duration_seconds"] == pytest.approx(2.0)
    assert rows[uris[0], "tiny"]["identity"].startswith("etag:")
    assert verify(index).problems == []
