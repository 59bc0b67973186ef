"""Features are kept by content and by what made them, within a limit, and never break a request."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal.decoded import Decoded
from backtal.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    InvalidFile,
    LimitExceeded,
)
from backtal.feature_store import FeatureStore, FeatureStoreSettings, open_store
from backtal.feature_store.entry import CLIPS_PER_READ
from backtal.features import FloatArray
from backtal.localization.presets import THUMOS14
from backtal.localization.settings import LocalizationSettings
from backtal.pipeline import Answer, Pipeline, Progress, Request
from backtal.settings import parse
from backtal.video import VideoDescription, VideoLimits
from tests.made_videos import steady
from tests.unit.fake_bundle import FakeStages, fake_manifest

KEY = "ab" * 32
RELEASED = THUMOS14.model_copy(update={"magnitude_thresholds": (), "class_score_threshold": 0.0})


VIDEO = VideoDescription(
    name="my.mp4",
    num_bytes=1234,
    container="mov",
    codec="h264",
    width=64,
    height=48,
    sample_aspect_ratio=Fraction(4, 3),
    duration_seconds=None,
    num_frames=None,
    frames_per_second=29.97,
)
ABOUT = Decoded(duration_seconds=1.5, num_frames=30, warnings=(), video=VIDEO)


def store_in(folder: Path, max_bytes: int = 1 << 30) -> FeatureStore:
    return open_store(FeatureStoreSettings(folder=folder, max_bytes=max_bytes))


def put(store: FeatureStore, key: str, values: FloatArray, decoded: Decoded | None = None) -> None:
    with store.writing(key) as entry:
        entry.add(values)
        entry.commit(decoded or ABOUT)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def video() -> bytes:
    return steady(45)


@given(
    st.lists(st.integers(1, 2 * CLIPS_PER_READ), min_size=1, max_size=4),
    st.integers(1, 5),
    st.lists(st.text(max_size=20), max_size=3),
    st.one_of(st.none(), st.integers(0, 10**9)),
)
def test_what_was_put_in_comes_out_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    dim: int,
    warnings: list[str],
    num_frames_declared: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = store_in(folder)
    random = np.random.default_rng(sum(sizes))
    parts = [random.normal(size=(dim, size)).astype(np.float32) for size in sizes]
    video = replace(VIDEO, num_frames=num_frames_declared)
    decoded = Decoded(random.uniform(0.1, 1e5), 77, tuple(warnings), video)
    with store.writing(KEY) as entry:
        for part in parts:
            entry.add(part)
        entry.commit(decoded)
    found = store.find(KEY)
    assert found is not None
    with found:
        values = np.concatenate(list(found.batches()), axis=1)
    assert values.tobytes() == np.concatenate(parts, axis=1).tobytes()
    other = replace(decoded, video=replace(video, name="other.mp4"), is_known=True)
    assert found.decoded_as("other.mp4") == other
    assert b"my.mp4" not in next(folder.iterdir()).read_bytes()


def test_an_entry_without_its_end_is_none(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with store.writing(KEY) as entry:
        entry.add(np.ones((3, 7), np.float32))
    assert files(tmp_path) == []
    with suppress(Cancelled), store.writing(KEY) as entry:
        entry.add(np.ones((3, 7), np.float32))
        raise Cancelled("gone")
    assert files(tmp_path) == []
    assert store.find(KEY) is None


@given(st.data())
def test_a_damaged_entry_is_missing_and_is_removed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = store_in(folder)
    put(store, KEY, np.ones((3, 7), np.float32))
    path = folder / f"{KEY}.features"
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[where] ^= data.draw(st.integers(1, 255))
    else:
        del content[where:]
    path.write_bytes(content)
    assert store.find(KEY) is None
    assert files(folder) == []


def test_an_entry_that_cannot_be_read_now_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path)
    put(store, KEY, np.ones((3, 7), np.float32))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert store.find(KEY) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "cannot be read" in caplog.text
    found = store.find(KEY)
    assert found is not None
    with found:
        assert sum(part.shape[1] for part in found.batches()) == 7


def test_an_entry_under_another_name_is_not_taken(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    put(store, KEY, np.ones((3, 7), np.float32))
    other = "cd" * 32
    (tmp_path / f"{KEY}.features").rename(tmp_path / f"{other}.features")
    assert store.find(other) is None


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), min_size=1, max_size=40))
def test_the_store_stays_within_its_limit_and_keeps_what_was_used_last(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int]]
) -> None:
    folder, limit = tmp_path_factory.mktemp("store"), 4096
    # Two processes' worth: each counts for itself.
    stores = [store_in(folder, limit), store_in(folder, limit)]
    for index, (name, num_clips) in enumerate(writes):
        key = f"{name:064x}"
        put(stores[index % 2], key, np.ones((4, num_clips), np.float32))
        total = sum(path.stat().st_size for path in folder.iterdir())
        assert total <= limit
        found = stores[index % 2].find(key)
        assert found is not None, "the newest entry was removed for older ones"
        found.__exit__(None, None, None)


def values_of(number: int) -> FloatArray:
    return np.full((4, 50 + number), number, np.float32)


def put_and_find(folder: str, seed: int) -> int:
    """What one of several processes does; how many entries it found, all of them right."""
    store, random, num_found = store_in(Path(folder), 8192), np.random.default_rng(seed), 0
    for number in random.integers(0, 20, 150).tolist():
        found = store.find(f"{number:064x}")
        if found is None:
            put(store, f"{number:064x}", values_of(number))
            continue
        num_found += 1
        with found:
            values = np.concatenate(list(found.batches()), axis=1)
        np.testing.assert_array_equal(values, values_of(number))
    return num_found


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        num_found = list(pool.map(put_and_find, [str(tmp_path)] * 3, range(3)))
    assert min(num_found) > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 8192
    assert all(path.suffix == ".features" for path in tmp_path.iterdir())


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store = store_in(tmp_path, 9_000)
    values = np.ones((4, 128), np.float32)
    for name in ("a", "b", "c"):
        put(store, name, values)
        # As on a file system that tells times apart by milliseconds only.
        time.sleep(0.01)
    found = store.find("a")
    assert found is not None
    found.__exit__(None, None, None)
    put(store, "d", values)
    assert files(tmp_path) == ["a.features", "c.features", "d.features"]


def test_an_entry_that_is_removed_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    values = np.random.default_rng(1).normal(size=(4, 3 * CLIPS_PER_READ)).astype(np.float32)
    put(store, KEY, values)
    found = store.find(KEY)
    assert found is not None
    with found:
        batches = found.batches()
        first = next(batches)
        (tmp_path / f"{KEY}.features").unlink()
        np.testing.assert_array_equal(np.concatenate([first, *batches], axis=1), values)


def test_what_a_killed_writer_left_is_removed_after_a_while(tmp_path: Path) -> None:
    left, fresh = tmp_path / "x.1.part", tmp_path / "y.2.part"
    for path in (left, fresh):
        path.write_bytes(bytes(100))
    os.utime(left, (time.time() - 7200, time.time() - 7200))
    put(store_in(tmp_path), KEY, np.ones((3, 7), np.float32))
    assert files(tmp_path) == [f"{KEY}.features", "y.2.part"]


def test_what_is_larger_than_the_store_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path, 1000)
    put(store, KEY, np.ones((4, 100), np.float32))
    assert files(tmp_path) == []
    assert "larger than the store's 1000 bytes" in caplog.text


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="feature store .*file/store: Not a directory"):
        store_in(tmp_path / "file/store")


def run(store: FeatureStore | None, request: Request, **options: object) -> tuple[Answer, int]:
    """The answer, and how many clips the backbone was asked for."""
    stages = FakeStages()
    manifest = fake_manifest(window_positions=3, localization=options.pop("localization", None))  # type: ignore[arg-type]
    limits = options.pop("limits", None)
    pipeline = Pipeline(manifest, stages, limits, store=store)  # type: ignore[arg-type]
    return pipeline.run(request, **options), sum(stages.batch_sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [(), ("cas",), ("cas", "features")])
@pytest.mark.parametrize("localization", [None, RELEASED])
def test_the_second_answer_is_the_first_one_and_decodes_nothing(
    tmp_path: Path, video: bytes, keep: tuple[str, ...], localization: LocalizationSettings | None
) -> None:
    options = {"keep": keep, "localization": localization}
    without, num_clips = run(None, Request(video=video), **options)
    store = store_in(tmp_path)
    first, num_first = run(store, Request(video=video), **options)
    path = tmp_path / "the same.mp4"
    path.write_bytes(video)
    second, num_second = run(store, Request(path=path), **options)
    assert (num_clips, num_first, num_second) == (22, 22, 0)
    assert [a.feature_source for a in (without, first, second)] == ["video", "video", "store"]
    assert not {"decode", "features"} & set(second.stage_seconds)
    for answer in (first, second):
        assert answer.segments == without.segments
        assert answer.duration_seconds == without.duration_seconds
        assert answer.num_frames_decoded == without.num_frames_decoded == 45
        assert answer.video is not None
        assert answer.video.num_frames == 45
        assert answer.feature_provenance == without.feature_provenance
        if "cas" in keep:
            np.testing.assert_array_equal(answer.cas, without.cas)
        if "features" in keep:
            np.testing.assert_array_equal(answer.features.values, without.features.values)


def test_a_full_disk_costs_the_entry_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    store = store_in(tmp_path)
    with store.writing("x") as entry:
        # Writes fail from here on as on a disk without room.
        descriptor = os.open("/dev/full", os.O_WRONLY)
        os.dup2(descriptor, entry._draft._file.fileno())  # type: ignore[union-attr]
        os.close(descriptor)
        entry.add(np.ones((3, 7), np.float32))
        entry.commit(ABOUT)
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert files(tmp_path) == []


def test_a_damaged_entry_is_made_again(tmp_path: Path, video: bytes) -> None:
    store = store_in(tmp_path)
    first, _ = run(store, Request(video=video))
    (name,) = files(tmp_path)
    with (tmp_path / name).open("r+b") as file:
        file.write(b"\x00\x01")
    again, num_clips = run(store, Request(video=video))
    assert (again.feature_source, num_clips) == ("video", 22)
    assert again.segments == first.segments
    third, num_clips = run(store, Request(video=video))
    assert (third.feature_source, num_clips) == ("store", 0)


def test_another_video_or_other_limits_are_another_entry(tmp_path: Path, video: bytes) -> None:
    store = store_in(tmp_path)
    run(store, Request(video=video))
    assert run(store, Request(video=steady(30)))[0].feature_source == "video"
    with pytest.raises(LimitExceeded):
        run(store, Request(video=video), limits=VideoLimits(max_duration_seconds=1))
    looser = VideoLimits(max_duration_seconds=100)
    assert run(store, Request(video=video), limits=looser)[0].feature_source == "video"


def test_a_partial_answer_is_not_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    cut = steady(60, movflags="faststart")[:-300]
    answer, _ = run(store, Request(video=cut, allow_partial=True))
    assert answer.warnings
    assert files(tmp_path) == []
    run(store, Request(video=steady(45), allow_partial=True))
    assert len(files(tmp_path)) == 1


def test_a_file_that_changes_while_it_is_decoded_is_not_kept(tmp_path: Path, video: bytes) -> None:
    folder, path = tmp_path / "store", tmp_path / "video.mp4"
    path.write_bytes(video)

    class Touching(FakeStages):
        def features(self, stream: str, clips: np.ndarray) -> FloatArray:
            with path.open("ab") as file:
                file.write(b"\0")
            return super().features(stream, clips)

    Pipeline(fake_manifest(), Touching(), store=store_in(folder)).run(Request(path=path))
    assert files(folder) == []


def test_a_hit_ends_where_its_caller_gives_up(tmp_path: Path, video: bytes) -> None:
    store = store_in(tmp_path)
    run(store, Request(video=video))
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        run(store, Request(video=video), is_cancelled=is_cancelled)
    with pytest.raises(DeadlineExceeded):
        run(store, Request(video=video), max_seconds=0.0)
    assert len(files(tmp_path)) == 1


def test_progress_of_a_hit_ends_at_the_end(tmp_path: Path, video: bytes) -> None:
    store = store_in(tmp_path)
    run(store, Request(video=video))
    told: list[float] = []

    def on_progress(progress: Progress) -> None:
        told.append(progress.done_seconds)

    run(store, Request(video=video), on_progress=on_progress)
    assert told[-1] == pytest.approx(1.8)


def test_a_store_takes_one_decoder(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="a feature store takes 'pyav' alone"):
        Pipeline(fake_manifest(), FakeStages(), decoder="decord", store=store_in(tmp_path))


class Remote:
    """An object of a store: `version` is what that says of its content."""

    name = "s3://bucket/video.mp4"

    def __init__(self, data: bytes, version: str | None) -> None:
        self.num_bytes, self.version = len(data), version

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        raise AssertionError("a known video is not fetched")

    def close(self) -> None: ...


@pytest.mark.parametrize("version", ["etag-1", None])
def test_a_remote_object_goes_by_its_version(tmp_path: Path, version: str | None) -> None:
    from backtal.feature_store import KnownVideos
    from backtal.run_control import RunControl
    from backtal.video.source import open_source

    known = KnownVideos(store_in(tmp_path), lambda content: f"key-of-{content}")
    values = np.ones((3, 7), np.float32)
    decodings: list[str] = []

    def pass_on() -> tuple[Decoded, list[FloatArray]]:
        source = open_source(Remote(b"video", version), VideoLimits())
        taken: list[FloatArray] = []

        def decode(take, keep):  # type: ignore[no-untyped-def]
            decodings.append("decoded")
            take(values)
            keep(ABOUT)
            return ABOUT

        control = RunControl()
        decoded = known.pass_on(source, taken.append, decode, allow_partial=False, control=control)
        return decoded, taken

    pass_on()
    decoded, taken = pass_on()
    assert decoded.is_known == (version is not None)
    assert len(decodings) == (1 if version else 2)
    np.testing.assert_array_equal(np.concatenate(taken, axis=1), values)


def test_a_writer_leaves_no_file_open(tmp_path: Path) -> None:
    """ResourceWarning is an error here."""
    with store_in(tmp_path).writing(KEY) as entry:
        entry.close()
        entry.close()
        entry.add(np.ones((3, 7), np.float32))
        entry.commit(ABOUT)
    assert files(tmp_path) == []


def test_what_comes_of_look_ups_and_entries_is_counted(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert store.find(KEY) is None
    put(store, KEY, np.ones((3, 7), np.float32))
    found = store.find(KEY)
    assert found is not None
    found.__exit__(None, None, None)
    (tmp_path / f"{KEY}.features").write_bytes(b"no features")
    assert store.find(KEY) is None
    (tmp_path / f"{KEY}.features").mkdir()
    assert store.find(KEY) is None
    assert store.counts == {"missing": 1, "kept": 1, "found": 1, "damaged": 1, "failed": 1}


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({}, "either a folder or a prefix"),
        ({"folder": "/x", "prefix": "s3://bucket/x/"}, "either a folder or a prefix"),
        ({"prefix": "s3://bucket/x"}, "'s3://bucket/x' is no prefix, expected s3://BUCKET/FOLDER/"),
        ({"prefix": "https://bucket/x/"}, "is no prefix, expected s3://BUCKET/FOLDER/"),
        ({"prefix": "s3://B/x/"}, "is no prefix, expected s3://BUCKET/FOLDER/"),
        ({"prefix": "s3://bucket/x/", "timeout": 3}, "did you mean timeout_seconds"),
        ({"prefix": "s3://bucket/x/", "timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_a_store_has_one_place(raw: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidFile, match=problem):
        parse(FeatureStoreSettings, raw, source="feature_store")
