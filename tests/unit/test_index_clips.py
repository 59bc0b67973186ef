"""Clips cut by stream copy: which frames they hold, and that their start is told truly."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal import cli
from backtal.errors import InvalidArgument, InvalidVideo, NotFound
from backtal.segments import Segment
from backtal.video.limits import VideoLimits
from backtal.video.source import open_source
from backtal_indexing.cutting import Cut, cut
from backtal_indexing.exports.clips import Clip, NotCut, cut_clips
from backtal_indexing.exports.video import IndexedVideo
from tests.made_index import append, new_index, row, segment
from tests.made_videos import number_of, shifted, steady

# At 25 frames a second; a key frame every 12.
NUM_FRAMES = 44
KEY_FRAME_EVERY = 12


def cut_one(path: Path, start: float, end: float) -> Cut:
    source = open_source(path, VideoLimits())
    try:
        wanted = [(Segment(start, end, "run", 0.5), path.with_name("clip"))]
        (found,) = cut(source, wanted)
    finally:
        source.close()
    return found


def frames(path: Path) -> list[tuple[float, int]]:
    """Seconds and number of each frame that a player shows."""
    with av.open(str(path)) as container:
        return [
            (frame.time, number_of(frame.to_ndarray(format="rgb24")))
            for frame in container.decode(video=0)
        ]


def key_frames(path: Path) -> list[int]:
    """The numbers of the key frames; in AVI, whose only times are those of decoding, too."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        stamps = [
            one.dts if path.suffix == ".avi" or one.pts is None else one.pts
            for one in container.demux(stream)
            if one.is_keyframe
        ]
        return [round((one - stream.start_time) * stream.time_base * 25) for one in stamps]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    made = {
        "plain.mp4": steady(NUM_FRAMES),
        "reordered.mp4": steady(NUM_FRAMES, b_frames=3, sound_seconds=1.7),
        "late.mp4": shifted(steady(NUM_FRAMES, b_frames=2), by_stamps=512 * 10),
        "film.mkv": steady(NUM_FRAMES, container="matroska", b_frames=2),
        "film.ts": steady(NUM_FRAMES, container="mpegts", b_frames=2),
        "film.avi": steady(NUM_FRAMES, container="avi"),
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in made}


NAMES = ("plain.mp4", "reordered.mp4", "late.mp4", "film.mkv", "film.ts", "film.avi")


@settings(max_examples=40)
@given(st.sampled_from(NAMES), st.integers(0, NUM_FRAMES - 2), st.integers(1, NUM_FRAMES))
def test_a_clip_holds_its_segment_and_says_where_it_starts(
    films: dict[str, Path], name: str, first: int, length: int
) -> None:
    last = min(first + length, NUM_FRAMES) - 1
    # Half a frame inside, so that no rounding decides which frame is meant.
    found = cut_one(films[name], (first + 0.5) / 25, (last + 0.5) / 25)
    key_frame = max(one for one in key_frames(films[name]) if one <= first)
    assert found.start_seconds == pytest.approx(key_frame / 25, abs=0.002)
    shown = frames(found.path)
    numbers = [number for _, number in shown]
    assert numbers[0] == key_frame
    assert set(range(key_frame, last + 1)) <= set(numbers)
    # At most what is stored before it is shown.
    assert numbers[-1] <= last + 5
    assert found.end_seconds == pytest.approx((max(numbers) + 1) / 25, abs=0.05)
    origin = shown[0][0]
    for seconds, number in shown:
        assert seconds - origin == pytest.approx((number - key_frame) / 25, abs=0.002)
    assert found.lead_seconds == pytest.approx((first + 0.5 - key_frame) / 25, abs=0.003)


def test_the_sound_comes_along_in_time(films: dict[str, Path]) -> None:
    found = cut_one(films["reordered.mp4"], 1.0, 1.3)
    assert found.start_seconds == pytest.approx(0.96)
    with av.open(str(found.path)) as container:
        (sound,) = container.streams.audio
        times = [float(p.pts * p.time_base) for p in container.demux(sound) if p.pts is not None]
    assert 0 <= times[0] < 0.07
    assert 0.25 < times[-1] < 0.5


def test_the_container_is_one_that_takes_the_codecs(films: dict[str, Path]) -> None:
    kinds = {name: cut_one(path, 0.1, 0.2).path.suffix for name, path in films.items()}
    assert {kind for name, kind in kinds.items() if name.endswith(".mp4")} == {".mp4"}
    assert {kind for name, kind in kinds.items() if not name.endswith(".mp4")} == {".mkv"}


def test_a_video_without_a_first_key_frame_or_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video at all")
    with pytest.raises(InvalidVideo, match="is no video that can be read"):
        cut_one(tmp_path / "no.mp4", 0, 1)
    with pytest.raises(NotFound, match="no such file"):
        cut_one(tmp_path / "none.mp4", 0, 1)


def indexed(uri: str, *segments: Segment) -> IndexedVideo:
    return IndexedVideo(uri, "tiny", 1.76, 25.0, 64, 48, segments)


def test_a_video_that_cannot_be_cut_does_not_stop_the_others(
    films: dict[str, Path], tmp_path: Path
) -> None:
    one = Segment(0.5, 0.6, "run/../jump", 0.5)
    videos = [
        indexed("file:///none.mp4", one),
        indexed("https://host/a.mp4", one),
        indexed("file:///empty.mp4"),
        indexed(films["plain.mp4"].as_uri(), one, one),
    ]
    found = list(cut_clips(videos, tmp_path / "clips"))
    errors = [item.error for item in found if isinstance(item, NotCut)]
    assert [type(error) for error in errors] == [NotFound, InvalidArgument]
    paths = [item.cut.path.name for item in found if isinstance(item, Clip)]
    assert paths == ["plain-000-run____jump.mp4", "plain-001-run____jump.mp4"]


def test_the_command_cuts_and_tells_where_each_clip_starts(
    films: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = new_index(tmp_path / "index")
    uri = films["plain.mp4"].as_uri()
    append(index, [row(uri, segment(0.6, 0.9), segment(1.2, 1.5, "jump"))])
    words = ["index", "export", index.url, "--clips", str(tmp_path / "clips"), "--label", "run"]
    assert cli.main(words) == 0
    assert "1 clips, on average 0.12 s longer at the front" in capsys.readouterr().err
    with (tmp_path / "clips" / "clips.csv").open(newline="") as file:
        (told,) = csv.DictReader(file)
    assert (told["uri"], float(told["start_seconds"])) == (uri, 0.6)
    assert float(told["clip_start_seconds"]) == pytest.approx(0.48)
    assert frames(tmp_path / "clips" / told["file"])[0][1] == KEY_FRAME_EVERY
    append(index, [row("file:///none.mp4", segment(0, 1))])
    assert cli.main(words) == cli.EXIT_FAILED
    assert "not cut: no such file: /none.mp4" in capsys.readouterr().err


def test_a_codec_whose_decoder_is_no_encoder_is_copied_too(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(steady(24, codec="libsvtav1", size=(64, 64)))
    found = cut_one(path, 0.5, 0.7)
    with av.open(str(found.path)) as container:
        assert container.streams.video[0].codec_context.name == "libdav1d"
        shown = len(list(container.decode(video=0)))
    assert shown == round((found.end_seconds - found.start_seconds) * 25)
