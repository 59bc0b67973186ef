"""The released checkpoints: strictly read, and answering, exported and evaluated like our own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.cli import main
from backtal.errors import InvalidFile, NotFound
from backtal.features import FeatureSequence
from backtal_export.repository import write_bundle
from backtal_training import checkpoint
from backtal_training.data_set import find
from backtal_training.network import BackTALNetwork, NetworkSettings
from backtal_training.released_checkpoint import read_released

CLASSES = ("jump", "run", "walk")
SETTINGS = NetworkSettings(
    layout="released",
    feature_dim=6,
    num_classes=3,
    hidden_dim=8,
    embedding_hidden_dim=4,
    embedding_dim=3,
    filter_hidden_dim=5,
)


@pytest.fixture
def network() -> BackTALNetwork:
    torch.manual_seed(0)
    return BackTALNetwork(SETTINGS).eval()


def released(path: Path, network: BackTALNetwork, **changes: Any) -> Path:
    """The file as torch.save in the released code leaves it, from several GPUs."""
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    weights |= {f"module.{name}": value for name, value in changes.items()}
    torch.save({k: v for k, v in weights.items() if v is not None}, path)
    return path


def test_a_released_file_becomes_a_checkpoint_that_answers_the_same(
    network: BackTALNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = released(tmp_path / "best.pth", network)
    truth = GroundTruth({"a": VideoTruth("test", 12.0, 25, (Instance(1, 5, "run"),))}, CLASSES)
    truth.save(tmp_path / "truth.json")
    words = ("--data-set", "thumos14", "--ground-truth", str(tmp_path / "truth.json"))
    assert main(["convert", str(path), *words, "--to", str(tmp_path / "made")]) == 0
    description, ours = checkpoint.load(tmp_path / "made")
    assert description.network.layout == "released"
    assert description.bundle.localization.preset == "released"
    assert description.bundle.classes == CLASSES
    features = torch.randn(1, 6, 11)
    with torch.no_grad():
        torch.testing.assert_close(ours.infer(features), network.infer(features))

    write_bundle(tmp_path / "repository", tmp_path / "made", say=lambda _: None)
    (tmp_path / "features").mkdir()
    values = np.random.default_rng(0).standard_normal((6, 750)).astype(np.float32)
    FeatureSequence.from_equal_parts(values, 12.0, streams=("rgb", "flow")).save(
        tmp_path / "features" / "a.npz"
    )
    capsys.readouterr()
    bundle = ("--bundle", str(tmp_path / "repository" / "thumos14"))
    inputs = ("--ground-truth", str(tmp_path / "truth.json"), "--missing-as-empty")
    where = ("--features", str(tmp_path / "features"))
    assert main(["evaluate", *where, *bundle, *inputs]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"embedding_module.conv_2.weight": torch.zeros(3, 4, 5)},
            r"embedding_module.conv_2.weight has shape \[3, 4, 5\], expected \[3, 4, 3\]",
        ),
        ({"filter_module.conv_2.0.bias": None}, r"filter_module.conv_2.0.bias is missing"),
        ({"base_module.conv_1.weight": None}, r"base_module.conv_1.weight is missing"),
        ({"base_module.conv_1.weight": torch.zeros(8, 6)}, r"shape \[8, 6\], expected 3 dim"),
        ({"new": torch.zeros(2)}, r"new of shape \[2\] is no parameter"),
        ({"new": "words"}, "new is a str, expected a tensor"),
    ],
)
def test_a_mismatch_names_parameter_and_shape(
    network: BackTALNetwork, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = released(tmp_path / "bad.pth", network, **changes)
    with pytest.raises(InvalidFile, match=message):
        read_released(path, find("thumos14")[0].recipe, CLASSES)


def test_another_number_of_classes_is_told_by_shape(
    network: BackTALNetwork, tmp_path: Path
) -> None:
    path = released(tmp_path / "best.pth", network)
    with pytest.raises(InvalidFile, match=r"classifier_module.*\[4, 8, 1\], expected \[3, 8, 1\]"):
        read_released(path, find("thumos14")[0].recipe, CLASSES[:2])


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = find("thumos14")[0].recipe
    torch.save({"weights": Harmful()}, "harmful.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Harmful()))
    Path("text.pth").write_text("no weights")
    for name in ("harmful.pth", "plain.pth", "text.pth"):
        with pytest.raises(InvalidFile, match="no file of plain weights"):
            read_released(Path(name), recipe, CLASSES)
    assert not Path("harm").exists()
    with pytest.raises(NotFound, match="no such file"):
        read_released(Path("absent.pth"), recipe, CLASSES)
