"""What a checkpoint, and kinetics400, become; and the command that exports them."""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal.manifest import (
    BundleDescription,
)
from backtal_export import kinetics400, repository
from backtal_export.backbones import sources
from backtal_export.backbones.sources import I3D_FLOW, I3D_FLOW_TVL1, I3D_RGB
from backtal_export.commands import export as command
from backtal_export.kinetics400 import kinetics400_classes, kinetics400_description
from backtal_export.repository import ExportOptions
from backtal_training import checkpoint
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.requirements import PROJECT_ROOT, shared_folder
from tests.unit.exported import BACKBONE, HASH, describe, files


@pytest.fixture
def no_weights(monkeypatch):
    """Stands for the real backbone: nothing is fetched, and its model file is `BACKBONE`."""
    weights = {
        "logits.conv3d.weight": np.zeros((400, 1024, 1, 1, 1), np.float32),
        "logits.conv3d.bias": np.zeros(400, np.float32),
    }
    for module in (sources, kinetics400):
        monkeypatch.setattr(module, "i3d_rgb_weights", lambda say: weights)
        monkeypatch.setattr(module, "i3d_rgb_onnx", lambda weights: BACKBONE)


def save_checkpoint(folder: Path, description: BundleDescription) -> BackTALNetwork:
    settings = NetworkSettings(
        feature_dim=1024,
        num_classes=2,
        hidden_dim=4,
        embedding_hidden_dim=4,
        embedding_dim=3,
        filter_hidden_dim=4,
    )
    torch.manual_seed(0)
    network = BackTALNetwork(settings)
    checkpoint.save(
        folder,
        checkpoint.CheckpointDescription(
            bundle=description, network=settings, training={"seed": 7}
        ),
        network,
    )
    return network


def test_the_manifest_names_shapes_operators_and_versions(tmp_path, no_weights) -> None:
    save_checkpoint(tmp_path / "trained", describe("trained"))
    manifest = repository.write_bundle(
        tmp_path / "repo",
        tmp_path / "trained",
        ExportOptions(precision="float32"),
        say=lambda _: None,
    )
    assert manifest.cas.opset == 18
    assert [(part.name, part.shape) for part in manifest.cas.inputs] == [
        ("features", ("B", 1024, "L"))
    ]
    assert [(part.name, part.shape) for part in manifest.cas.outputs] == [
        ("cas", ("B", 3, "L")),
        ("magnitude", ("B", "L")),
    ]
    assert manifest.source.startswith("a checkpoint of SHA-256 ")
    assert {"backtal", "onnx", "onnxruntime", "torch"} <= set(manifest.library_versions)


def test_the_same_checkpoint_gives_the_same_repository_to_the_byte(tmp_path, no_weights) -> None:
    save_checkpoint(tmp_path / "trained", describe("trained"))
    contents = []
    for name in ("one", "two"):
        repository.write_bundle(
            tmp_path / name,
            tmp_path / "trained",
            ExportOptions(precision="float32"),
            say=lambda _: None,
        )
        paths = files(tmp_path / name)
        contents.append({path: (tmp_path / name / path).read_bytes() for path in paths})
    assert contents[0] == contents[1]
    for path, content in contents[0].items():
        for trace in (str(tmp_path), str(PROJECT_ROOT), "site-packages", "Traceback"):
            assert trace.encode() not in content, (path, trace)


def test_a_pickle_in_the_place_of_weights_is_refused_and_not_run(tmp_path, no_weights) -> None:
    save_checkpoint(tmp_path / "trained", describe("trained"))
    mark = tmp_path / "was-run"
    weights = tmp_path / "trained/weights.safetensors"
    weights.write_bytes(pickle.dumps(_Touches(mark)))
    with pytest.raises(InvalidFile, match=r"weights\.safetensors is no safetensors file"):
        repository.write_bundle(tmp_path / "repo", tmp_path / "trained", say=lambda _: None)
    assert not mark.exists()
    assert not (tmp_path / "repo").exists()


class _Touches:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))


def test_a_checkpoint_becomes_a_bundle(tmp_path, no_weights) -> None:
    import onnxruntime

    network = save_checkpoint(tmp_path / "trained", describe("trained")).eval()
    said: list[str] = []
    manifest = repository.write_bundle(
        tmp_path / "repo",
        tmp_path / "trained",
        ExportOptions(name="renamed", precision="float32"),
        say=said.append,
    )
    assert manifest.description == describe("renamed")
    assert manifest.training == {"seed": 7}
    assert "renamed" in said[-1]
    model = tmp_path / "repo" / manifest.cas.model / "1/model.onnx"
    features = np.random.default_rng(0).standard_normal((1, 1024, 9)).astype(np.float32)
    cas, magnitude = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        ["cas", "magnitude"], {"features": features}
    )
    with torch.inference_mode():
        wanted = network.infer(torch.from_numpy(features))
    np.testing.assert_allclose(cas, wanted[0], atol=1e-4)
    np.testing.assert_allclose(magnitude, wanted[1], atol=1e-4)


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path, no_weights) -> None:
    save_checkpoint(tmp_path / "trained", describe(backbone="0" * 64))
    with pytest.raises(InvalidArgument, match="was made with the backbone 0000"):
        repository.write_bundle(tmp_path / "repo", tmp_path / "trained", say=lambda _: None)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("name", ["Übung", "a b", "../up", ""])
def test_a_name_that_is_no_models_is_refused(tmp_path, no_weights, name) -> None:
    with pytest.raises(InvalidFile, match="the bundle's name: name"):
        repository.write_bundle(
            tmp_path, "kinetics400", ExportOptions(name=name), say=lambda _: None
        )


def test_no_such_checkpoint_is_told_before_anything_is_fetched(tmp_path) -> None:
    with pytest.raises(NotFound, match="no such checkpoint folder: nowhere, nor is it kinetics400"):
        repository.write_bundle(tmp_path, "nowhere")


def test_kinetics400_is_written_without_torch(tmp_path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from backtal_export import kinetics400, repository\n"
        "kinetics400.i3d_rgb_onnx = lambda weights: kinetics400.kinetics400_cas_onnx([weights])\n"
        "weights = {'logits.conv3d.weight': np.zeros((400, 1024, 1, 1, 1), np.float32),\n"
        "           'logits.conv3d.bias': np.zeros(400, np.float32)}\n"
        "kinetics400.i3d_rgb_weights = lambda say: weights\n"
        "repository.write_bundle(__import__('pathlib').Path(sys.argv[1]), 'kinetics400',\n"
        "                        repository.ExportOptions(precision='float32'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    raw = json.loads((tmp_path / "kinetics400/1/manifest.json").read_text())
    assert raw["description"]["cas"]["kind"] == "probability"


def test_kinetics400_describes_itself() -> None:
    description = kinetics400_description({I3D_RGB: "0" * 64})
    assert description.feature_dim == 1024
    assert description.cas_channels == 400
    assert description.clip_plan.frames_per_second == 25
    assert description.grid.position_seconds == pytest.approx(0.32)
    assert description.cas.halo_positions == 0
    assert min(description.localization.cas_thresholds) >= 0.3
    assert description.localization.gamma >= 0.2


def test_the_kinetics_classes_are_the_heads() -> None:
    classes = kinetics400_classes()
    assert len(set(classes)) == 400
    assert list(classes) == sorted(classes)
    listed = (shared_folder() / "media/i3d/label_map.txt").read_text().splitlines()
    assert list(classes) == [line.strip() for line in listed if line.strip()]


def test_the_command_exports_what_it_is_told(tmp_path, monkeypatch, capsys, no_weights) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    arguments = parser.parse_args(["kinetics400", "--repository", str(tmp_path), "--name", "mine",
                                  "--precision", "float32"])  # fmt: skip
    assert command.run(arguments) == 0
    assert (tmp_path / "mine/1/manifest.json").is_file()
    assert "wrote the bundle mine" in capsys.readouterr().out


def test_the_command_is_cheap_to_import() -> None:
    code = (
        "import sys, backtal_export.commands.export\n"
        "print([name for name in ('torch', 'onnx', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kinetics400_has_one_of_the_two_flow_backbones(no_weights) -> None:
    flows = {I3D_FLOW: "tvl1", I3D_FLOW_TVL1: "tvl1-network"}
    for source, method in flows.items():
        description = kinetics400_description({I3D_RGB: HASH, source: HASH})
        assert description.clip_plan.flow == method
    assert kinetics400_description({I3D_RGB: HASH}).clip_plan.flow is None
    weights = {source.name: Path("flow_imagenet.pt") for source in flows}
    with pytest.raises(InvalidArgument, match="i3d-flow and i3d-flow-tvl1: kinetics400 has one of"):
        kinetics400.kinetics400(weights, say=lambda _: None)
