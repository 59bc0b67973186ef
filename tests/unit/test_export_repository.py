from __future__ import annotations

import argparse
import errno
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from backtal.errors import InvalidArgument, InvalidFile, NotFound, Unavailable
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    GateFigures,
    Grid,
    Manifest,
)
from backtal.repository import bundle_names, bundle_versions, load_bundle
from backtal_export import kinetics400, repository, runtimes
from backtal_export.backbones import sources
from backtal_export.backbones.sources import I3D_FLOW, I3D_FLOW_TVL1, I3D_RGB
from backtal_export.commands import export as command
from backtal_export.kinetics400 import kinetics400_classes, kinetics400_description
from backtal_export.model_folders import Exported, Variant, write_exported
from backtal_export.onnx_file import sha256_of, to_bytes
from backtal_export.repository import ExportOptions
from backtal_export.runtimes import REFERENCE, Runtime
from backtal_training import checkpoint
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.requirements import PROJECT_ROOT, shared_folder


def model_file(seed: int) -> bytes:
    """A small network file: any will do where only its content's hash counts."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "constant"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([seed], np.float32), "constant")],
    )
    return to_bytes(graph)


BACKBONE, CAS, OTHER_CAS = model_file(0), model_file(1), model_file(2)
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


def exported(name: str = "small", cas: bytes = CAS, **options) -> Exported:
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
    backbone, cas = f"i3d-rgb-{HASH[:8]}", f"cas-{sha256_of(CAS)[:8]}"
    assert manifest.backbones["rgb"].model == backbone
    assert manifest.cas.model == cas
    public = {"config.pbtxt", "1/model.py", "1/manifest.json", "1/model_card.md"}
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


@pytest.mark.parametrize(
    ("target", "runtime", "backend", "kind", "parameters"),
    [
        ("embedded", Runtime("bfloat16", "openvino"), "openvino", "KIND_CPU", {"HINT_BF16": "YES"}),
        ("embedded", Runtime("float32", "openvino"), "openvino", "KIND_CPU", {}),
        ("triton-cpu", REFERENCE, "onnxruntime", "KIND_CPU", {}),
        ("triton-gpu", REFERENCE, "onnxruntime", "KIND_GPU", {}),
        ("triton-tensorrt", REFERENCE, "onnxruntime", "KIND_GPU", {}),
    ],
)
def test_each_target_has_its_configuration(
    tmp_path, target, runtime, backend, kind, parameters
) -> None:
    bundle = replace(
        exported(),
        target=target,
        backbone_variants={"rgb": Variant(BACKBONE, runtime)},
        cas_variant=Variant(CAS, runtime),
    )
    manifest = write_exported(tmp_path, bundle)
    assert manifest.target == target
    for network in manifest.networks:
        found = config(tmp_path / network.model / "config.pbtxt")
        assert (found.name, found.backend) == (network.model, backend)
        assert found.default_model_filename == "model.onnx"
        assert model_config_pb2.ModelInstanceGroup.Kind.Name(found.instance_group[0].kind) == kind
        hints = {key: value.string_value for key, value in found.parameters.items()}
        assert ("HINT_BF16" in hints) == bool(parameters)
        assert parameters.items() <= hints.items()
        accelerators = found.optimization.execution_accelerators.gpu_execution_accelerator
        assert [entry.name for entry in accelerators] == (
            ["tensorrt"] if target == "triton-tensorrt" else []
        )


def test_tensorrt_is_told_the_shapes_of_the_clip_plan(tmp_path) -> None:
    manifest = write_exported(tmp_path, replace(exported(), target="triton-tensorrt"))
    profiles = {}
    for network in manifest.networks:
        found = config(tmp_path / network.model / "config.pbtxt")
        (entry,) = found.optimization.execution_accelerators.gpu_execution_accelerator
        profiles[network.model.split("-")[0]] = entry.parameters
    assert profiles["i3d"]["trt_profile_min_shapes"] == "clips:1x16x224x224x3"
    assert profiles["i3d"]["trt_profile_max_shapes"] == "clips:16x16x224x224x3"
    assert profiles["cas"]["trt_profile_opt_shapes"] == "features:1x1024x128"


def test_the_card_says_what_the_manifest_says(tmp_path) -> None:
    figures = GateFigures(feature_cosine=0.99995, measured_on="four clips")
    variant = Variant(BACKBONE, Runtime("bfloat16", "openvino"), figures)
    manifest = write_exported(tmp_path, replace(exported(), backbone_variants={"rgb": variant}))
    card = (tmp_path / "small/1/model_card.md").read_text()
    name = manifest.backbones["rgb"].model
    assert f"| `{name}` | bfloat16 | openvino | 0.999950 |" in card
    assert f"`{name}` was measured on four clips." in card
    assert "jump, run." in card
    assert "- seed: 1" in card
    assert "Licences" in card


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
    write_exported(tmp_path, exported("two", OTHER_CAS))
    assert (model.stat().st_ino, model.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sum(path.name.startswith("i3d-rgb-") for path in tmp_path.iterdir()) == 1
    assert {"one", "one_stream", "two", "two_stream"} <= {path.name for path in tmp_path.iterdir()}


def test_a_damaged_network_is_written_anew(tmp_path) -> None:
    manifest = write_exported(tmp_path, exported())
    model = tmp_path / manifest.cas.model / "1/model.onnx"
    model.write_bytes(b"damage")
    write_exported(tmp_path, exported())
    assert model.read_bytes() == CAS


def test_a_second_export_makes_version_2_beside_version_1(tmp_path) -> None:
    old = write_exported(tmp_path, exported())
    new = write_exported(tmp_path, exported(cas=OTHER_CAS))
    for model in ("small", "small_stream"):
        assert bundle_versions(tmp_path, model) == [1, 2]
        assert Manifest.load(tmp_path / model / "1/manifest.json") == old
        assert Manifest.load(tmp_path / model / "2/manifest.json") == new
        assert (tmp_path / model / "2/model.py").is_file()
    assert load_bundle(tmp_path, "small") == new
    assert load_bundle(tmp_path, "small", version=1) == old
    with pytest.raises(NotFound, match=r"no version 3 of small, only \[1, 2\]"):
        load_bundle(tmp_path, "small", version=3)


def test_the_same_export_again_makes_no_version(tmp_path) -> None:
    write_exported(tmp_path, exported())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_exported(tmp_path, exported())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_versions_cut_apart_by_a_crash_meet_again(tmp_path) -> None:
    write_exported(tmp_path, exported())
    write_exported(tmp_path, exported(cas=OTHER_CAS))
    shutil.rmtree(tmp_path / "small/2")
    new = write_exported(tmp_path, exported(cas=OTHER_CAS))
    assert bundle_versions(tmp_path, "small")[-1] == bundle_versions(tmp_path, "small_stream")[-1]
    assert load_bundle(tmp_path, "small") == load_bundle(tmp_path, "small_stream") == new


def test_a_repository_is_for_one_target(tmp_path) -> None:
    write_exported(tmp_path, exported())
    other = replace(exported("other"), target="triton-gpu")
    with pytest.raises(InvalidArgument, match="is for the target embedded, as its bundle small"):
        write_exported(tmp_path, other)
    assert bundle_names(tmp_path) == ["small"]


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
    new = replace(exported(cas=OTHER_CAS), backbones={"rgb": model_file(3)},
                  description=describe(backbone=sha256_of(model_file(3))))  # fmt: skip
    with pytest.raises(Unavailable, match="disk"):
        write_exported(tmp_path, new)
    assert before <= files(tmp_path)
    assert Manifest.load(tmp_path / "small/1/manifest.json") == old
    for folder in tmp_path.iterdir():
        assert not folder.name.startswith(".")
        assert (folder / "config.pbtxt").is_file()
        assert any((folder / "1").iterdir())


def test_a_rename_that_fails_leaves_the_old_version_to_be_served(tmp_path, monkeypatch) -> None:
    old = write_exported(tmp_path, exported())
    real = Path.rename

    def rename(path: Path, target: Path):
        if target == tmp_path / "small" / "2":
            raise OSError(errno.EACCES, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Unavailable, match="Permission denied"):
        write_exported(tmp_path, exported(cas=OTHER_CAS))
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


def test_the_templates_are_where_an_installed_export_finds_them() -> None:
    names = files(runtimes.TEMPLATES)
    assert names >= {"backbone/config.pbtxt", "cas/config.pbtxt", "bundle/config.pbtxt"}


def test_kinetics400_has_one_of_the_two_flow_backbones(no_weights) -> None:
    flows = {I3D_FLOW: "tvl1", I3D_FLOW_TVL1: "tvl1-network"}
    for source, method in flows.items():
        description = kinetics400_description({I3D_RGB: HASH, source: HASH})
        assert description.clip_plan.flow == method
    assert kinetics400_description({I3D_RGB: HASH}).clip_plan.flow is None
    weights = {source.name: Path("flow_imagenet.pt") for source in flows}
    with pytest.raises(InvalidArgument, match="i3d-flow and i3d-flow-tvl1: kinetics400 has one of"):
        kinetics400.kinetics400(weights, say=lambda _: None)
