"""How a repository lies on the disk: whole or not at all, versions side by side."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from backtal.errors import InvalidArgument, NotFound, Unavailable
from backtal.manifest import (
    GateFigures,
    Manifest,
)
from backtal.repository import bundle_names, bundle_versions, load_bundle
from backtal_export import runtimes
from backtal_export.model_folders import Variant, write_exported
from backtal_export.onnx_file import sha256_of
from backtal_export.runtimes import REFERENCE, Runtime
from tests.unit.exported import (
    BACKBONE,
    CAS,
    HASH,
    OTHER_CAS,
    config,
    describe,
    exported,
    files,
    model_file,
)

FLOAT16 = Runtime("float16", "onnxruntime")


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
        ("triton-gpu", FLOAT16, "onnxruntime", "KIND_GPU", {}),
        ("triton-tensorrt", REFERENCE, "onnxruntime", "KIND_GPU", {}),
        ("triton-tensorrt", FLOAT16, "onnxruntime", "KIND_GPU", {}),
    ],
)
def test_each_target_has_its_configuration(
    tmp_path, target, runtime, backend, kind, parameters
) -> None:
    bundle = replace(
        exported(),
        target=target,
        backbone_variants={"rgb": Variant.of(BACKBONE, runtime)},
        cas_variant=Variant.of(CAS, runtime),
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
        modes = [(entry.name, entry.parameters["precision_mode"]) for entry in accelerators]
        mode = "FP16" if runtime.precision == "float16" else "FP32"
        assert modes == ([("tensorrt", mode)] if target == "triton-tensorrt" else [])


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


def test_the_templates_are_where_an_installed_export_finds_them() -> None:
    names = files(runtimes.TEMPLATES)
    assert names >= {"backbone/config.pbtxt", "cas/config.pbtxt", "bundle/config.pbtxt"}
