"""Files of the generated corpus: the same bytes again, whole, and made only once."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest

from backtal.errors import InvalidArgument
from backtal_training.commands import corpus as command
from backtal_training.corpus import (
    CorpusPlan,
    CorpusSettings,
    frames,
    plan,
    render,
    video_path,
    write_corpus,
)
from backtal_training.corpus.scenes import SCENES, paint_scene

SMALL = CorpusSettings(
    training_videos_per_class=1,
    test_videos_per_class=0,
    width_pixels=96,
    height_pixels=72,
    min_video_seconds=11.0,
    max_video_seconds=12.0,
    max_instances=2,
    supersampling=1,
)


@pytest.fixture(scope="module")
def small() -> CorpusPlan:
    return plan(SMALL)


@pytest.fixture
def two_files(small: CorpusPlan, tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    render(small.videos[0], first, SMALL)
    render(small.videos[0], second, SMALL)
    return first, second


def test_a_slice_is_the_same_again(two_files: tuple[Path, Path]) -> None:
    first, second = two_files
    assert first.read_bytes() == second.read_bytes()


def test_the_file_decodes_to_what_is_declared(
    small: CorpusPlan, two_files: tuple[Path, Path]
) -> None:
    video = small.videos[0]
    with av.open(str(two_files[0])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (96, 72)
        assert stream.average_rate == 25
        assert stream.frames == video.num_frames
        times, keys = [], []
        for frame in container.decode(stream):
            times.append(float(frame.time))
            keys.append(frame.key_frame)
    np.testing.assert_allclose(times, np.arange(video.num_frames) / 25, atol=1e-3)
    key_frames = np.flatnonzero(keys)
    assert key_frames[0] == 0
    assert np.diff(key_frames).max() <= SMALL.keyframe_interval_frames


def test_frames_move_in_background_and_in_action(small: CorpusPlan) -> None:
    video = small.videos[0]
    drawn = np.stack(list(frames(video, SMALL))).astype(np.float32)
    assert drawn.shape == (video.num_frames, 72, 96, 3)
    change = np.abs(np.diff(drawn, axis=0)).mean(axis=(1, 2, 3))
    assert change.min() > 0.1


@pytest.mark.parametrize("kind", sorted(SCENES))
def test_scenes_differ_between_videos(kind: str) -> None:
    first, again, other = (paint_scene(kind, 96, 72, Random(seed)) for seed in (1, 1, 2))
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.picture.tobytes() != other.picture.tobytes()
    assert 0 < first.ground_top_pixels < 72


def test_finished_videos_are_kept_and_damaged_ones_made_again(
    small: CorpusPlan, tmp_path: Path
) -> None:
    videos = small.videos[:2]
    seen: list[str] = []
    record = write_corpus(
        tmp_path, small, videos=videos, on_video=lambda video: seen.append(video.name)
    )
    assert sorted(seen) == sorted(record.videos) == [video.name for video in videos]
    kept, damaged = (video_path(tmp_path, video.name) for video in videos)
    time, whole = kept.stat().st_mtime_ns, damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    again = write_corpus(tmp_path, small, videos=videos)
    assert again == record
    assert kept.stat().st_mtime_ns == time
    assert damaged.read_bytes() == whole
    assert not list(tmp_path.rglob("*.part"))


def test_other_settings_keep_nothing(small: CorpusPlan, tmp_path: Path) -> None:
    write_corpus(tmp_path, small, videos=small.videos[:1])
    other = plan(SMALL.model_copy(update={"seed": 10}))
    record = write_corpus(tmp_path, other, videos=())
    assert record.videos == {}


def test_processes_make_the_same_bytes(small: CorpusPlan, tmp_path: Path) -> None:
    videos = small.videos[:2]
    alone = write_corpus(tmp_path / "alone", small, videos=videos, jobs=1)
    together = write_corpus(tmp_path / "together", small, videos=videos, jobs=2)
    assert alone.videos == together.videos


def test_jobs_must_be_positive(small: CorpusPlan, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="jobs is 0"):
        write_corpus(tmp_path, small, jobs=0)


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(arguments))


def test_the_command_writes_labels_of_the_whole_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import backtal_training.corpus as package

    # The settings' fields are the demo's; a small picture keeps the test quick.
    monkeypatch.setattr(package, "CorpusSettings", lambda seed=9: SMALL)
    assert _run(str(tmp_path), "--only", "training_0002", "--jobs", "1") == 0
    assert "1 videos" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["training_0002.mp4"]
    database = json.loads((tmp_path / "ground_truth.json").read_text())["database"]
    assert len(database) == 6
    assert (tmp_path / "clicks.txt").read_bytes().startswith(b"\xef\xbb\xbfURLID")
    assert set(json.loads((tmp_path / "corpus.json").read_text())["videos"]) == {"training_0002"}


def test_the_command_refuses_a_negative_seed(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="seed is -1"):
        _run(str(tmp_path), "--seed", "-1")
