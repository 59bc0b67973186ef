"""docs/adding-a-backbone.md is true: its backbone, added as it says, from videos to a bundle."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal import cli
from backtal.backbones import find_backbone
from backtal.errors import Internal, InvalidArgument, InvalidFile, MissingDependency
from backtal.features import FeatureSequence
from backtal.pipeline import Pipeline, Request
from backtal.runtime import OnnxStages, load_bundle
from backtal.settings import read_yaml
from backtal_training import checkpoint
from backtal_training.bundle import describe
from backtal_training.network import BackTALNetwork
from backtal_training.settings import DEMO_RECIPE, Recipe
from tests.made_videos import steady

PAGE = (Path(__file__).resolve().parents[2] / "docs/adding-a-backbone.md").read_text("utf-8")


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return text


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str) -> None:
    """A package with that entry point, as an installer leaves it."""
    metadata = folder / "film_colours-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: film-colours\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(folder))


def as_installed(toml: str) -> str:
    """The lines of pyproject.toml as they stand in an installed package."""
    section, line = toml.strip().splitlines()
    group = re.fullmatch(r'\[project\.entry-points\."(.+)"\]', section)
    assert group is not None
    return f"[{group[1]}]\n{line.replace(chr(34), '')}\n"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    install(folder, monkeypatch, as_installed(block("toml")))
    (folder / "film_colours.py").write_text(block("python"))
    monkeypatch.delitem(sys.modules, "film_colours", raising=False)


def commands() -> dict[str, list[str]]:
    lines = re.findall(r"^\$ backtal (.*)$", block("console"), re.M)
    return {words[0]: words[1:] for words in map(shlex.split, lines)}


def run(name: str, words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    module = importlib.import_module(cli.find_commands()[name])
    module.configure(parser)
    return module.run(parser.parse_args(words))


def trained(folder: Path, sequence: FeatureSequence) -> None:
    """A checkpoint as training leaves it after no step at all."""
    recipe = read_yaml(Recipe, DEMO_RECIPE)
    description = describe(recipe, ("jump", "run"), sequence)
    settings = recipe.network.network(feature_dim=sequence.feature_dim, num_classes=2)
    settings = settings.model_copy(update={"hidden_dim": 4, "embedding_hidden_dim": 4})
    torch.manual_seed(0)
    saved = checkpoint.CheckpointDescription(bundle=description, network=settings, training={})
    checkpoint.save(folder, saved, BackTALNetwork(settings))


def test_the_pages_backbone_goes_from_videos_to_a_bundle(
    added, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    video = steady(40)
    Path("videos/one.mp4").write_bytes(video)
    words = commands()
    assert run("features", words["features"]) == 0
    sequence = FeatureSequence.load(Path("features/one.npz"))
    # Grey frames that grow lighter: the three channels of each clip are alike, and rise.
    assert sequence.values.shape == (3, 3)
    assert (np.ptp(sequence.values, axis=0) < 0.02).all()
    assert (np.diff(sequence.values, axis=1) > 0).all()
    assert run("features", words["features"]) == 0
    assert "0 written, 1 kept" in capsys.readouterr().out

    trained(Path("checkpoint"), sequence)
    # The features were made in float32; by default the export would be the processor's fastest.
    assert run("export", [*words["export"], "--precision", "float32"]) == 0
    repository = Path("var/repository")
    (name,) = {read_yaml(Recipe, DEMO_RECIPE).name}
    manifest = load_bundle(repository, name)
    (backbone,) = manifest.description.backbones
    assert (backbone.name, backbone.feature_dim) == ("mean-colour", 3)
    answer = Pipeline(manifest, OnnxStages(repository, manifest, threads=1)).run(
        Request(video=video)
    )
    np.testing.assert_allclose(answer.features.values, sequence.values, rtol=1e-6)
    assert answer.features.provenance == sequence.provenance


def test_the_pages_training_command_parses() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(cli.find_commands()["train"]).configure(parser)
    parser.parse_args(commands()["train"])


def test_a_name_that_is_not_installed_is_told_with_the_nearest() -> None:
    with pytest.raises(
        InvalidArgument, match=r"'i3d-rbg'.*efficientnet-lite0.*did you mean i3d-rgb"
    ):
        find_backbone("i3d-rbg")


def test_an_entry_point_that_cannot_be_loaded_is_told(tmp_path, monkeypatch) -> None:
    install(
        tmp_path,
        monkeypatch,
        "[backtal.backbones]\nlost = no_such_module:X\nother = film_colours:Y\n",
    )
    (tmp_path / "film_colours.py").write_text("Y = 3\n")
    monkeypatch.delitem(sys.modules, "film_colours", raising=False)
    with pytest.raises(MissingDependency, match=r"lost cannot be loaded .*no_such_module"):
        find_backbone("lost")
    with pytest.raises(Internal, match="film_colours:Y is no BackboneSource"):
        find_backbone("other")


def test_weights_and_plans_of_the_wrong_place_are_refused(added, tmp_path: Path) -> None:
    (tmp_path / "one.mp4").write_bytes(steady(20))
    words = [str(tmp_path / "one.mp4"), "--to", str(tmp_path)]
    with pytest.raises(InvalidArgument, match=r"given for 'i3d-rgb', the backbones are: mean-colo"):
        run("features", [*words, "--backbone", "mean-colour", "--weights", "i3d-rgb=x"])
    with pytest.raises(InvalidArgument, match="--weights is 'x', allowed is BACKBONE=PATH"):
        run("features", [*words, "--backbone", "mean-colour", "--weights", "x"])
    with pytest.raises(InvalidArgument, match="go with --backbone"):
        run("features", [*words, "--bundle", "x/y", "--weights", "i3d-rgb=x"])
    with pytest.raises(InvalidFile, match="name a stream twice"):
        run("features", [*words, "--backbone", "mean-colour", "--backbone", "mean-colour"])
    (tmp_path / "plan.yaml").write_text("crop_pixels: 112\n")
    with pytest.raises(
        InvalidArgument, match="16 frames of 112 pixels a clip, backbones take 16 of"
    ):
        run(
            "features",
            [*words, "--backbone", "mean-colour", "--clip-plan", str(tmp_path / "plan.yaml")],
        )
