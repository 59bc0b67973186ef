"""What is committed for the demo is what its one command makes again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from backtal.annotations import GroundTruth
from backtal.evaluation import mean_average_precision
from backtal.features import FeatureSequence
from backtal.pipeline import Pipeline, Request
from backtal.runtime import OnnxStages, load_bundle
from backtal.settings import read_yaml
from backtal_export.repository import write_bundle
from backtal_training.corpus import CorpusSettings, plan
from backtal_training.settings import DEMO_RECIPE, Recipe
from tests.i3d_weights import real_weights

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[2] / "demo"
# Kept in float16, and made by another processor's order of additions.
FEATURE_TOLERANCE = 2e-3
MAP_TOLERANCE = 0.1


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """demo/make.py, which is a script and no package's module."""
    spec = importlib.util.spec_from_file_location("demo_make", DEMO / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def truth() -> GroundTruth:
    return GroundTruth.load(DEMO / "ground_truth.json").subset("test")


def check_features(made: Path, kept: Path) -> None:
    new, old = FeatureSequence.load(made), FeatureSequence.load(kept)
    assert new.provenance == old.provenance
    np.testing.assert_array_equal(new.clip_start_seconds, old.clip_start_seconds)
    assert new.num_frames_decoded == old.num_frames_decoded
    # Else features of zeros would pass.
    assert old.values.std() > 0.05
    np.testing.assert_allclose(new.values, old.values, atol=FEATURE_TOLERANCE)


def map_at_half(checkpoint: Path, features: Path, truth: GroundTruth, repository: Path) -> float:
    write_bundle(repository, checkpoint, say=lambda _: None)
    manifest = load_bundle(repository, "demo")
    pipeline = Pipeline(manifest, OnnxStages(repository, manifest))
    found = {
        name: pipeline.run(
            Request(features=FeatureSequence.load(features / f"{name}.npz"))
        ).segments
        for name in truth.videos
    }
    return mean_average_precision(truth, found, (0.5,)).average


def test_the_features_of_every_held_out_video_are_there(truth: GroundTruth) -> None:
    planned = {video.name for video in plan(CorpusSettings()).videos if video.subset == "test"}
    assert set(truth.videos) == planned
    assert {path.stem for path in (DEMO / "features").iterdir()} == planned


def test_the_checkpoint_is_by_the_recipe() -> None:
    training = json.loads((DEMO / "checkpoint/checkpoint.json").read_text())["training"]
    assert training["recipe"] == read_yaml(Recipe, DEMO_RECIPE).model_dump(mode="json")
    assert training["num_videos"] == 60


def test_what_is_committed_is_small() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6


def test_a_slice_is_made_again(make: ModuleType, truth: GroundTruth, tmp_path: Path) -> None:
    real_weights()
    name = min(truth.videos, key=lambda video: (truth.videos[video].duration_seconds, video))
    make.make_features(tmp_path, name)
    made = GroundTruth.load(tmp_path / "corpus/ground_truth.json").subset("test")
    assert made.videos == truth.videos
    check_features(tmp_path / f"features/{name}.npz", DEMO / f"features/{name}.npz")


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_the_whole_is_made_again(make: ModuleType, truth: GroundTruth, tmp_path: Path) -> None:
    work, target = tmp_path / "work", tmp_path / "demo"
    make.make_features(work)
    make.train(work, target)
    make.keep(work, target)
    for name in truth.videos:
        check_features(target / f"features/{name}.npz", DEMO / f"features/{name}.npz")
    committed = map_at_half(DEMO / "checkpoint", DEMO / "features", truth, tmp_path / "old")
    again = map_at_half(target / "checkpoint", target / "features", truth, tmp_path / "new")
    assert again == pytest.approx(committed, abs=MAP_TOLERANCE)
