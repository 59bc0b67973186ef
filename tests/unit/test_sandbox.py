"""Decoding in child processes: the same frames, and a death that concerns one request."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from backtal.errors import (
    InvalidArgument,
    InvalidVideo,
    LimitExceeded,
    MissingDependency,
    NotFound,
    Unavailable,
)
from backtal.manifest import ClipPlan
from backtal.video import VideoLimits, Window, open_video
from backtal.video.sandbox import DecoderPool, DecodeSettings, channel
from backtal.video.sandbox.messages import Reaped
from backtal.video.sandbox.video import IsolatedVideo
from backtal.video.sandbox.worker import Worker
from backtal.video.source import Source
from tests.integration.videos import sound_only
from tests.made_videos import number_of, steady
from tests.requirements import require

PLAN = ClipPlan(
    frames_per_second=240,
    frames_per_clip=1,
    stride_frames=1,
    short_side_pixels=32,
    crop_pixels=24,
)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    opened = DecoderPool()
    try:
        opened.start()
    except MissingDependency as error:
        require("seccomp", error.message)
    with opened:
        yield opened


def numbers(windows: list[Window]) -> list[int]:
    return [number_of(frame) for window in windows for frame in window.frames]


def test_a_child_gives_the_frames_that_this_process_gives(pool: DecoderPool) -> None:
    data = steady(30, b_frames=2)
    with closing(open_video(data)) as here, closing(open_video(data, pool=pool)) as there:
        expected = list(here.windows(PLAN, window_frames=7))
        found = list(there.windows(PLAN, window_frames=7))
        assert there.description == here.description
        assert there.report == here.report
    assert len(found) == len(expected) == 5
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(theirs.frames, ours.frames)
        np.testing.assert_array_equal(theirs.presentation_seconds, ours.presentation_seconds)
        assert theirs.end_seconds == ours.end_seconds


def test_a_file_with_subtitles_is_decoded(pool: DecoderPool) -> None:
    """PyAV loads the module for them when it meets them: in a child that is too late."""
    with closing(open_video(with_subtitles(), pool=pool)) as video:
        assert numbers(list(video.windows(PLAN))) == list(range(6))


def with_subtitles() -> bytes:
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(steady(6, container="matroska"))) as source,
        av.open(file, "w", format="matroska") as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        with av.open(io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\nhello\n")) as text:
            target.add_stream_from_template(text.streams[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


def test_a_video_is_read_from_a_path_and_twice(pool: DecoderPool, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(steady(6))
    for _ in range(2):
        with closing(open_video(path, pool=pool)) as video:
            assert numbers(list(video.windows(PLAN))) == list(range(6))


def test_errors_come_back_as_they_are(pool: DecoderPool, tmp_path: Path) -> None:
    with pytest.raises(InvalidVideo, match="no video that can be read"):
        open_video(b"no video" * 100, pool=pool)
    with pytest.raises(InvalidVideo, match="no video stream .* audio"):
        open_video(sound_only(), pool=pool)
    with pytest.raises(InvalidVideo, match="0 bytes"):
        open_video(b"", pool=pool)
    with pytest.raises(NotFound, match="nothing"):
        open_video(tmp_path / "nothing.mp4", pool=pool)
    with pytest.raises(LimitExceeded, match="allowed are up to 100"):
        open_video(steady(6), VideoLimits(max_pixels=100), pool=pool)
    with (
        closing(open_video(steady(12, movflags="faststart")[:-300], pool=pool)) as video,
        pytest.raises(InvalidVideo, match="allow_partial"),
    ):
        list(video.windows(PLAN))
    assert pool.process_ids == ()


def test_each_video_has_a_child_of_its_own(pool: DecoderPool) -> None:
    videos = [open_video(steady(6), pool=pool) for _ in range(3)]
    assert len(set(pool.process_ids)) == 3
    for video in videos:
        video.close()
    assert pool.process_ids == ()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_death_is_mended_once_without_a_trace(pool: DecoderPool, end: signal.Signals) -> None:
    with closing(open_video(steady(40), pool=pool)) as video:
        windows = video.windows(PLAN, window_frames=4)
        first = [next(windows) for _ in range(3)]
        kill(pool, end)
        assert numbers(first + list(windows)) == list(range(40))
        assert video.report.num_frames == 40


@pytest.mark.parametrize(
    ("end", "kind", "says"),
    [
        (signal.SIGSEGV, InvalidVideo, "crashed the decoder, twice.*SIGSEGV"),
        (signal.SIGKILL, Unavailable, "ended from outside, twice.*SIGKILL"),
    ],
)
def test_a_second_death_is_the_requests_error(
    pool: DecoderPool, end: signal.Signals, kind: type[Exception], says: str
) -> None:
    with closing(open_video(steady(40), pool=pool)) as video:
        windows = video.windows(PLAN, window_frames=4)
        next(windows)
        kill(pool, end)
        next(windows)
        kill(pool, end)
        with pytest.raises(kind, match=says):
            list(windows)
    with closing(open_video(steady(6), pool=pool)) as video:
        assert numbers(list(video.windows(PLAN))) == list(range(6))


def test_a_childs_death_is_its_own(pool: DecoderPool) -> None:
    with closing(open_video(steady(40), pool=pool)) as other:
        (theirs,) = pool.process_ids
        windows = other.windows(PLAN, window_frames=4)
        begun = [next(windows)]
        with closing(open_video(steady(20), pool=pool)) as victim:
            (mine,) = set(pool.process_ids) - {theirs}
            os.kill(mine, signal.SIGKILL)
            assert numbers(list(victim.windows(PLAN))) == list(range(20))
        assert theirs in pool.process_ids
        assert numbers(begun + list(windows)) == list(range(40))


def test_the_childrens_parent_may_die(pool: DecoderPool) -> None:
    with closing(open_video(steady(40), pool=pool)) as video:
        windows = video.windows(PLAN, window_frames=4)
        first = [next(windows)]
        before = pool.zygote_process_id
        assert before is not None
        (child,) = pool.process_ids
        os.kill(before, signal.SIGKILL)
        wait_until_gone(child)
        assert numbers(first + list(windows)) == list(range(40))
        assert pool.zygote_process_id != before


def test_a_stopped_child_is_given_up_in_time() -> None:
    with DecoderPool(DecodeSettings(window_timeout_seconds=0.5)) as pool:
        with closing(open_video(steady(40), pool=pool)) as video:
            windows = video.windows(PLAN, window_frames=4)
            next(windows)
            os.kill(pool.process_ids[0], signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(Unavailable, match=r"too busy .* allowed are 0\.5 s"):
                list(windows)
            assert time.monotonic() - started < 5.0
        assert pool.process_ids == ()


def test_a_window_that_computes_too_long_is_refused() -> None:
    # Frames of 4 megapixels, and less time than they need.
    data = steady(60, size=(2560, 1600), codec="mpeg4")
    with DecoderPool(DecodeSettings(window_timeout_seconds=0.1, threads=1)) as pool:
        with closing(open_video(data, pool=pool)) as video:
            plan = PLAN.model_copy(update={"short_side_pixels": 1024, "crop_pixels": 16})
            with pytest.raises((LimitExceeded, Unavailable), match=r"allowed are 0\.1 s"):
                list(video.windows(plan, window_frames=60))
        assert pool.process_ids == ()


def test_more_videos_than_children_are_told_to_come_again() -> None:
    with DecoderPool(DecodeSettings(max_processes=1)) as pool:
        with closing(open_video(steady(6), pool=pool)):
            with pytest.raises(Unavailable, match="1 videos are being decoded") as caught:
                open_video(steady(6), pool=pool)
            assert caught.value.retry_after_seconds
        open_video(steady(6), pool=pool).close()


def test_a_frame_that_takes_more_memory_than_allowed_is_no_crash() -> None:
    data = steady(2, size=(4096, 4096), codec="mpeg4")
    settings = DecodeSettings(max_memory_bytes=64 << 20, threads=1)
    with (
        DecoderPool(settings) as pool,
        pytest.raises((InvalidVideo, LimitExceeded)),
        closing(open_video(data, pool=pool)) as video,
    ):
        list(video.windows(PLAN))


def test_a_closed_pool_leaves_no_process() -> None:
    with DecoderPool() as pool:
        video = open_video(steady(6), pool=pool)
        processes = [*pool.process_ids, pool.zygote_process_id or 0]
        video.close()
    for process_id in processes:
        assert not Path(f"/proc/{process_id}").exists()
    with pytest.raises(Unavailable, match="closed"):
        open_video(steady(6), pool=pool)


def test_children_go_with_the_process_that_has_the_pool() -> None:
    code = (
        "import time\n"
        "from backtal.video.sandbox import DecoderPool\n"
        "pool = DecoderPool(); pool.start(); worker = pool.lend()\n"
        "print(pool.zygote_process_id, worker.process_id, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        told = [int(word) for word in owner.stdout.readline().split()]
        owner.kill()
    assert len(told) == 2
    deadline = time.monotonic() + 10.0
    while any(is_running(process_id) for process_id in told):
        assert time.monotonic() < deadline, "a decoder outlived its owner"
        time.sleep(0.02)


class ScriptedPool:
    """Lends real workers whose other side says what the test says: a child that was taken over."""

    settings = DecodeSettings(window_timeout_seconds=5.0)

    def __init__(self, *replies: str) -> None:
        self.num_deaths = 0
        self._replies = replies
        self.num_lent = 0

    def open(self, source: Source, limits: VideoLimits) -> IsolatedVideo:
        return IsolatedVideo(self, source, limits)  # type: ignore[arg-type]

    def lend(self) -> Worker:
        self.num_lent += 1
        ours, theirs = socket.socketpair()
        with theirs:
            for reply in self._replies:
                channel.send(theirs, reply.encode())
            # Its orders are never read; the socket keeps them.
            kept = theirs.dup()
        return Worker(ours, 0, lambda *_: self._ended(kept), 5.0)

    def take_back(self, worker: Worker) -> None:
        worker.end()

    def mourn(self) -> None:
        self.num_deaths += 1

    def _ended(self, kept: socket.socket) -> Reaped:
        kept.close()
        return Reaped(exit_code=0, cpu_seconds=0.0, was_killed=True)


OPENED = (
    '{"kind":"opened","container":"a","codec":"b","width":64,"height":48,'
    '"sample_aspect_ratio":[1,1],"duration_seconds":1,"num_frames":1,"frames_per_second":1}'
)


def window(times: str, end: str) -> str:
    return f'{{"kind":"window","presentation_seconds":{times},"end_seconds":{end},"cpu_seconds":0}}'


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        (['{"kind":"opened"}'], "nonsense"),
        (["[" * 100_000], "nonsense"),
        ([OPENED.replace("[1,1]", "[1,0]")], "nonsense"),
        ([OPENED.replace('"width":64', '"width":99999999')], "allowed are up to 35389440"),
        ([OPENED.replace('"duration_seconds":1', '"duration_seconds":1e300')], "is 1000"),
        ([window("[0]", "1")], "it said window"),
        ([OPENED, OPENED], "it said opened"),
        ([OPENED, window("[0]", "1e15")], "allowed are up to 21600 s"),
        ([OPENED, window("[0]", "NaN")], "nonsense"),
        ([OPENED, window("[]", "1")], "nonsense"),
        ([OPENED, window("[0, 0]", "1")], "times that do not rise"),
        ([OPENED, window("[0]", "1"), window("[0.5]", "2")], "times that do not rise"),
        ([OPENED, window(str(list(range(65))), "66")], "a window of 65 frames"),
        ([OPENED, '{"kind":"read","offset":0,"num_bytes":10}'], "bytes that there are not"),
        (
            [OPENED, '{"kind":"finished","num_frames":1,"duration_seconds":1e9,"warnings":[]}'],
            "allowed are up to 21600 s",
        ),
        (
            [OPENED, '{"kind":"finished","num_frames":-1,"duration_seconds":1,"warnings":[]}'],
            "nonsense",
        ),
        ([OPENED, '{"kind":"failed","error":"Internal","message":"x"}'], "nonsense"),
        ([OPENED, '{"kind":"crashed","reason":"so"}'], "crashed the decoder, twice .so."),
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(replies: list[str], says: str) -> None:
    hostile = ScriptedPool(*replies)
    with (
        pytest.raises(InvalidArgument, match=says),
        closing(open_video(steady(6), pool=hostile)) as video,  # type: ignore[arg-type]
    ):
        list(video.windows(PLAN))
    assert hostile.num_lent <= 2


def test_requests_side_by_side_do_not_mix(pool: DecoderPool) -> None:
    found: dict[int, list[int]] = {}

    def work(length: int) -> None:
        with closing(open_video(steady(length), pool=pool)) as video:
            found[length] = numbers(list(video.windows(PLAN, window_frames=3)))

    threads = [threading.Thread(target=work, args=(length,)) for length in (5, 11, 23, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {length: list(range(length)) for length in (5, 11, 23, 40)}


def kill(pool: DecoderPool, end: signal.Signals) -> None:
    """End the one child that decodes, and wait until it is gone."""
    (process_id,) = pool.process_ids
    os.kill(process_id, end)
    wait_until_gone(process_id)


def wait_until_gone(process_id: int) -> None:
    deadline = time.monotonic() + 10.0
    while is_running(process_id):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_running(process_id: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
