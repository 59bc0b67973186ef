from __future__ import annotations

import argparse
import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from backtal.errors import InvalidArgument, InvalidFile, NotFound, Unavailable
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import Backbone, BundleDescription, CasKind, ClipPlan, Grid, Manifest
from backtal_export import kinetics400, model_folders, repository
from backtal_export.backbones import sources
from backtal_export.backbones.sources import I3D_RGB
from backtal_export.commands import export as command
from backtal_export.kinetics400 import kinetics400_classes, kinetics400_description
from backtal_export.model_folders import Exported, write_exported
from backtal_export.onnx_file import sha256_of
from backtal_training import checkpoint
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.requirements import shared_folder

BACKBONE = b"a backbone's model file"
HASH = sha256_of(BACKBONE)


def describe(name: str = "small", backbone: str = HASH, *, magnitude: bool = True):
    return BundleDescription(
        name=name,
        classes=("jump", "run"),
        clip_plan=ClipPlan(),
        backbones=(Backbone(name="i3d-rgb", stream="rgb", sha256=backbone, feature_dim=1024),),
        grid=Grid(position_seconds=0.64, window_positions=50),
        cas=CasKind(kind="logits", background=True, magnitude=magnitude),
        localization=LocalizationSettings(),
    )


def exported(name: str = "small", cas: bytes = b"a CAS network", **options) -> Exported:
    return Exported(
        description=describe(name, **options),
        backbones={"rgb": BACKBONE},
        cas=cas,
        training={"seed": 1},
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def config(path: Path):
    """The configuration as Triton reads it: an unknown field raises."""
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


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


def test_a_bundle_is_its_two_public_models_and_its_networks(tmp_path) -> None:
    manifest = write_exported(tmp_path / "repo", exported())
    backbone, cas = f"i3d-rgb-{HASH[:8]}", f"cas-{sha256_of(b'a CAS network')[:8]}"
    assert manifest.backbones["rgb"].model == backbone
    assert manifest.cas.model == cas
    public = {"config.pbtxt", "1/model.py", "1/manifest.json"}
    networks = {"config.pbtxt", "1/model.onnx"}
    assert files(tmp_path / "repo") == {
        f"{model}/{name}"
        for model, names in [
            (backbone, networks),
            (cas, networks),
            ("small", public),
            ("small_stream", public),
        ]
        for name in names
    }
    assert Manifest.load(tmp_path / "repo/small/1/manifest.json") == manifest
    assert Manifest.load(tmp_path / "repo/small_stream/1/manifest.json") == manifest
    assert (tmp_path / "repo" / backbone / "1/model.onnx").read_bytes() == BACKBONE
    assert manifest.training == {"seed": 1}


@pytest.mark.parametrize("magnitude", [True, False])
def test_triton_reads_the_configurations(tmp_path, magnitude) -> None:
    manifest = write_exported(tmp_path, exported(magnitude=magnitude))
    backbone = config(tmp_path / manifest.backbones["rgb"].model / "config.pbtxt")
    assert backbone.name == manifest.backbones["rgb"].model
    assert backbone.backend == "onnxruntime"
    assert list(backbone.input[0].dims) == [-1, 16, 224, 224, 3]
    assert list(backbone.output[0].dims) == [-1, 1024]
    cas = config(tmp_path / manifest.cas.model / "config.pbtxt")
    outputs = {output.name: list(output.dims) for output in cas.output}
    assert outputs == {"cas": [-1, 3, -1], **({"magnitude": [-1, -1]} if magnitude else {})}
    assert list(cas.input[0].dims) == [-1, 1024, -1]


def test_the_public_models_offer_the_wire(tmp_path) -> None:
    write_exported(tmp_path, exported())
    plain, stream = (config(tmp_path / name / "config.pbtxt") for name in ("small", "small_stream"))
    assert {entry.name for entry in plain.input} == {
        "video", "uri", "features", "duration", "clip_start_seconds", "clip_end_seconds",
    }  # fmt: skip
    assert all(entry.optional for entry in plain.input)
    wire = {
        "segments", "scores", "labels", "duration", "cas", "position_seconds", "features",
        "clip_start_seconds", "clip_end_seconds", "provenance",
    }  # fmt: skip
    assert {entry.name for entry in plain.output} == wire
    assert {entry.name for entry in stream.output} == wire | {"progress"}
    assert not plain.model_transaction_policy.decoupled
    assert stream.model_transaction_policy.decoupled
    assert {entry.name: list(entry.dims) for entry in plain.output}["cas"] == [3, -1]


def test_two_bundles_share_one_backbone_and_a_second_writing_leaves_it_alone(tmp_path) -> None:
    first = write_exported(tmp_path, exported("one"))
    model = tmp_path / first.backbones["rgb"].model / "1/model.onnx"
    before = model.stat()
    write_exported(tmp_path, exported("two", b"another CAS network"))
    assert (model.stat().st_ino, model.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sum(path.name.startswith("i3d-rgb-") for path in tmp_path.iterdir()) == 1
    assert {"one", "one_stream", "two", "two_stream"} <= {path.name for path in tmp_path.iterdir()}


def test_a_damaged_network_is_written_anew(tmp_path) -> None:
    manifest = write_exported(tmp_path, exported())
    model = tmp_path / manifest.cas.model / "1/model.onnx"
    model.write_bytes(b"damage")
    write_exported(tmp_path, exported())
    assert model.read_bytes() == b"a CAS network"


def test_a_bundle_of_that_name_is_replaced(tmp_path) -> None:
    write_exported(tmp_path, exported())
    (tmp_path / "small/1/stray").touch()
    manifest = write_exported(tmp_path, exported(cas=b"another CAS network"))
    assert Manifest.load(tmp_path / "small/1/manifest.json") == manifest
    assert not (tmp_path / "small/1/stray").exists()


@pytest.mark.parametrize("fails_at", range(1, 5))
def test_a_failure_leaves_no_half_written_folder(tmp_path, monkeypatch, fails_at) -> None:
    old = write_exported(tmp_path, exported())
    before = files(tmp_path)
    written = 0
    real = Path.write_text

    def full_disk(path: Path, *arguments, **options):
        nonlocal written
        written += path.name == "config.pbtxt"
        if written == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full_disk)
    new = replace(exported(cas=b"other"), backbones={"rgb": b"b2"},
                  description=describe(backbone=sha256_of(b"b2")))  # fmt: skip
    with pytest.raises(Unavailable, match="disk"):
        write_exported(tmp_path, new)
    assert before <= files(tmp_path)
    assert Manifest.load(tmp_path / "small/1/manifest.json") == old
    for folder in tmp_path.iterdir():
        assert not folder.name.startswith(".")
        assert (folder / "config.pbtxt").is_file()
        assert any((folder / "1").iterdir())


def test_a_rename_that_fails_gives_the_old_bundle_back(tmp_path, monkeypatch) -> None:
    old = write_exported(tmp_path, exported())
    real = Path.rename

    def rename(path: Path, target: Path):
        if path.name == "new" and target.name == "small":
            raise OSError(errno.EACCES, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Unavailable, match="Permission denied"):
        write_exported(tmp_path, exported(cas=b"other"))
    assert Manifest.load(tmp_path / "small/1/manifest.json") == old


def test_another_backbone_than_the_checkpoints_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidArgument, match=f"0000000.*at hand is {HASH}"):
        write_exported(tmp_path, exported(backbone="0" * 64))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_would_be_anothers_stream_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidArgument, match="may not end in _stream"):
        write_exported(tmp_path, exported("small_stream"))


def test_a_name_that_would_be_a_networks_is_refused(tmp_path) -> None:
    network = write_exported(tmp_path, exported()).cas.model
    with pytest.raises(InvalidArgument, match=network):
        write_exported(tmp_path, exported(network))


def test_a_checkpoint_becomes_a_bundle(tmp_path, no_weights) -> None:
    import onnxruntime

    network = save_checkpoint(tmp_path / "trained", describe("trained")).eval()
    said: list[str] = []
    manifest = repository.write_bundle(
        tmp_path / "repo", tmp_path / "trained", name="renamed", say=said.append
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
        repository.write_bundle(tmp_path, "kinetics400", name=name, say=lambda _: None)


def test_no_such_checkpoint_is_told_before_anything_is_fetched(tmp_path) -> None:
    with pytest.raises(NotFound, match="no such checkpoint folder: nowhere, nor is it kinetics400"):
        repository.write_bundle(tmp_path, "nowhere")


def test_kinetics400_is_written_without_torch(tmp_path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from backtal_export import kinetics400, repository\n"
        "kinetics400.i3d_rgb_onnx = lambda weights: b'model'\n"
        "weights = {'logits.conv3d.weight': np.zeros((400, 1024, 1, 1, 1), np.float32),\n"
        "           'logits.conv3d.bias': np.zeros(400, np.float32)}\n"
        "kinetics400.i3d_rgb_weights = lambda say: weights\n"
        "repository.write_bundle(__import__('pathlib').Path(sys.argv[1]), 'kinetics400')\n"
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
    arguments = parser.parse_args(["kinetics400", "--repository", str(tmp_path), "--name", "mine"])
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


def test_the_templates_are_where_an_installed_export_finds_them() -> None:
    names = files(model_folders.TEMPLATES)
    assert names >= {"backbone/config.pbtxt", "cas/config.pbtxt", "bundle/config.pbtxt"}
