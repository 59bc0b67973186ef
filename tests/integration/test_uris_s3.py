"""s3 URIs against a real store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import obstore
import pytest

from backtal.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from backtal_serving.uris import RemoteAccess, resolve
from backtal_serving.uris.s3 import S3Object
from tests.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore, object_store

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 4096
REGION = "us-east-1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store")) as started:
        bucket = bucket_of(started)
        for key in ("public/a video.mp4", "private/b.mp4"):
            obstore.put(bucket, key, DATA)
        yield started


def bucket_of(store: ObjectStore) -> Any:
    from obstore.store import S3Store

    return S3Store(
        "videos",
        endpoint=store.endpoint,
        region=REGION,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
    )


@pytest.fixture
def open_object(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)

    def open_it(uri: str, **changes: Any) -> S3Object:
        settings = {
            "prefixes": ["s3://videos/public/"],
            "s3_endpoint": store.endpoint,
            "s3_region": REGION,
            "timeout_seconds": 5.0,
            **changes,
        }
        opened = resolve(uri, [], RemoteAccess.model_validate(settings))
        assert isinstance(opened, S3Object)
        return opened

    return open_it


def test_an_object_is_read_by_its_parts(open_object: Any) -> None:
    with closing(open_object("s3://videos/public/a video.mp4")) as opened:
        assert opened.num_bytes == len(DATA)
        for offset, length in ((0, 10), (300_000, 1000), (len(DATA) - 5, 100)):
            assert opened.read_at(offset, length) == DATA[offset : offset + length]


def test_its_version_names_its_content(store: ObjectStore, open_object: Any) -> None:
    first = open_object("s3://videos/public/a video.mp4").version
    assert first is not None
    assert open_object("s3://videos/public/a video.mp4").version == first
    bucket = bucket_of(store)
    obstore.put(bucket, "public/changing.mp4", DATA)
    before = open_object("s3://videos/public/changing.mp4").version
    assert before != first
    obstore.put(bucket, "public/changing.mp4", DATA[::-1])
    assert open_object("s3://videos/public/changing.mp4").version != before


@pytest.mark.parametrize(
    "uri", ["s3://videos/private/b.mp4", "s3://other/public/x", "s3://videos/publicx/y"]
)
def test_an_object_outside_the_prefixes_is_denied(open_object: Any, uri: str) -> None:
    with pytest.raises(PermissionDenied, match="outside the allowed prefixes"):
        open_object(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://videos/public/../private/b.mp4",
        "s3://videos/public/./a",
        "s3://videos//public/a",
        "s3://videos/public/",
        "s3://videos",
        "s3://169.254.169.254:80/public/x",
        "s3://VIDEOS/public/a",
        "s3://videos/public/a\nb",
    ],
)
def test_an_ill_formed_uri_is_refused(open_object: Any, uri: str) -> None:
    with pytest.raises((InvalidArgument, PermissionDenied)):
        open_object(uri)


def test_a_missing_object_is_not_found(open_object: Any) -> None:
    with pytest.raises(NotFound, match="no such object"):
        open_object("s3://videos/public/missing.mp4")


def test_a_wrong_key_is_refused(open_object: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermissionDenied, match="its store refuses it"):
        open_object("s3://videos/public/a video.mp4")


def test_an_object_that_changes_is_noticed(open_object: Any) -> None:
    with closing(open_object("s3://videos/public/a video.mp4")) as opened:
        obstore.put(opened._store, "public/a video.mp4", DATA[::-1])
        try:
            with pytest.raises(Unavailable, match="changed while it was read"):
                opened.read_at(0, 10)
        finally:
            obstore.put(opened._store, "public/a video.mp4", DATA)


def test_a_store_that_is_gone_is_unavailable(open_object: Any) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="cannot be read"):
        open_object("s3://videos/public/a video.mp4", s3_endpoint="http://127.0.0.1:9")
    assert time.monotonic() - started < 20.0
