"""The simulation on THUMOS14's timelines, and the ablation's bookkeeping."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.clicks import Clicks
from backtal.errors import InvalidFile
from backtal_training import ablation
from backtal_training.ablation_arms import ARMS
from backtal_training.ablation_table import Measured, write_document
from backtal_training.click_sources import fraction_inside
from backtal_training.settings import DEMO_RECIPE, Recipe
from backtal_training.simulation import SimulationSettings, _Directions, simulate_features
from tests import synthetic
from tests.requirements import shared_folder

CLASSES = ("jump", "run")
VIDEO = VideoTruth("val", 64.0, 25, (Instance(6.4, 12.8, "run"), Instance(32, 33, "run")))


def test_action_context_and_scene_are_where_they_should_be() -> None:
    settings = SimulationSettings(strength_spread=0, context_fraction=0.4)
    directions = _Directions(settings, CLASSES)
    along = {
        name: np.concatenate(
            [
                simulate_features(f"v{number}", VIDEO, directions).values.T @ rows[1]
                for number in range(200)
            ]
        ).reshape(200, 100)
        for name, rows in (("action", directions.actions), ("scene", directions.scenes))
    }
    inside, outside = along["action"][:, 10:20].mean(), along["action"][:, 60:].mean()
    context = settings.context_strength * settings.context_cosine * settings.context_fraction
    assert inside - outside == pytest.approx(settings.action_strength - context, abs=0.5)
    assert np.ptp(along["scene"].mean(axis=0)[60:]) < 1.5
    assert directions.contexts[1] @ directions.actions[1] == pytest.approx(0.6)


def test_a_videos_features_are_its_own_alone() -> None:
    directions = _Directions(SimulationSettings(), CLASSES)
    one, again = (simulate_features("a", VIDEO, directions).values for _ in range(2))
    other = simulate_features("b", VIDEO, directions).values
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_the_simulation_has_every_video_and_the_planted_errors() -> None:
    folder = shared_folder() / "thumos14"
    sources = ablation.Sources(thumos14=folder, clicks_inside=0.3)
    corpus = ablation.load_corpus(sources, "simulation", "windows")
    assert (len(corpus.training), len(corpus.test)) == (200, 210)
    assert all(not len(sample.click_positions) for sample in corpus.test)
    clicked = [
        sample.frame_labels[sample.click_positions] < 20
        for sample in corpus.training
        if len(sample.click_positions)
    ]
    assert 0.2 < np.concatenate(clicked).mean() < 0.4


def test_errors_are_planted_in_the_generated_corpus_too(folder: Path) -> None:
    paths = (folder / "features", folder / "truth.json", folder / "clicks.txt")
    clicks = Clicks.load(folder / "clicks.txt")
    truth = GroundTruth.load(folder / "truth.json").subset("training")
    assert fraction_inside(clicks, truth) == 0
    true, planted = (
        ablation.load_corpus(ablation.Sources(*paths, clicks_inside=part), "corpus", "windows")
        for part in (None, 0.5)
    )
    inside = [
        np.concatenate(
            [
                sample.frame_labels[sample.click_positions] < len(truth.classes)
                for sample in corpus.training
            ]
        ).mean()
        for corpus in (true, planted)
    ]
    assert inside[0] < 0.1
    assert 0.3 < inside[1] < 0.7


def test_every_arm_is_a_recipe() -> None:
    from backtal.settings import read_yaml

    base = read_yaml(Recipe, DEMO_RECIPE)
    for name, arm in ARMS.items():
        if arm.temporal == "windows":
            recipe = arm.recipe(base, seed=3)
            assert (recipe.seed, recipe.selection.held_out_fraction) == (3, 0), name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = synthetic.corpus(8, 4)
    (tmp_path / "features").mkdir()
    for name, sequence in corpus.sequences.items():
        sequence.save(tmp_path / "features" / f"{name}.npz")
    corpus.truth.save(tmp_path / "truth.json")
    corpus.clicks.save(tmp_path / "clicks.txt", 3)
    return tmp_path


def test_the_command_keeps_what_is_done_and_writes_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = folder / "demo.yaml"
    text, changed = re.subn(r"epochs: \d+", "epochs: 2", DEMO_RECIPE.read_text())
    assert changed == 1
    recipe.write_text(text)
    monkeypatch.setattr(ablation, "DEMO_RECIPE", recipe)
    sources = ablation.Sources(folder / "features", folder / "truth.json", folder / "clicks.txt")
    state = ablation.State(folder / "state.jsonl")
    for task in ablation.tasks(sources, ("released", "method"), 1, "test"):
        state.add(task, ablation.run_task(sources, task))
    words = [
        *("--features", str(folder / "features"), "--ground-truth", str(folder / "truth.json")),
        *("--clicks", str(folder / "clicks.txt"), "--state", str(folder / "state.jsonl")),
        *("--arms", "released", "method", "--seeds", "1", "--to", str(folder / "table.md")),
    ]
    assert ablation.main(words) == 0
    text = (folder / "table.md").read_text()
    for title in ("chance", "scene alone", ARMS["released"].title, ARMS["method"].title):
        assert f"| {title} | 1 |" in text
    assert len((folder / "state.jsonl").read_text().splitlines()) == 4
    (folder / "state.jsonl").write_text("words\n")
    with pytest.raises(InvalidFile, match="line 1 is no finished run"):
        ablation.State(folder / "state.jsonl")
    assert ablation.main(["--state", str(folder / "none")]) == 1
    assert "give --features" in capsys.readouterr().err


def test_differences_are_of_runs_with_the_same_seed() -> None:
    measured = {
        ("corpus", "released", 0): Measured([0.1, 0.3], 1.0),
        ("corpus", "released", 1): Measured([0.3, 0.5], 1.0),
        ("corpus", "method", 1): Measured([0.5, 0.7], 58.0),
    }
    text = write_document(measured, part="test", tious=(0.3, 0.7))
    (row,) = [line for line in text.splitlines() if ARMS["method"].title in line]
    assert row.split(" | ")[1:4] == ["1", "0.600", "0.200"]
    assert "less released" in text
    against = write_document(measured, part="test", tious=(0.3, 0.7), reference="method")
    (row,) = [line for line in against.splitlines() if ARMS["released"].title in line]
    assert row.split(" | ")[3] == "-0.200"
    assert "took 1 minutes" in text
    assert "1 to 2 seeds a row, and no row was tuned" in text
    assert json.dumps(vars(measured["corpus", "method", 1]))
