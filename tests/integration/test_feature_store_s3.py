"""Features kept in an object store: a real one, shared, full, damaged, forbidden, slow and gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import obstore
import pytest

from backtal.bucket import open_bucket
from backtal.feature_store import FeatureStore, FeatureStoreSettings, bucket, open_store
from backtal.features import FloatArray
from backtal.pipeline import Answer, Pipeline, Request
from tests.made_videos import steady
from tests.object_store import WRITER_KEY, WRITER_SECRET, ObjectStore, object_store
from tests.unit.fake_bundle import FakeStages, fake_manifest
from tests.unit.test_feature_store import put

pytestmark = pytest.mark.slow

REGION = "us-east-1"
PATIENCE_SECONDS = 30.0
TIMEOUT_SECONDS = 1.0
# For the answer itself, on a busy machine.
SLACK_SECONDS = 5.0
VIDEO = steady(45)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as started:
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in started.environment.items():
                monkeypatch.setenv(name, value)
            # The first object makes the bucket and its volumes, which takes seconds.
            obstore.put(bucket_of(started, "warm/"), "first", b"first")
        yield started


def bucket_of(server: ObjectStore, folder: str) -> Any:
    return open_bucket(
        "features",
        prefix=folder,
        endpoint=server.endpoint,
        region=REGION,
        timeout_seconds=PATIENCE_SECONDS,
        max_retries=2,
        retry_seconds=PATIENCE_SECONDS,
    )


@pytest.fixture
def keys(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prefix(request: pytest.FixtureRequest, keys: None) -> str:
    """One that no other test uses."""
    return f"s3://features/{request.node.name}/"


@pytest.fixture
def store_in(server: ObjectStore) -> Callable[..., FeatureStore]:
    def opened(prefix: str, **changes: Any) -> FeatureStore:
        raw = {"prefix": prefix, "s3_endpoint": server.endpoint, "s3_region": REGION, **changes}
        return open_store(FeatureStoreSettings.model_validate(raw))

    return opened


@pytest.fixture
def objects(server: ObjectStore, prefix: str) -> Any:
    """The prefix as the store has it."""
    return bucket_of(server, prefix.removeprefix("s3://features/"))


def sizes(objects: Any) -> dict[str, int]:
    return {about["path"]: about["size"] for about in obstore.list(objects).collect()}


def run(store: FeatureStore, video: bytes = VIDEO) -> tuple[Answer, int]:
    """The answer, and how many clips the backbone was asked for."""
    stages = FakeStages()
    answer = Pipeline(fake_manifest(window_positions=3), stages, store=store).run(
        Request(video=video)
    )
    return answer, sum(stages.batch_sizes)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def values_of(number: int, num_clips: int = 50) -> FloatArray:
    return np.full((4, num_clips), number, np.float32)


def found_values(store: FeatureStore, key: str) -> FloatArray | None:
    found = store.find(key)
    if found is None:
        return None
    with found:
        return np.concatenate(list(found.batches()), axis=1)


def test_what_one_machine_decoded_another_does_not(
    store_in: Callable[..., FeatureStore], prefix: str
) -> None:
    here, there = store_in(prefix), store_in(prefix)
    first, num_first = run(here)
    second, num_second = run(there)
    assert (num_first, num_second) == (22, 0)
    assert [first.feature_source, second.feature_source] == ["video", "store"]
    assert first.segments
    assert second.segments == first.segments
    assert second.feature_provenance == first.feature_provenance
    assert here.counts == {"missing": 1, "kept": 1}
    assert there.counts == {"found": 1}


def test_an_entry_of_many_megabytes_comes_back_to_the_bit(
    store_in: Callable[..., FeatureStore], prefix: str
) -> None:
    values = np.random.default_rng(1).normal(size=(1024, 5000)).astype(np.float32)
    put(store_in(prefix), "large", values)
    back = found_values(store_in(prefix), "large")
    assert back is not None
    assert back.tobytes() == values.tobytes()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "another"])
def test_a_damaged_object_is_made_again(
    store_in: Callable[..., FeatureStore],
    prefix: str,
    objects: Any,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = store_in(prefix)
    first, _ = run(store)
    (name,) = sizes(objects)
    content = bytes(obstore.get(objects, name).bytes())
    put(store, "other", values_of(1))
    damaged = {
        "cut": content[:-1],
        "changed": b"\0\1" + content[2:],
        "empty": b"",
        "another": bytes(obstore.get(objects, "other.features").bytes()),
    }
    obstore.put(objects, name, damaged[damage])
    again, num_clips = run(store)
    assert (again.feature_source, num_clips) == ("video", 22)
    assert again.segments == first.segments
    assert store.counts["damaged"] == 1
    assert f"{prefix}{name} is damaged" in caplog.text
    assert bytes(obstore.get(objects, name).bytes()) == content
    assert run(store)[0].feature_source == "store"


def test_the_oldest_go_where_there_are_too_many(
    store_in: Callable[..., FeatureStore], prefix: str, objects: Any
) -> None:
    limit = 20_000
    obstore.put(objects, "of another", bytes(limit))
    stores = [store_in(prefix, max_bytes=limit) for _ in range(2)]
    for number in range(60):
        put(stores[number % 2], f"{number:03}", values_of(number))
        # The store tells times by seconds; entries of one second go in any order.
        time.sleep(0.05)

    def entries() -> dict[str, int]:
        return {name: size for name, size in sizes(objects).items() if name != "of another"}

    wait_until(lambda: sum(entries().values()) <= limit)
    kept = sorted(entries())
    assert len(kept) > 3
    assert kept[0] > "020"
    assert "of another" in sizes(objects)
    for store in stores:
        assert store.counts["failed"] == 0


def test_several_share_a_full_prefix(
    store_in: Callable[..., FeatureStore], prefix: str, objects: Any
) -> None:
    def put_and_find(seed: int) -> FeatureStore:
        store, random = store_in(prefix, max_bytes=10_000), np.random.default_rng(seed)
        for number in random.integers(0, 10, 40).tolist():
            values = found_values(store, f"{number}")
            if values is None:
                put(store, f"{number}", values_of(number))
            else:
                np.testing.assert_array_equal(values, values_of(number))
        return store

    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(put_and_find, range(3)))
    for store in stores:
        assert store.counts["found"] > 0
        assert store.counts["damaged"] == store.counts["failed"] == 0

    def is_within_after_one_more() -> bool:
        # What was written while somebody looked is seen at the next look.
        put(stores[0], "last", values_of(11))
        return sum(sizes(objects).values()) <= 10_000

    wait_until(is_within_after_one_more)


def test_what_cannot_be_listed_is_not_filled(
    store_in: Callable[..., FeatureStore],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(store_in(prefix), "first", values_of(1))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRITER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRITER_SECRET)
    store = store_in(prefix)
    put(store, "may be kept while it looks", values_of(1))
    wait_until(lambda: f"room cannot be made in {prefix}" in caplog.text)
    put(store, "second", values_of(2))
    assert store.counts["failed"] >= 1
    assert found_values(store, "second") is None
    assert "second.features is not kept: room could not be made" in caplog.text
    # What is there is found all the same.
    assert found_values(store, "first") is not None


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """A server that takes each connection, sends this and no more; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                taken.append(connection)
                connection.sendall(answer)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(take)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                listener.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\netag: x\r\n"
    b"last-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\nhalf an entry"
)


@pytest.mark.parametrize(
    "answer", [None, b"", HEAD, b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n"]
)
def test_a_store_that_fails_costs_little_time_and_no_answer(
    store_in: Callable[..., FeatureStore], prefix: str, answer: bytes | None
) -> None:
    expected, _ = run(store_in(prefix))
    with listening(answer or b"") as endpoint:
        if answer is None:
            endpoint = "http://127.0.0.1:9"
        store = store_in(prefix, s3_endpoint=endpoint, timeout_seconds=TIMEOUT_SECONDS)
        started = time.monotonic()
        first, _ = run(store)
        assert time.monotonic() - started < 2 * TIMEOUT_SECONDS + SLACK_SECONDS
        # It is not asked again for a while.
        started = time.monotonic()
        assert store.find("any") is None
        assert time.monotonic() - started < TIMEOUT_SECONDS / 2
        second, _ = run(store)
    for told in (first, second):
        assert told.feature_source == "video"
        assert told.segments == expected.segments
    assert store.counts == {"failed": 5}


def test_a_store_that_comes_back_is_used_again(
    store_in: Callable[..., FeatureStore],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bucket, "REST_SECONDS", 0.5)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = store_in(prefix)
    assert run(store)[0].feature_source == "video"
    assert "cannot be read: PermissionDeniedError" in caplog.text
    assert "is not kept: the store failed within the last 0.5 s" in caplog.text
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    store = store_in(prefix)
    with listening(b"") as endpoint:
        gone = store_in(prefix, s3_endpoint=endpoint, timeout_seconds=0.2)
        assert gone.find("x") is None
        time.sleep(0.6)
        assert gone.find("x") is None
        assert gone.counts == {"failed": 2}
        assert caplog.text.count("x.features cannot be read: GenericError") == 2
    assert run(store)[0].feature_source == "video"
    assert run(store)[0].feature_source == "store"
