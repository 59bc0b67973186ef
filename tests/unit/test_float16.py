"""float16: the file that GPUs are given, and what they make of it, computed on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from backtal import cli
from backtal.errors import GateFailed, InvalidFile
from backtal.manifest import Manifest
from backtal.repository import bundle_versions, load_bundle
from backtal.runtime import OnnxStages
from backtal_export.cas_network import CasNetwork, cas_onnx
from backtal_export.float16 import rounded_as_float16, to_float16
from backtal_export.gate_stages import as_served, in_float32
from backtal_export.model_folders import Exported, write_exported
from backtal_export.onnx_file import IR_VERSION, OPSET, facts_of, to_bytes
from backtal_export.publishing import publish
from backtal_export.repository import ExportOptions, proved
from backtal_export.runtimes import Runtime
from backtal_export.tensorrt.bundle import networks_to_build
from backtal_export.verification import verify
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.made_videos import steady
from tests.unit.small_bundle import (
    FEATURE_DIM,
    backbone_file,
    cas_file,
    small_export,
    write_golden_set,
)

FLOAT16 = Runtime("float16", "onnxruntime")
NETWORK = NetworkSettings(
    feature_dim=32,
    num_classes=3,
    hidden_dim=64,
    embedding_hidden_dim=16,
    embedding_dim=8,
    filter_hidden_dim=16,
)


def float16_export() -> Exported:
    return replace(small_export(FLOAT16), target="triton-gpu")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    bundle = proved(float16_export(), FLOAT16, ExportOptions(target="triton-gpu"))
    write_exported(tmp_path / "repository", bundle)
    return tmp_path / "repository"


def answers(model_file: bytes, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def chain(*kinds: str) -> bytes:
    """y = x with each operator and its constant in turn."""
    names = ["x", *(f"value_{index}" for index in range(len(kinds) - 1)), "y"]
    nodes = [
        helper.make_node(kind, [before, f"constant_{index}"], [after], name=after)
        for index, (kind, before, after) in enumerate(zip(kinds, names, names[1:], strict=False))
    ]
    constants = np.linspace(0.3, 7.7, len(kinds)).astype(np.float32)
    shape = ["n"]
    return to_bytes(
        helper.make_graph(
            nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            [
                numpy_helper.from_array(constants[index : index + 1], f"constant_{index}")
                for index in range(len(kinds))
            ],
        )
    )


@given(
    st.lists(st.sampled_from(["Add", "Sub", "Mul", "Div"]), min_size=1, max_size=6),
    st.integers(0, 2**16),
)
def test_every_value_is_rounded_as_numpys_float16_is(kinds: list[str], seed: int) -> None:
    x = np.random.default_rng(seed).uniform(-9, 9, 32).astype(np.float32)
    operators: dict[str, Callable[..., np.ndarray]] = {
        "Add": np.add,
        "Sub": np.subtract,
        "Mul": np.multiply,
        "Div": np.divide,
    }
    wanted = x.astype(np.float16)
    constants = np.linspace(0.3, 7.7, len(kinds)).astype(np.float32).astype(np.float16)
    for kind, constant in zip(kinds, constants, strict=True):
        wanted = operators[kind](wanted, constant)
    assert wanted.dtype == np.float16
    (found,) = answers(rounded_as_float16(to_float16(chain(*kinds))), x=x)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


@pytest.mark.parametrize("layout", ["paper", "released"])
def test_the_cas_network_is_as_far_from_float32_as_torchs_own_float16(layout: str) -> None:
    torch.manual_seed(0)
    network = BackTALNetwork(NETWORK.model_copy(update={"layout": layout})).eval()
    features = np.random.default_rng(1).exponential(0.3, (2, 32, 40)).astype(np.float32)
    with torch.inference_mode():
        exact = CasNetwork(network)(torch.from_numpy(features))[0].numpy()
        half = CasNetwork(network).half()(torch.from_numpy(features).half())[0].float().numpy()
    float16 = to_float16(cas_onnx(network))
    rounded, _ = answers(rounded_as_float16(float16), features=features)
    largest = np.abs(exact).max()
    ours, theirs = (np.abs(found - exact).max() / largest for found in (rounded, half))
    assert 1e-5 < ours < 5e-3
    assert 0.2 < ours / theirs < 5


def test_the_file_is_valid_and_the_same_every_time() -> None:
    network = cas_onnx(BackTALNetwork(NETWORK).eval())
    float16 = to_float16(network)
    assert float16 == to_float16(network)
    assert facts_of(float16) == facts_of(network)
    model = onnx.load_from_string(float16)
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET)
    assert {entry.key for entry in model.metadata_props} >= {"layout", "affinity_convolution"}
    assert len(float16) < 0.7 * len(network)
    onnx.checker.check_model(onnx.load_from_string(rounded_as_float16(float16)), full_check=True)


def test_loops_are_not_passed_over() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["n"])],
    )
    nodes = [helper.make_node("If", ["always"], ["y"], then_branch=body, else_branch=body)]
    branched = helper.make_graph(
        nodes,
        "branched",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array(True), "always")],
    )
    with pytest.raises(InvalidFile, match="If .* has nodes of its own: not rounded"):
        rounded_as_float16(to_bytes(branched))


def test_its_figures_go_into_the_manifest(repository: Path) -> None:
    manifest = load_bundle(repository, "small")
    backbone, cas = manifest.networks
    assert backbone.figures is not None
    assert cas.figures is not None
    assert 0.9999 <= backbone.figures.feature_cosine < 1.0
    assert 0.0 < cas.figures.cas_error < 0.03
    for network, original in ((backbone, backbone_file()), (cas, cas_file())):
        assert network.model.endswith("-float16")
        folder = repository / network.model / "1"
        assert (folder / "float32.onnx").read_bytes() == original
        assert (folder / "model.onnx").read_bytes() == to_float16(original)
    assert manifest.description.backbones[0].sha256 == backbone.float32_sha256


def test_a_manifest_without_it_does_not_speak_of_it(tmp_path: Path) -> None:
    manifest = write_exported(tmp_path, small_export())
    assert "float32_sha256" not in manifest.to_text()
    assert Manifest.model_validate(json.loads(manifest.to_text())) == manifest


def test_a_second_export_and_verify_find_the_same(repository: Path) -> None:
    bundle = proved(float16_export(), FLOAT16, ExportOptions(target="triton-gpu"))
    write_exported(repository, bundle)
    assert bundle_versions(repository, "small") == [1]
    (checked,) = verify(repository)
    assert checked.measured is not None
    assert checked.measured.cas == load_bundle(repository, "small").cas.figures


def test_the_two_sides_are_the_files_that_lie_there(repository: Path) -> None:
    manifest = load_bundle(repository, "small")
    features = np.random.default_rng(3).uniform(0, 1, (1, FEATURE_DIM, 20)).astype(np.float32)
    with in_float32(repository, manifest) as exact, as_served(repository, manifest) as served:
        wanted, found = exact.cas(features).cas, served.cas(features).cas
    (original,) = answers(cas_file(), features=features)
    np.testing.assert_array_equal(wanted, original)
    assert (found != wanted).any()
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    # By ONNX Runtime alone: what offline work has of the bundle.
    np.testing.assert_allclose(
        OnnxStages(repository, manifest).cas(features).cas, wanted, atol=2e-3
    )


@pytest.mark.parametrize("name", ["float32.onnx", "model.onnx"])
def test_a_file_that_was_changed_is_refused_by_name(repository: Path, name: str) -> None:
    path = repository / load_bundle(repository, "small").cas.model / "1" / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidFile, match=rf"{name} has the SHA-256"):
        list(verify(repository, measured=False))


def test_a_published_bundle_has_both_files(repository: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden"
    golden.mkdir()
    write_golden_set(golden)
    done = publish(repository, "small", tmp_path / "served", golden, say=lambda _: None)
    assert done.golden_map == pytest.approx(1.0)
    (checked,) = verify(tmp_path / "served")
    assert checked.measured is not None


def test_engines_are_built_from_the_float32_file(repository: Path, tmp_path: Path) -> None:
    video = tmp_path / "steady.mp4"
    video.write_bytes(steady(25))
    backbone, cas = networks_to_build(repository, load_bundle(repository, "small"), [video])
    assert (backbone.model_file, cas.model_file) == (backbone_file(), cas_file())


def test_values_beyond_float16_fail_the_gate() -> None:
    kernel = np.full((2, FEATURE_DIM, 1), 1e5, np.float32)
    graph = onnx.load_from_string(cas_file()).graph
    graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, graph.initializer[0].name))
    huge = small_export(FLOAT16, cas=to_bytes(graph))
    with pytest.raises(
        GateFailed, match=r"cas-.*-float16: \d+ of \d+ values .* are no finite numbers"
    ):
        proved(replace(huge, target="triton-gpu"), FLOAT16, ExportOptions(target="triton-gpu"))


def test_the_command_offers_it_to_gpus_alone(tmp_path: Path, capsys) -> None:
    words = ["export", "kinetics400", "--repository", str(tmp_path), "--precision", "float16"]
    assert cli.main(words) != 0
    assert "'float16', allowed for embedded are float32, bfloat16" in capsys.readouterr().err
