"""Data sets in both layouts: what is loaded, what is refused and why, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from backtal.annotations import GroundTruth
from backtal.cli import main
from backtal.errors import InvalidFile, NotFound
from backtal.features import FeatureSequence
from backtal.localization.presets import PRESETS
from backtal.published import PublishedFeatures, save_published
from backtal_training.data_set import DataSet, find, load_split
from backtal_training.settings import Recipe
from tests import synthetic
from tests.requirements import shared_folder

CORPUS = synthetic.corpus(8, 4)
POSITIONS = 30
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "grid": {"position_seconds": 0.64, "window_positions": POSITIONS},
    "network": {"hidden_dim": 12, "embedding_hidden_dim": 6, "filter_hidden_dim": 6},
    "optimizer": {"epochs": 2},
    "selection": {"held_out_fraction": 0.25},
}


def write(folder: Path, **changes: Any) -> Path:
    """A data set of features v1, whose YAML has `changes` on top."""
    (folder / "features").mkdir()
    for name, sequence in CORPUS.sequences.items():
        sequence.save(folder / "features" / f"{name}.npz")
    CORPUS.truth.save(folder / "truth.json")
    CORPUS.clicks.save(folder / "clicks.txt", 3)
    raw = {
        "name": "mine",
        "features": ["features"],
        "ground_truth": "truth.json",
        "clicks": {"source": "files", "files": ["clicks.txt"]},
        "tious": [0.5],
        "recipe": RECIPE,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(raw | changes))
    return path


def published(name: str, **changes: Any) -> PublishedFeatures:
    video = CORPUS.truth.videos[name]
    values = np.random.default_rng(0).standard_normal((8, POSITIONS)).astype(np.float32)
    clicks = np.full(POSITIONS, -100)
    clicks[[3, 20]] = 3
    label = np.array([float(one in video.labels) for one in synthetic.CLASSES], np.float32)
    fields: dict[str, Any] = {
        "video_name": name,
        "values": values,
        "streams": ("rgb", "flow"),
        "class_label": label,
        "click_label": clicks if video.subset == "training" else None,
    }
    return PublishedFeatures(**(fields | changes))


def write_published(folder: Path) -> Path:
    path = write(
        folder,
        layout="published",
        features=["train", "test"],
        clicks={"source": "published"},
        recipe=RECIPE | {"temporal": "resize", "localization": {"preset": "released"}},
    )
    for name, video in CORPUS.truth.videos.items():
        target = folder / ("train" if video.subset == "training" else "test") / f"{name}.npz"
        target.parent.mkdir(exist_ok=True)
        save_published(target, published(name))
    return path


def test_features_of_our_own_are_loaded(tmp_path: Path) -> None:
    data_set, root = find(str(write(tmp_path)))
    split = load_split(data_set, root, "training")
    assert [sample.name for sample in split.samples] == list(CORPUS.truth.subset("training").videos)
    assert split.clicks.num_clicks == CORPUS.clicks.num_clicks
    assert load_split(data_set, root, "test").clicks.num_clicks == 0


def test_published_files_are_loaded_as_they_are(tmp_path: Path) -> None:
    data_set, root = find(str(write_published(tmp_path)))
    for split in ("training", "test"):
        loaded = load_split(data_set, root, split)  # type: ignore[arg-type]
        for sample in loaded.samples:
            expected = published(sample.name)
            np.testing.assert_allclose(sample.features, expected.values, atol=1e-5)
            assert sample.click_positions.tolist() == ([3, 20] if split == "training" else [])
            assert sample.video_labels.tolist() == expected.class_label.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_name": "other"}, "vid_name is 'other'"),
        ({"values": np.zeros((8, 29), np.float32), "click_label": None}, "29 positions, not 30"),
        ({"values": np.full((8, 30), np.nan, np.float32)}, "not finite"),
        ({"class_label": np.array([1, 2, 0], np.float32)}, r"cls_label is \[3\] of"),
        ({"class_label": np.ones(4, np.float32)}, r"cls_label is \[4\]"),
        ({"class_label": np.zeros(3, np.float32)}, r"cls_label says \[\]"),
        ({"click_label": np.full(30, 2)}, r"point_label holds \[2\], allowed 3 and -100"),
    ],
)
def test_a_wrong_published_file_is_named_with_its_reason(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    data_set, root = find(str(write_published(tmp_path)))
    save_published(tmp_path / "train" / "video_002.npz", published("video_002", **changes))
    with pytest.raises(InvalidFile, match=rf"video_002\.npz: .*{message}"):
        load_split(data_set, root, "training")


def test_features_go_to_the_published_layout_and_back(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert main(["datasets", "export", str(path), "--to", str(tmp_path / "out")]) == 0
    for name in ("truth.json", "mine.yaml"):
        (tmp_path / "out" / name).write_text((tmp_path / name).read_text())
    raw = yaml.safe_load(path.read_text())
    raw |= {"layout": "published", "features": ["train", "test"]}
    raw |= {"clicks": {"source": "published"}}
    raw["recipe"] |= {"temporal": "resize", "localization": {"preset": "released"}}
    (tmp_path / "out" / "mine.yaml").write_text(yaml.safe_dump(raw))
    there, root = find(str(tmp_path / "out" / "mine.yaml"))
    resized = DataSet.model_validate(yaml.safe_load(path.read_text()) | {"recipe": raw["recipe"]})
    for ours, theirs in zip(
        load_split(resized, tmp_path, "training").samples,
        load_split(there, root, "training").samples,
        strict=True,
    ):
        np.testing.assert_allclose(theirs.features, ours.features, atol=1e-4)
        assert theirs.click_positions.tolist() == ours.click_positions.tolist()
    words = ["datasets", "import", str(tmp_path / "out" / "mine.yaml")]
    assert main([*words, "--to", str(tmp_path / "again")]) == 0
    again = FeatureSequence.load(tmp_path / "again" / "video_009.npz")
    video = CORPUS.truth.videos["video_009"]
    assert again.num_clips == POSITIONS
    assert again.num_frames_decoded == round(video.duration_seconds * 25)


def test_a_missing_file_is_an_error_and_no_smaller_set(tmp_path: Path) -> None:
    data_set, root = find(str(write(tmp_path)))
    (tmp_path / "features" / "video_009.npz").unlink()
    load_split(data_set, root, "training")
    with pytest.raises(NotFound, match=r"1 of 4 videos of test .*video_009\.npz"):
        load_split(data_set, root, "test")


def test_a_training_video_without_a_label_is_refused(tmp_path: Path) -> None:
    data_set, root = find(str(write(tmp_path)))
    document = json.loads((tmp_path / "truth.json").read_text())
    document["database"]["video_001"]["annotations"] = []
    (tmp_path / "truth.json").write_text(json.dumps(document))
    with pytest.raises(InvalidFile, match="video_001 has no label"):
        load_split(data_set, root, "training")


def test_the_report_counts_and_lists_every_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path)
    assert main(["datasets", "check", str(path), "--json", str(tmp_path / "r.json")]) == 0
    training, test = json.loads((tmp_path / "r.json").read_text())
    truth = CORPUS.truth.subset("training")
    assert training["num_videos"] == training["num_files"] == 8
    assert training["num_instances"] == sum(len(one.instances) for one in truth.videos.values())
    assert training["num_clicks"] == CORPUS.clicks.num_clicks
    assert training["clicks_inside"] == 0
    assert training["num_videos_without_clicks"] == 0
    assert test["num_videos"] == 4
    (tmp_path / "features" / "video_003.npz").write_bytes(b"words")
    (tmp_path / "features" / "video_004.npz").unlink()
    capsys.readouterr()
    assert main(["datasets", "check", str(path)]) == 1
    told = capsys.readouterr().out
    assert "video_003.npz is no .npz" in told
    assert "no features of video_004" in told


def test_a_checkpoint_comes_of_a_data_set_in_one_command(tmp_path: Path) -> None:
    path = write_published(tmp_path)
    assert main(["train", "--data-set", str(path), "--to", str(tmp_path / "made")]) == 0
    made = json.loads((tmp_path / "made" / "checkpoint.json").read_text())
    assert made["training"]["num_videos"] == 8
    assert made["training"]["num_clicks"] == 16
    assert main(["train", "--data-set", str(path), "--features", "x", "--to", "y"]) == 2


@pytest.mark.parametrize("name", ["thumos14", "activitynet12", "hacs"])
def test_built_in_data_sets_have_the_papers_settings(name: str) -> None:
    data_set, _ = find(name)
    ours = data_set.recipe.localization
    preset = {"thumos14": "THUMOS14", "activitynet12": "ActivityNet1.2", "hacs": "HACS"}[name]
    expected = PRESETS[preset]
    for field in type(expected).model_fields:
        assert getattr(ours, field) == pytest.approx(getattr(expected, field)) or (
            field == "top_k_ratio"
        )
    assert data_set.recipe.localization.top_k_ratio == expected.top_k_ratio


def test_unknown_names_and_keys_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="one of activitynet12, hacs, own, thumos14"):
        find("thumos15")
    path = write(tmp_path, layout="features", feature=["x"])
    with pytest.raises(InvalidFile, match="unknown key feature; did you mean features"):
        find(str(path))
    assert isinstance(find("own")[0], DataSet)
    assert isinstance(find("own")[0].recipe, Recipe)


def test_thumos14_clicks_of_people_are_read(tmp_path: Path) -> None:
    folder = shared_folder() / "thumos14"
    main(["datasets", "check", "thumos14", "--root", str(folder), "--json", str(tmp_path / "r")])
    training, test = json.loads((tmp_path / "r").read_text())
    truth = GroundTruth.load(folder / "gt_thumos14.json")
    assert training["num_videos"] == len(truth.subset("val").videos)
    assert (test["num_videos"], test["num_classes"]) == (210, 20)
    assert training["num_videos_without_clicks"] == 0
    assert 0.04 < training["clicks_inside"] < 0.08
    assert len(training["problems"]) == training["num_videos"]
