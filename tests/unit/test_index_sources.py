from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.errors import InvalidArgument, InvalidFile, NotFound, PermissionDenied
from backtal_indexing.identity import SETTLED_SECONDS, is_still, look, stamp_of
from backtal_indexing.listing import Listing
from backtal_indexing.sources import One, Source, glob_re, parse_source, roots_of
from backtal_indexing.uris import file_uri, path_of


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "a library"
    for name in ("one.mp4", "two.MKV", "2026/three.webm", "2026/deep/four.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    for name in ("notes.txt", ".hidden.mp4", ".git/five.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "2026" / "again").symlink_to(folder)
    return folder


def names(source: Source, folder: Path) -> list[str]:
    return sorted(
        os.path.relpath(path_of(video.uri) or video.uri, folder) for video in source.videos()
    )


def test_a_folder_has_its_videos_by_suffix(library: Path) -> None:
    source = parse_source(str(library))
    found = names(source, library)
    assert found == ["2026/deep/four.mp4", "2026/three.webm", "one.mp4", "two.MKV"]
    assert all(video.stamp for video in source.videos())
    assert roots_of([source]) == [library]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["one.mp4"]),
        ("**/*.mp4", ["2026/deep/four.mp4", "one.mp4"]),
        ("2026/*", ["2026/three.webm"]),
        ("[ot]*.[mM]*", ["one.mp4", "two.MKV"]),
        ("[!o]??.*", ["two.MKV"]),
    ],
)
def test_a_glob(library: Path, pattern: str, expected: list[str]) -> None:
    source = parse_source(f"{library}/{pattern}")
    assert names(source, library) == expected


def test_what_a_source_would_have_had(library: Path) -> None:
    folder, glob = parse_source(str(library)), parse_source(f"{library}/2026/*.mp4")
    gone = file_uri(f"{library}/2026/gone.mp4")
    assert folder.covers(gone)
    assert glob.covers(gone)
    assert not glob.covers(file_uri(f"{library}/gone.mp4"))
    assert not folder.covers(file_uri(f"{library}er/gone.mp4"))
    assert not folder.covers(file_uri(f"{library}/.trash/gone.mp4"))
    assert not folder.covers("s3://bucket/gone.mp4")
    assert parse_source("s3://bucket/videos/").covers("s3://bucket/videos/x/gone.mp4")
    # Who names videos one by one does not say that there are no others.
    assert not parse_source(str(library / "one.mp4")).covers(file_uri(f"{library}/one.mp4"))


def test_a_file_that_is_named_like_a_glob(library: Path) -> None:
    (library / "a[1].mp4").write_text("x")
    assert names(parse_source(str(library / "a[1].mp4")), library) == ["a[1].mp4"]


def test_manifests_of_all_kinds(library: Path) -> None:
    entries = ["one.mp4", str(library / "2026/three.webm"), "s3://bucket/x y.mp4", "gone.mp4"]
    uris = [
        file_uri(f"{library}/one.mp4"),
        file_uri(f"{library}/2026/three.webm"),
        "s3://bucket/x y.mp4",
        file_uri(f"{library}/gone.mp4"),
    ]
    (library / "list.txt").write_text("# a list\n\n" + "\n".join(entries) + "\n")
    rows = "\n".join(f"{number},{entry},e{number}" for number, entry in enumerate(entries))
    (library / "list.csv").write_text(f"id,uri,identity\n{rows}\n")
    pq.write_table(pa.table({"uri": entries}), library / "list.parquet")
    for name in ("list.txt", "list.csv", "list.parquet"):
        videos = list(parse_source(str(library / name)).videos())
        assert [video.uri for video in videos] == uris
        if name == "list.csv":
            assert [video.identity for video in videos] == [f"given:e{n}" for n in range(4)]
        else:
            assert [video.stamp is None for video in videos] == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path\nx.mp4\n", r"columns \['path'\], expected 'uri'"),
        ("a.csv", "uri,id\n,3\n", "line 2: uri is empty"),
        ("a.csv", "uri,id\nx.mp4\n", "line 2: 1 fields of 2"),
        ("a.csv", "", r"columns \[\]"),
        ("a.txt", "ftp://host/x.mp4\n", "entry 1: 'ftp://host/x.mp4' has scheme 'ftp'"),
        ("a.txt", b"\xff\xfe\n", "is no text"),
        ("a.parquet", "uri\n", "no Parquet file"),
    ],
)
def test_a_wrong_manifest(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InvalidFile, match=message):
        list(parse_source(str(tmp_path / name)).videos())


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        parse_source(str(tmp_path / "none.mp4"))
    with pytest.raises(InvalidArgument, match="allowed are a path and file:, s3:, https:"):
        parse_source("gs://bucket/x")
    with pytest.raises(NotFound, match="no such file"):
        list(parse_source(str(tmp_path / "none.csv")).videos())
    # An empty disk, not an empty library.
    with pytest.raises(InvalidArgument, match="no video is at"):
        Listing([parse_source(str(tmp_path))])


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_path_comes_back_from_its_uri(name: str) -> None:
    path = os.path.normpath("/" + name.lstrip("/"))
    uri = file_uri(path)
    assert uri == Path(path).as_uri()
    assert path_of(uri) == path


@given(st.text(st.sampled_from("ab/.-"), max_size=12))
def test_a_glob_without_signs_is_itself(text: str) -> None:
    assert glob_re(text).fullmatch(text)
    assert not glob_re(text).fullmatch(text + "x")


def test_an_identity_is_of_all_bytes_and_a_stamp_of_every_write(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(bytes(3_000_000))
    uri = file_uri(str(path))
    seen = look(uri)
    assert not seen.is_settled
    assert seen.kept_stamp is None
    assert is_still(uri, seen)
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"x")
    # The same size, and the old time put back: as a copy that keeps times would have it.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert not is_still(uri, seen)
    changed = look(uri)
    assert changed.identity != seen.identity
    with pytest.raises(NotFound, match="no such file"):
        look(file_uri(str(tmp_path / "gone")))
    with pytest.raises(NotFound, match="is a folder"):
        look(file_uri(str(tmp_path)))


def test_a_stamp_is_kept_once_the_file_has_settled(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"x")
    later = time.time() + SETTLED_SECONDS + 1.0
    monkeypatch.setattr("backtal_indexing.identity.time.time", lambda: later)
    assert look(file_uri(str(path))).kept_stamp == stamp_of(path.stat())


def test_one_https_video_is_itself() -> None:
    source = parse_source("https://host.example/x.mp4?v=1")
    assert source == One("https://host.example/x.mp4?v=1")
    assert [video.uri for video in source.videos()] == ["https://host.example/x.mp4?v=1"]


def test_a_part_that_cannot_be_listed_is_an_error(library: Path, monkeypatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("backtal_indexing.sources.os.scandir", refuse)
    # Its videos would be taken for deleted ones.
    with pytest.raises(PermissionDenied, match="2026/deep cannot be listed: Permission denied"):
        list(parse_source(str(library)).videos())
