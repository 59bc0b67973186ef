from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from backtal.errors import InvalidFile, NotFound
from backtal.settings import parse
from backtal_training import checkpoint
from backtal_training.bundle import describe
from backtal_training.checkpoint import CheckpointDescription
from backtal_training.network import BackTALNetwork
from backtal_training.settings import Recipe, WidthSettings
from tests import synthetic


@pytest.fixture(scope="module")
def description() -> CheckpointDescription:
    recipe = Recipe(
        name="tiny",
        grid=synthetic.GRID,
        network=WidthSettings(
            hidden_dim=8, embedding_hidden_dim=4, embedding_dim=3, filter_hidden_dim=4
        ),
    )
    sequence = next(iter(synthetic.corpus(1, 0).sequences.values()))
    return CheckpointDescription(
        bundle=describe(recipe, synthetic.CLASSES, sequence),
        network=recipe.network.network(feature_dim=24, num_classes=3),
        training={"seed": 1},
    )


def network(description: CheckpointDescription, seed: int = 0) -> BackTALNetwork:
    torch.manual_seed(seed)
    return BackTALNetwork(description.network)


def test_what_is_saved_is_loaded(description: CheckpointDescription, tmp_path: Path) -> None:
    saved = network(description)
    checkpoint.save(tmp_path / "deep" / "er", description, saved)
    loaded_description, loaded = checkpoint.load(tmp_path / "deep" / "er")
    assert loaded_description == description
    assert not loaded.training
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_checkpoint_is_replaced_and_nothing_else(
    description: CheckpointDescription, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    checkpoint.save(folder, description, network(description, 0))
    second = network(description, 1)
    checkpoint.save(folder, description, second)
    name = "classifier_module.conv.weight"
    assert torch.equal(checkpoint.load(folder)[1].state_dict()[name], second.state_dict()[name])
    assert [path.name for path in tmp_path.iterdir()] == ["here"]

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InvalidFile, match="photos exists and is no checkpoint"):
        checkpoint.save(tmp_path / "photos", description, second)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_parameters_are_named_with_their_shapes(
    description: CheckpointDescription,
) -> None:
    weights = dict(network(description).state_dict())
    weights["base_module.conv_1.weight"] = torch.zeros(8, 24, 5)
    del weights["filter_module.conv_2.0.bias"]
    weights["extra"] = torch.zeros(2)
    weights["embedding_module.conv_1.bias"] = torch.full((4,), torch.nan)
    with pytest.raises(InvalidFile) as caught:
        checkpoint.load_weights(network(description), weights, source="w.safetensors")
    for part in (
        "w.safetensors: ",
        "base_module.conv_1.weight has shape [8, 24, 5], expected [8, 24, 3]",
        "filter_module.conv_2.0.bias is missing, expected shape [1]",
        "extra of shape [2] is no parameter",
        "embedding_module.conv_1.bias holds values that are not finite",
    ):
        assert part in caught.value.message


def test_missing_and_damaged_files(description: CheckpointDescription, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"checkpoint\.json"):
        checkpoint.load(tmp_path)
    folder = tmp_path / "c"
    checkpoint.save(folder, description, network(description))
    (folder / "weights.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(InvalidFile, match="no safetensors file"):
        checkpoint.load(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(NotFound, match=r"weights\.safetensors"):
        checkpoint.load(folder)


def test_weights_of_another_width_are_refused(
    description: CheckpointDescription, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "c", description, network(description))
    wider = description.network.model_copy(update={"hidden_dim": 16})
    weights = {
        name: value.contiguous() for name, value in BackTALNetwork(wider).state_dict().items()
    }
    safetensors.torch.save_file(weights, tmp_path / "c" / "weights.safetensors")
    with pytest.raises(InvalidFile, match=r"conv_1\.weight has shape \[16, 24, 3\], expected \[8"):
        checkpoint.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("feature_dim", 25, "feature_dim 25"), ("num_classes", 4, "num_classes 4")],
)
def test_network_and_bundle_must_agree(
    description: CheckpointDescription, field: str, value: int, message: str
) -> None:
    raw = json.loads(description.model_dump_json())
    raw["network"][field] = value
    with pytest.raises(InvalidFile, match=message):
        parse(CheckpointDescription, raw, source="checkpoint.json")
