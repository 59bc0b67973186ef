"""Every file of the shared media through the decoder: what it gives, or why it is refused."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from backtal.clips import ClipAssembler, num_clips
from backtal.errors import BacktalError, InvalidVideo, MissingDependency
from backtal.manifest import ClipPlan
from backtal.video import DecodeReport, DecoderName, VideoLimits, open_video
from backtal.video.sandbox import DecoderPool
from tests.requirements import require, shared_folder

# Every frame is asked for, and none is enlarged much.
EVERY_FRAME = ClipPlan(
    frames_per_second=240,
    frames_per_clip=1,
    stride_frames=1,
    short_side_pixels=64,
    crop_pixels=56,
)


class Whole(NamedTuple):
    """A file that decodes: its frames and how long they last."""

    num_frames: int
    duration_seconds: float


@dataclass(frozen=True)
class Refused:
    """A file that is refused, and what is left of it with `allow_partial`, if anything."""

    reason: str
    partial: Whole | None = None
    warning: str = ""


EXPECTED: dict[str, Whole | Refused] = {
    "broken/decord_corrupted.mp4": Refused(
        r"damaged after 2\.70 s", Whole(49, 5.0), "1 packets could not be decoded"
    ),
    "broken/decord_unordered.mov": Whole(4, 0.125),
    "broken/decord_video_0.mov": Whole(3, 0.1),
    "broken/decord_video_90.mov": Whole(3, 0.1),
    "broken/decord_video_180.mov": Whole(3, 0.1),
    "broken/decord_video_270.mov": Whole(3, 0.1),
    "broken/mediabunny_annex-b.mp4": Refused(
        r"declares 35\.23 s, 0\.50 s can be decoded", Whole(6, 0.5), "declares 35.23 s"
    ),
    "broken/mediabunny_cursed-vfr.mp4": Whole(63, 8.7255),
    "broken/mediabunny_frames.webm": Whole(100, 3.333),
    "broken/mediabunny_no-initial-keyframe.ts": Refused(
        r"declares 2\.64 s, 0\.50 s can be decoded", Whole(15, 0.4994), "declares 2.64 s"
    ),
    "broken/mediabunny_sar_2x1.mp4": Whole(150, 5.0),
    "broken/mp4parse_afconvert-aac-0.5s.mp4": Refused("no video stream .*, it has: audio"),
    "broken/mp4parse_chunk_out_of_range.mp4": Refused("no video that can be read"),
    "broken/mp4parse_invalid_userdata.mp4": Refused(
        r"declares 5544 frames and 231\.23 s, no frame of it can be decoded"
    ),
    "broken/mp4parse_minimal.mp4": Whole(1, 0.04),
    "broken/mp4parse_no_timescale.mp4": Refused(
        r"damaged after 0\.23 s", Whole(170, 6.0424), "12 packets could not be decoded"
    ),
    "broken/mp4parse_short-cenc.mp4": Refused(
        r"declares 10 frames and 0\.42 s, no frame of it can be decoded: it is encrypted"
    ),
    "broken/mp4parse_tiny_av1.mp4": Whole(1, 1 / 24),
    "broken/mp4parse_white.mp4": Whole(300, 10.0),
    "broken/torchcodec_av1_video.mkv": Whole(125, 5.0),
    "broken/torchcodec_h264_10bits.mp4": Whole(30, 1.0),
    "broken/torchcodec_h265_video.mp4": Whole(10, 1.0),
    "clips/anet_v_GGSY1Qvo990.mp4": Whole(355, 18.0938),
    "clips/askanything_playing_guitar.mp4": Whole(300, 10.0),
    "clips/askanything_yoga.mp4": Whole(300, 10.0),
    "clips/decord_flipping_a_pancake.mkv": Whole(310, 10.333),
    "clips/felix_exercise.avi": Whole(393, 39.3),
    "clips/mmaction2_arm_wrestling.mp4": Whole(280, 10.0),
    "clips/mmaction2_basketball.mp4": Whole(300, 10.01),
    "clips/mmskeleton_skateboarding.mp4": Whole(300, 10.01),
    "clips/paddlevideo_example.avi": Whole(131, 5.24),
    "clips/univtg_charades.mp4": Whole(460, 30.6973),
    "clips/videoswin_test.avi": Whole(164, 6.56),
    "i3d/v_CricketShot_g04_c01_rgb.gif": Whole(79, 3.16),
}
WHOLE = [name for name, expected in EXPECTED.items() if isinstance(expected, Whole)]
REFUSED = [name for name, expected in EXPECTED.items() if isinstance(expected, Refused)]

# decord's FFmpeg of 2020 has no AV1; it reads one frame of this AVI, and none of the GIF.
NOT_FOR_DECORD = {
    "broken/mp4parse_tiny_av1.mp4",
    "broken/torchcodec_av1_video.mkv",
    "clips/videoswin_test.avi",
    "i3d/v_CricketShot_g04_c01_rgb.gif",
}
# decord lets this video end where its last frame begins.
ENDS_EARLY_FOR_DECORD = {"clips/anet_v_GGSY1Qvo990.mp4"}


def media(name: str) -> Path:
    path = shared_folder() / "media" / name
    if not path.is_file():
        require("shared", f"no file ../shared/media/{name}")
    return path


def decode(
    path: Path,
    plan: ClipPlan = EVERY_FRAME,
    *,
    allow_partial: bool = False,
    decoder: DecoderName = "pyav",
    pool: DecoderPool | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.uint8], DecodeReport]:
    opened = open_video(path, VideoLimits(), decoder=decoder, pool=pool, threads=threads)
    with closing(opened) as video:
        windows = list(video.windows(plan, allow_partial=allow_partial))
        report = video.report
    times = np.concatenate([window.presentation_seconds for window in windows])
    return times, np.concatenate([window.frames for window in windows]), report


def check(
    times: NDArray[np.float64], frames: NDArray[np.uint8], report: DecodeReport, expected: Whole
) -> None:
    assert report.num_frames == expected.num_frames
    # A frame that is on show for less than a tick may be left out.
    assert 0.99 * report.num_frames <= len(times) == len(frames) <= report.num_frames
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert times[-1] < report.duration_seconds
    assert report.duration_seconds == pytest.approx(expected.duration_seconds, abs=2e-3)
    assert frames.shape[1:] == (56, 56, 3)


def test_every_file_has_its_line_here() -> None:
    folder = shared_folder() / "media"
    found = {
        str(path.relative_to(folder))
        for name in ("broken", "clips", "i3d")
        for path in (folder / name).iterdir()
        if path.suffix not in (".txt", ".npy")
    }
    assert found == set(EXPECTED)


@pytest.mark.parametrize("name", WHOLE)
def test_a_sound_file_gives_its_frames_at_rising_times(name: str) -> None:
    expected = EXPECTED[name]
    assert isinstance(expected, Whole)
    times, frames, report = decode(media(name))
    check(times, frames, report, expected)
    assert report.warnings == ()


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_by_its_reason(name: str) -> None:
    expected = EXPECTED[name]
    assert isinstance(expected, Refused)
    path = media(name)
    with pytest.raises(InvalidVideo, match=expected.reason) as caught:
        decode(path)
    assert str(path) in caught.value.message
    if expected.partial is None:
        with pytest.raises(InvalidVideo, match=expected.reason):
            decode(path, allow_partial=True)
        return
    times, frames, report = decode(path, allow_partial=True)
    check(times, frames, report, expected.partial)
    assert any(expected.warning in warning for warning in report.warnings)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_a_locked_down_child_gives_the_same(
    name: str, allow_partial: bool, pool: DecoderPool
) -> None:
    here, there = outcome(name, allow_partial), outcome(name, allow_partial, pool)
    assert there.error == here.error
    np.testing.assert_array_equal(there.times, here.times)
    np.testing.assert_array_equal(there.frames, here.frames)
    assert there.report == here.report


class Outcome(NamedTuple):
    """All that came of a file: its frames, or the error by kind and words."""

    error: tuple[type[BacktalError], str] | None
    times: NDArray[np.float64]
    frames: NDArray[np.uint8]
    report: DecodeReport | None


def outcome(name: str, allow_partial: bool, pool: DecoderPool | None = None) -> Outcome:
    try:
        found = decode(media(name), allow_partial=allow_partial, pool=pool, threads=1)
    except BacktalError as error:
        return Outcome((type(error), error.message), np.zeros(0), np.zeros(0, np.uint8), None)
    return Outcome(None, *found)


@pytest.mark.parametrize(
    ("name", "num_quarters"),
    [("0", 0), ("90", 3), ("180", 2), ("270", 1)],
)
def test_a_turned_video_stands_upright(name: str, num_quarters: int) -> None:
    path = media(f"broken/decord_video_{name}.mov")
    _, frames, _ = decode(path)
    # Looked at by eye: so turned, the letters of the keyboard in it can be read.
    with av.open(path) as container:
        coded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    top, left = (coded.shape[0] - 280) // 2, (coded.shape[1] - 280) // 2
    middle = coded[top : top + 280, left : left + 280].reshape(56, 5, 56, 5, 3).mean(axis=(1, 3))
    differences = [np.abs(np.rot90(middle, turns) - frames[0]).mean() for turns in range(4)]
    assert int(np.argmin(differences)) == num_quarters
    assert min(differences) < 6


def test_a_sample_aspect_ratio_widens_the_picture() -> None:
    path = media("broken/mediabunny_sar_2x1.mp4")
    plan = EVERY_FRAME.model_copy(update={"frames_per_second": 1.0, "crop_pixels": 64})
    _, frames, _ = decode(path, plan)
    with closing(open_video(path)) as video:
        assert video.description.sample_aspect_ratio == 2
        assert (video.description.width, video.description.height) == (640, 360)
    # 64 of the 228 pixels of the width are left, 64 of 114 had the pixels been taken as square.
    assert frames.shape == (5, 64, 64, 3)


def test_a_backward_step_in_time_is_no_backward_step_of_the_picture() -> None:
    times, frames, report = decode(media("clips/videoswin_test.avi"))
    np.testing.assert_allclose(times, np.arange(164) / 25, atol=1e-9)
    assert report.warnings == ()
    # Sorting by FFmpeg's made-up times would put pictures where they do not belong.
    steps = np.abs(np.diff(frames.astype(int), axis=0)).mean()
    skips = np.abs(frames[2:].astype(int) - frames[:-2]).mean()
    assert steps < skips


@pytest.mark.parametrize("name", ["clips/anet_v_GGSY1Qvo990.mp4", "clips/felix_exercise.avi"])
def test_clips_of_a_real_video_are_as_many_as_its_duration_says(name: str) -> None:
    for stride in (8, 16, 40):
        plan = ClipPlan(stride_frames=stride, short_side_pixels=32, crop_pixels=24)
        assembler = ClipAssembler(plan)
        with closing(open_video(media(name))) as video:
            count = sum(1 for w in video.windows(plan) for _ in assembler.add(w))
            count += sum(1 for _ in assembler.finish())
            assert count == num_clips(plan, video.report.duration_seconds)


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in NOT_FOR_DECORD])
def test_decord_gives_the_same_pixels(name: str) -> None:
    path = media(name)
    try:
        decord = decode(path, decoder="decord")
    except MissingDependency as error:
        require("decord", error.message)
    times, frames, report = decode(path)
    np.testing.assert_allclose(decord[0], times, atol=1e-5)
    np.testing.assert_array_equal(decord[1], frames)
    if name not in ENDS_EARLY_FOR_DECORD:
        assert decord[2].duration_seconds == pytest.approx(report.duration_seconds, abs=1e-5)
