from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest

from backtal import runtime
from backtal.commands import evaluate, features
from backtal.errors import InvalidArgument, NotFound
from backtal.features import FeatureSequence
from backtal.manifest import MANIFEST_NAME
from tests.made_videos import steady
from tests.unit.fake_bundle import FEATURE_DIM, FakeStages, fake_manifest


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose networks are NumPy, and of which only the manifest is a file."""
    monkeypatch.setattr(runtime, "OnnxStages", lambda *arguments: FakeStages())
    folder = tmp_path / "repository" / "fake" / "1"
    folder.mkdir(parents=True)
    fake_manifest().save(folder / MANIFEST_NAME)
    return tmp_path / "repository" / "fake"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    (folder / "one.mp4").write_bytes(steady(20))
    (folder / "more" / "two.mkv").write_bytes(steady(30, container="matroska"))
    (folder / "notes.txt").write_text("no video")
    return folder


def run(module: object, *words: object) -> int:
    parser = argparse.ArgumentParser()
    module.configure(parser)  # type: ignore[attr-defined]
    return module.run(parser.parse_args([str(word) for word in words]))  # type: ignore[attr-defined,no-any-return]


def test_a_folder_becomes_a_folder_of_features(
    bundle: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(features, videos, "--bundle", bundle, "--to", out) == 0
    assert capsys.readouterr().out == "2 written, 0 kept, 0 failed\n"
    one = FeatureSequence.load(out / "one.npz")
    two = FeatureSequence.load(out / "more" / "two.npz")
    assert one.values.shape[0] == two.values.shape[0] == FEATURE_DIM
    assert one.duration_seconds == pytest.approx(0.8)
    assert two.num_frames_decoded == 30
    assert sorted(path.name for path in out.rglob("*.*")) == ["one.npz", "two.npz"]


def test_sound_files_are_kept_and_others_made_again(
    bundle: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (videos, "--bundle", bundle, "--to", out)
    run(features, *words)
    written = (out / "one.npz").read_bytes()
    (out / "more" / "two.npz").write_bytes(written[:100])
    capsys.readouterr()
    assert run(features, *words) == 0
    assert capsys.readouterr().out == "1 written, 1 kept, 0 failed\n"
    assert (out / "one.npz").read_bytes() == written
    assert FeatureSequence.load(out / "more" / "two.npz").num_frames_decoded == 30


def test_a_changed_video_and_a_changed_bundle_are_noticed(
    bundle: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (videos, "--bundle", bundle, "--to", out)
    run(features, *words)
    later = (out / "one.npz").stat().st_mtime + 10
    os.utime(videos / "one.mp4", (later, later))
    capsys.readouterr()
    run(features, *words)
    assert capsys.readouterr().out == "1 written, 1 kept, 0 failed\n"
    os.utime(videos / "one.mp4", (0, 0))
    plan = fake_manifest().description.clip_plan.model_copy(update={"stride_frames": 4})
    fake_manifest(plan=plan).save(bundle / "1" / MANIFEST_NAME)
    run(features, *words)
    assert capsys.readouterr().out == "2 written, 0 kept, 0 failed\n"


def test_a_video_that_fails_is_named_and_the_others_are_done(
    bundle: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "broken.mp4").write_text("words")
    out = tmp_path / "out"
    assert run(features, videos, "--bundle", bundle, "--to", out) == 1
    captured = capsys.readouterr()
    assert captured.out == "2 written, 0 kept, 1 failed\n"
    told = captured.err.replace("\n", "")
    assert "broken.mp4" in told
    assert "no video that can be read" in told.replace("  ", " ")
    assert not (out / "broken.npz").exists()


def test_a_list_of_videos_is_a_source(
    bundle: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = videos / "list.txt"
    listed.write_text("# two videos\none.mp4\n\nmore/two.mkv  # in a folder\n")
    out = tmp_path / "out"
    assert run(features, listed, "--bundle", bundle, "--to", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.npz", "two.npz"]
    listed.write_text("one.mp4\nthree.mp4\n")
    with pytest.raises(NotFound, match=r"list\.txt, line 2: no such file: .*three\.mp4"):
        run(features, listed, "--bundle", bundle, "--to", out)


def test_float16_is_half_as_large(bundle: Path, videos: Path, tmp_path: Path) -> None:
    run(features, videos / "one.mp4", "--bundle", bundle, "--to", tmp_path / "a")
    words = ("--bundle", bundle, "--to", tmp_path / "b", "--dtype", "float16")
    run(features, videos / "one.mp4", *words)
    with np.load(tmp_path / "b" / "one.npz") as archive:
        assert archive["values"].dtype == np.float16
    wide = FeatureSequence.load(tmp_path / "a" / "one.npz").values
    np.testing.assert_allclose(
        FeatureSequence.load(tmp_path / "b" / "one.npz").values, wide, rtol=1e-3
    )


def test_sources_are_checked(bundle: Path, videos: Path, tmp_path: Path) -> None:
    words = ("--bundle", bundle, "--to", tmp_path / "out")
    with pytest.raises(NotFound, match="nowhere"):
        run(features, tmp_path / "nowhere", *words)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match=r"no video in .*empty"):
        run(features, tmp_path / "empty", *words)
    (videos / "one.mkv").write_bytes(steady(6, container="matroska"))
    with pytest.raises(InvalidArgument, match=r"one\.mkv and .*one\.mp4 would both become"):
        run(features, videos, *words)
    with pytest.raises(InvalidArgument, match="--jobs is 0"):
        run(features, videos / "one.mp4", *words, "--jobs", 0)


def test_evaluation_answers_feature_files_with_the_pipeline(
    bundle: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(features, videos / "one.mp4", "--bundle", bundle, "--to", out)
    truth = {
        "database": {
            "one": {
                "subset": "test",
                "duration": 0.8,
                "annotations": [{"segment": [0.1, 0.4], "label": "jump"}],
            }
        },
        "activity_list": ["run", "jump"],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = tmp_path / "results.json"
    capsys.readouterr()
    words = ("--ground-truth", tmp_path / "truth.json", "--subset", "test", "--json", "-")
    offline = ("--features", out, "--bundle", bundle, "--results-to", results)
    assert run(evaluate, *words, *offline) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_videos"] == 1
    assert len(figures["mean_average_precision"]) == 9
    assert run(evaluate, "--from", results, *words) == 0
    assert json.loads(capsys.readouterr().out) == figures


def test_evaluation_wants_one_source_and_all_features(bundle: Path, tmp_path: Path) -> None:
    truth = {"database": {"one": {"subset": "test", "duration": 1, "annotations": []}}}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    with pytest.raises(InvalidArgument, match="either --from or --features"):
        run(evaluate, "--ground-truth", path)
    with pytest.raises(InvalidArgument, match="--features needs --bundle"):
        run(evaluate, "--ground-truth", path, "--features", tmp_path)
    with pytest.raises(InvalidArgument, match=r"no features for 1 of 1 videos: .*one\.npz"):
        run(evaluate, "--ground-truth", path, "--features", tmp_path, "--bundle", bundle)
