from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backtal.errors import InvalidArgument, InvalidVideo, LimitExceeded, NotFound
from backtal.manifest import ClipPlan
from backtal.video import DecodeReport, VideoLimits, Window, open_video
from backtal.video.pyav import _Decoding
from tests.integration.videos import sound_only
from tests.made_videos import Layout, encode, number_of, shifted, steady
from tests.mutations import mutated

# More ticks than frames, so that every frame is asked for.
PLAN = ClipPlan(
    frames_per_second=240,
    frames_per_clip=1,
    stride_frames=1,
    short_side_pixels=32,
    crop_pixels=24,
)


def decode(
    source: bytes | Path, *, allow_partial: bool = False, limits: VideoLimits | None = None
) -> tuple[list[float], list[int], DecodeReport]:
    """The times and numbers of all frames."""
    with closing(open_video(source, limits)) as video:
        windows = list(video.windows(PLAN, window_frames=5, allow_partial=allow_partial))
        report = video.report
    times = [time for window in windows for time in window.presentation_seconds.tolist()]
    numbers = [number_of(frame) for window in windows for frame in window.frames]
    return times, numbers, report


def frames_of(data: bytes, plan: ClipPlan = PLAN) -> NDArray[np.uint8]:
    with closing(open_video(data)) as video:
        return np.concatenate([window.frames for window in video.windows(plan)])


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi", "flv", "mov"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_frames_come_in_order_at_their_times(container: str, b_frames: int) -> None:
    times, numbers, report = decode(steady(12, container=container, b_frames=b_frames))
    assert numbers == list(range(12))
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
    assert report.num_frames == 12
    assert report.duration_seconds == pytest.approx(0.48, abs=2e-3)


def test_windows_are_bounded_and_join_up() -> None:
    with closing(open_video(steady(12))) as video:
        windows = list(video.windows(PLAN, window_frames=5))
    assert [len(window.frames) for window in windows] == [5, 5, 2]
    ends = [window.end_seconds for window in windows]
    assert ends == pytest.approx([0.2, 0.4, 0.48])
    assert windows[1].presentation_seconds[0] == windows[0].end_seconds
    assert windows[0].frames.shape == (5, 24, 24, 3)
    assert windows[0].frames.dtype == np.uint8


def test_a_variable_frame_rate_keeps_its_times() -> None:
    stamps = [0, 1, 2, 10, 11, 40]
    times, numbers, report = decode(encode(Layout(stamps=stamps)))
    assert times == pytest.approx([stamp / 25 for stamp in stamps])
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert report.duration_seconds == pytest.approx(41 / 25)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_late_start_is_time_0(container: str) -> None:
    ticks = 12800 // 25
    late = shifted(steady(12), by_stamps=10 * ticks, container=container)
    times, numbers, report = decode(late)
    assert numbers == list(range(12))
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
    assert report.duration_seconds == pytest.approx(0.48, abs=2e-3)


def test_frames_that_an_edit_list_cuts_off_are_not_shown() -> None:
    ticks = 12800 // 25
    times, numbers, report = decode(shifted(steady(24), by_stamps=-5 * ticks))
    assert numbers == list(range(5, 24))
    assert times == pytest.approx([i / 25 for i in range(19)])
    assert report.warnings == ()
    assert report.duration_seconds == pytest.approx(0.76)


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    data = steady(12)
    path = tmp_path / "video.mp4"
    path.write_bytes(data)
    assert decode(path) == decode(data)


def test_the_description_is_what_the_file_declares() -> None:
    data = steady(12, size=(96, 48), sample_aspect_ratio=Fraction(4, 3))
    with closing(open_video(data)) as video:
        about = video.description
    assert (about.width, about.height, about.codec) == (96, 48, "h264")
    assert about.sample_aspect_ratio == Fraction(4, 3)
    assert about.duration_seconds == pytest.approx(0.48)
    assert (about.num_frames, about.frames_per_second) == (12, 25.0)
    assert about.num_bytes == len(data)


def test_the_frame_size_may_change_midway() -> None:
    # Two MPEG-TS files one after the other, as a broadcast has it.
    data = steady(6, container="mpegts") + steady(6, container="mpegts", size=(80, 80))
    with closing(open_video(data)) as video:
        frames = np.concatenate(
            [window.frames for window in video.windows(PLAN, allow_partial=True)]
        )
    assert frames.shape[1:] == (24, 24, 3)
    assert [number_of(frame) for frame in frames] == [*range(6), *range(6)]


def test_frames_between_the_ticks_are_not_scaled() -> None:
    sparse = PLAN.model_copy(update={"frames_per_second": 5.0})
    with closing(open_video(steady(24))) as video:
        windows = list(video.windows(sparse))
        assert video.report.num_frames == 24
    numbers = [number_of(frame) for window in windows for frame in window.frames]
    assert numbers == [0, 5, 10, 15, 20]


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty: 0 bytes"),
    "text": (b"these are words, no video\n" * 40, r"1040 bytes\) is no video that can be read"),
    "zeros": (bytes(5000), "no video that can be read"),
    "sound": (sound_only(), "no video stream that can be decoded, it has: audio"),
    "concat": (b"ffconcat version 1.0\nfile /etc/hostname\n", "no video that can be read"),
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n",
        "no video that can be read",
    ),
    "session": (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "no video that can be read",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(InvalidVideo, match=message):
        decode(data, allow_partial=True)


def test_a_playlist_opens_neither_its_neighbour_nor_the_network(tmp_path: Path) -> None:
    (tmp_path / "neighbour.mp4").write_bytes(steady(6))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        playlist = tmp_path / "playlist.mp4"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{address}\n")
        concat = tmp_path / "concat.mp4"
        concat.write_text("ffconcat version 1.0\nfile neighbour.mp4\n")
        for path in (playlist, concat):
            with pytest.raises(InvalidVideo):
                decode(path)
        with pytest.raises(TimeoutError):
            server.accept()


def cut_short(container: str, **changes: object) -> bytes:
    data = steady(24, container=container, **changes)
    return data[: len(data) * 2 // 3]


TRUNCATED = {
    "mp4, index in front": cut_short("mp4", movflags="faststart"),
    "matroska": cut_short("matroska"),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_is_refused_or_answered_in_part(name: str) -> None:
    data = TRUNCATED[name]
    with pytest.raises(InvalidVideo, match="allow_partial"):
        decode(data)
    _, numbers, report = decode(data, allow_partial=True)
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < 24
    assert any("declares 0.96 s" in warning for warning in report.warnings)


def test_an_mp4_without_its_index_is_refused() -> None:
    with pytest.raises(InvalidVideo, match="no video that can be read"):
        decode(cut_short("mp4"), allow_partial=True)


def test_frames_that_are_declared_but_not_there_are_told() -> None:
    data = steady(24, movflags="faststart")
    start = data.index(b"mdat") + 4
    with pytest.raises(InvalidVideo, match=r"declares 24 frames and 0\.96 s, no frame of it"):
        decode(data[:start] + bytes(len(data) - start), allow_partial=True)


def test_sound_may_go_on_without_pictures() -> None:
    _, numbers, report = decode(steady(12, container="matroska", sound_seconds=4.0))
    assert numbers == list(range(12))
    assert report.duration_seconds == pytest.approx(0.48, abs=2e-3)
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": 1000}, r"has \d+ bytes, allowed are up to 1000"),
        ({"max_duration_seconds": 0.4}, r"is 0\.48 s long, allowed are up to 0\.4 s"),
        ({"max_pixels": 3071}, "64x48, 3072 pixels, allowed are up to 3071"),
        ({"max_frames": 11}, "has 12 frames or more, allowed are up to 11"),
        ({"max_frame_seconds": 0.03}, r"one frame for 0\.04 s, allowed are up to 0\.03 s"),
        ({"max_aspect_ratio": 1.3}, r"aspect ratio of 1\.3, allowed are up to 1\.3"),
    ],
)
def test_limits_are_held_and_named(limits: dict[str, float], message: str) -> None:
    with pytest.raises(LimitExceeded, match=message):
        decode(steady(12), limits=VideoLimits.model_validate(limits))


def test_streams_are_counted() -> None:
    data = steady(6, sound_seconds=0.5)
    with pytest.raises(LimitExceeded, match="has 2 streams, allowed are up to 1"):
        decode(data, limits=VideoLimits(max_streams=1))


def test_hours_of_one_frame_are_refused() -> None:
    # 3 kB that would be 90,000 frames of the clip plan.
    data = encode(Layout(stamps=[0, 25, 25 * 3600]))
    assert len(data) < 4000
    with pytest.raises(LimitExceeded, match=r"one frame for 3599\.00 s, allowed are up to 300 s"):
        decode(data)


def test_frames_that_are_not_declared_are_counted_while_decoding() -> None:
    live = steady(24, container="mpegts")
    with pytest.raises(LimitExceeded, match="has 12 frames or more, allowed are up to 11"):
        decode(live, limits=VideoLimits(max_frames=11))


def test_a_duration_that_is_not_declared_is_held_while_decoding() -> None:
    live = steady(24, movflags="frag_keyframe+empty_moov", container="mp4")
    limits = VideoLimits(max_duration_seconds=0.5)
    with pytest.raises(LimitExceeded, match=r"allowed are up to 0\.5 s"):
        decode(live, limits=limits)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi", "flv"])
def test_damage_gives_an_answer_or_an_error_of_ours(container: str) -> None:
    random = np.random.default_rng(5)
    data = steady(12, container=container, b_frames=2)
    limits = VideoLimits(max_duration_seconds=60)
    num_refused = 0
    for number in range(12):
        try:
            decode(mutated(data, random), allow_partial=number % 2 == 0, limits=limits)
        except InvalidArgument:
            num_refused += 1
    assert num_refused > 0


def test_a_title_in_another_encoding_is_no_reason_to_refuse() -> None:
    data = steady(6)
    assert b"Lavf" in data
    assert decode(data.replace(b"Lavf", b"L\xe4vf"))[1] == list(range(6))


def test_a_path_must_be_a_file_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.mp4"):
        open_video(tmp_path / "nothing.mp4")
    with pytest.raises(InvalidVideo, match="no regular file"):
        open_video(tmp_path)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with pytest.raises(InvalidVideo, match="no regular file"):
        open_video(pipe)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(steady(6))
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("this system does not list a process's descriptors")
    before = sorted(descriptors.iterdir())
    for source in (path, path.read_bytes(), b"text" * 100, b""):
        with suppress(InvalidVideo):
            decode(source)
    assert sorted(descriptors.iterdir()) == before


def test_windows_may_be_left_early() -> None:
    with closing(open_video(steady(24))) as video:
        windows: Iterator[Window] = video.windows(PLAN, window_frames=5)
        next(windows)
        with pytest.raises(RuntimeError, match="not exhausted"):
            _ = video.report


def test_decord_is_for_files_that_are_trusted() -> None:
    with pytest.raises(InvalidArgument, match="pyav"):
        open_video(steady(6), decoder="decord")
    with pytest.raises(InvalidArgument, match="decoder is 'other', allowed are"):
        open_video(steady(6), decoder="other")  # type: ignore[arg-type]


def test_a_packet_of_a_stream_that_pyav_does_not_know_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that begins in the middle of a file; PyAV then looks beyond its list of streams."""
    real = _Decoding._demux
    calls: list[bool] = []

    def demux(decoding: _Decoding, every: bool) -> Iterator[Any]:
        calls.append(every)
        packets = real(decoding, every)
        if len(calls) == 1:
            yield from islice(packets, 3)
            raise IndexError("list index out of range")
        yield from packets

    monkeypatch.setattr(_Decoding, "_demux", demux)
    _, numbers, _ = decode(steady(12, b_frames=2))
    assert numbers == list(range(12))
    assert len(calls) == 2
