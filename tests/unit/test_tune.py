"""`backtal tune`: the search, its cache, and the checkpoint that it writes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.errors import InvalidArgument, InvalidFile
from backtal.evaluation import mean_average_precision
from backtal.features import FeatureProvenance, FeatureSequence
from backtal_training import cas_cache, checkpoint
from backtal_training.cas_cache import VideoCas, detect
from backtal_training.checkpoint import CheckpointDescription
from backtal_training.commands import tune
from backtal_training.localization_search import TIOUS, SearchTrial, best, search
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.unit.bundles import describe

CLASSES = ("c0", "c1")
NUM_VIDEOS, NUM_POSITIONS = 4, 30


def _truth(subset: str = "training") -> GroundTruth:
    """Videos of 30 s with one action of 6 s each."""
    videos = {
        f"v{number}": VideoTruth(
            subset,
            float(NUM_POSITIONS),
            None,
            (Instance(4.0 + number, 10.0 + number, CLASSES[number % 2]),),
        )
        for number in range(NUM_VIDEOS)
    }
    return GroundTruth(videos, CLASSES)


def _features(name: str, video: VideoTruth) -> FeatureSequence:
    random = np.random.default_rng(int(name[1:]))
    values = random.normal(0, 0.3, (4, NUM_POSITIONS)).astype(np.float32)
    (one,) = video.instances
    values[CLASSES.index(one.label), int(one.start_seconds) : int(one.end_seconds)] += 2
    provenance = FeatureProvenance(backbone_sha256=("0" * 64,), clip_plan=describe().clip_plan)
    return FeatureSequence.from_equal_parts(values, video.duration_seconds, provenance=provenance)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """features/, truth.json, and a checkpoint that held out half of the videos."""
    truth = _truth()
    truth.save(tmp_path / "truth.json")
    (tmp_path / "features").mkdir()
    for name, video in truth.videos.items():
        _features(name, video).save(tmp_path / "features" / f"{name}.npz")
    _save_checkpoint(tmp_path / "checkpoint", {"held_out_fraction": 0.5})
    return tmp_path


def _save_checkpoint(folder: Path, selection: dict[str, Any], **settings: Any) -> None:
    torch.manual_seed(0)
    network = BackTALNetwork(
        NetworkSettings(
            feature_dim=4,
            num_classes=2,
            hidden_dim=8,
            embedding_hidden_dim=4,
            embedding_dim=4,
            filter_hidden_dim=4,
        )
    )
    bundle = describe(kind="logits", background=True, magnitude=True, **settings)
    training = {"recipe": {"seed": 3, "selection": selection}}
    checkpoint.save(
        folder,
        CheckpointDescription(bundle=bundle, network=network.settings, training=training),
        network,
    )


def _run(workplace: Path, *words: object, folder: str = "checkpoint") -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    tune.configure(parser)
    given = (
        *(workplace / folder, "--features", workplace / "features"),
        *("--ground-truth", workplace / "truth.json", "--json", workplace / "trials.json"),
    )
    assert tune.run(parser.parse_args([str(word) for word in (*given, *words)])) == 0
    report: dict[str, Any] = json.loads((workplace / "trials.json").read_text())
    return report


def _clear_videos() -> tuple[VideoCas, ...]:
    """CAS that show each action, and a weaker stretch of the class beside it."""
    videos = []
    for name, video in _truth().videos.items():
        (one,) = video.instances
        cas = np.full((3, NUM_POSITIONS), -2.0, dtype=np.float32)
        row = CLASSES.index(one.label)
        cas[row, int(one.start_seconds) : int(one.end_seconds)] = 3.0
        cas[row, int(one.end_seconds) : int(one.end_seconds) + 4] = 1.2
        videos.append(
            VideoCas(name, video.duration_seconds, cas, np.ones(NUM_POSITIONS, np.float32))
        )
    return tuple(videos)


BUNDLE = describe(
    kind="logits", background=True, magnitude=True, cas_thresholds=(0.1,), top_k_ratio=0.2
)


@pytest.fixture(scope="module")
def trials() -> list[SearchTrial]:
    return search(_clear_videos(), _truth(), BUNDLE)


class TestSearch:
    """One setting at a time."""

    def test_the_winner_is_the_best_and_better_than_what_was_there(
        self, trials: list[SearchTrial]
    ) -> None:
        winner = best(trials)
        assert trials[0].settings == BUNDLE.localization
        assert winner.average == max(trial.average for trial in trials) > trials[0].average
        chosen = BUNDLE.model_copy(update={"localization": winner.settings})
        again = mean_average_precision(_truth(), detect(_clear_videos(), chosen), TIOUS)
        assert again.mean_average_precision == winner.mean_average_precision

    def test_the_same_input_gives_the_same_trials_and_none_is_tried_twice(
        self, trials: list[SearchTrial]
    ) -> None:
        settings = [trial.settings for trial in trials]
        assert settings == [one.settings for one in search(_clear_videos(), _truth(), BUNDLE)]
        assert len(set(settings)) == len(settings)

    def test_what_the_network_was_trained_with_stays(self, trials: list[SearchTrial]) -> None:
        assert {trial.settings.top_k_ratio for trial in trials} == {0.2}

    def test_nothing_to_search_on(self) -> None:
        with pytest.raises(InvalidArgument, match="no videos"):
            search((), _truth(), BUNDLE)


def test_the_held_out_videos_and_no_other_are_tuned_on(workplace: Path) -> None:
    report = _run(workplace)
    assert len(report["tuned_on"]["videos"]) == NUM_VIDEOS / 2
    assert report["average"] >= report["before"]
    assert len(report["trials"]) == report["num_trials"] > 30
    other = _run(workplace, "--whole-subset")
    assert len(other["tuned_on"]["videos"]) == NUM_VIDEOS


def test_the_winner_is_in_the_checkpoint_and_the_weights_stay(workplace: Path) -> None:
    folder = workplace / "checkpoint"
    weights = (folder / "weights.safetensors").read_bytes()
    report = _run(workplace)
    description, _ = checkpoint.load(folder)
    assert description.bundle.localization.model_dump(mode="json") == report["winner"]
    assert description.training["tuning"]["average"] == report["average"]
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.json",
        "weights.safetensors",
    ]


def test_the_winner_may_go_into_a_checkpoint_of_the_whole_split(workplace: Path) -> None:
    _save_checkpoint(workplace / "whole", {"held_out_fraction": 0})
    before = (workplace / "checkpoint" / "checkpoint.json").read_bytes()
    report = _run(workplace, "--into", workplace / "whole")
    described, _ = checkpoint.load(workplace / "whole")
    assert described.bundle.localization.model_dump(mode="json") == report["winner"]
    assert (workplace / "checkpoint" / "checkpoint.json").read_bytes() == before
    _save_checkpoint(workplace / "other", {"held_out_fraction": 0}, top_k_ratio=0.5)
    with pytest.raises(InvalidArgument, match=r"top_k_ratio 0.5; the settings are of .* 0.125"):
        _run(workplace, "--into", workplace / "other")


@pytest.mark.parametrize("selection", [{"held_out_fraction": 0}, {"on_test_split": True}])
def test_a_checkpoint_that_saw_every_video_is_refused(
    workplace: Path, selection: dict[str, Any]
) -> None:
    _save_checkpoint(workplace / "whole", {"held_out_fraction": 0.2, **selection})
    with pytest.raises(InvalidArgument, match="trained without held-out videos"):
        _run(workplace, folder="whole")


def test_a_recipe_that_is_none_is_named(workplace: Path) -> None:
    _save_checkpoint(workplace / "odd", {})
    with pytest.raises(InvalidFile, match="odd: training.recipe lacks seed or selection"):
        _run(workplace, folder="odd")


def test_the_cas_is_computed_once(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(workplace)
    assert "CAS computed" in capsys.readouterr().out
    assert (workplace / "checkpoint.cas.npz").is_file()
    _run(workplace)
    assert "CAS read from the cache" in capsys.readouterr().out
    for name in _truth().videos:
        _features("v9", _truth().videos[name]).save(workplace / "features" / f"{name}.npz")
    _run(workplace)
    assert "CAS computed" in capsys.readouterr().out


def test_somebody_elses_file_is_no_cache(workplace: Path) -> None:
    np.savez(workplace / "mine.npz", values=np.zeros(3))
    with pytest.raises(InvalidFile, match=r"mine.npz is no 'backtal CAS cache 1'"):
        _run(workplace, "--cache", workplace / "mine.npz")


def test_what_is_cached_is_loaded(tmp_path: Path) -> None:
    videos = _clear_videos()
    cas_cache.save(tmp_path / "cas.npz", "ab", videos)
    loaded = cas_cache.load(tmp_path / "cas.npz", "ab")
    assert loaded is not None
    for ours, theirs in zip(loaded, videos, strict=True):
        assert (ours.name, ours.duration_seconds) == (theirs.name, theirs.duration_seconds)
        np.testing.assert_array_equal(ours.cas, theirs.cas)
        np.testing.assert_array_equal(ours.magnitude, theirs.magnitude)
    assert cas_cache.load(tmp_path / "cas.npz", "cd") is None
    assert cas_cache.load(tmp_path / "none.npz", "ab") is None


def test_another_corpus_is_refused(workplace: Path) -> None:
    truth = _truth()
    GroundTruth(truth.videos, ("c1", "c0")).save(workplace / "truth.json")
    with pytest.raises(InvalidArgument, match=r"has classes c1, c0; the checkpoint c0, c1"):
        _run(workplace)
