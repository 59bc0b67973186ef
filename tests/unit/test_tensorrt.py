"""What can be known of TensorRT engines without a GPU, and what is said where there is none.

Without one this checks: that every operator and opset of our files is one that TensorRT's parser
reads, that the file made for it answers the same, the precisions' files, the shapes of the
profiles, and the sentences that say what is missing. Where a GPU and TensorRT are, an engine is
built and run too.
"""

from __future__ import annotations

import argparse
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from backtal.errors import Internal, InvalidArgument, InvalidFile, MissingDependency
from backtal.extraction import CLIPS_PER_BATCH
from backtal.manifest import ClipPlan
from backtal.runtime import PROVIDERS, session_options
from backtal_export.backbones.i3d_onnx import i3d_flow_onnx, i3d_flow_tvl1_onnx, i3d_rgb_onnx
from backtal_export.backbones.lite0_layers import lite0_shapes
from backtal_export.backbones.lite0_onnx import lite0_onnx
from backtal_export.cas_network import cas_onnx
from backtal_export.commands import engine as command
from backtal_export.float16 import to_float16
from backtal_export.flow.tvl1_settings import Tvl1Settings
from backtal_export.graph_writer import GraphWriter
from backtal_export.kinetics400 import kinetics400_cas_onnx
from backtal_export.tensorrt import engine
from backtal_export.tensorrt.bundle import in_precision, networks_to_build
from backtal_export.tensorrt.int8 import to_int8
from backtal_export.tensorrt.network import for_tensorrt
from backtal_export.tensorrt.profiles import (
    ShapeProfile,
    clips_profile,
    features_profile,
)
from backtal_training.network import BackTALNetwork, NetworkSettings
from tests.i3d_weights import seeded_weights
from tests.made_videos import steady
from tests.requirements import require
from tests.unit.bundles import describe

PLAN = ClipPlan(crop_pixels=16, short_side_pixels=16)
SMALL = NetworkSettings(
    feature_dim=8,
    num_classes=2,
    hidden_dim=6,
    embedding_hidden_dim=4,
    embedding_dim=3,
    filter_hidden_dim=4,
)


def small_backbone() -> bytes:
    """Pixels, moved about before they are cast, then a convolution over time and space."""
    random = np.random.default_rng(0)
    graph = GraphWriter()
    value = graph.node("Transpose", ["clips"], perm=[0, 4, 1, 2, 3])
    value = graph.node("Cast", [value], to=TensorProto.FLOAT)
    value = graph.node("Div", [value, graph.constant("range", np.float32(255))])
    kernel = random.normal(0, 0.2, (8, 3, 3, 3, 3)).astype(np.float32)
    bias = graph.constant("bias", random.normal(0, 0.1, 8).astype(np.float32))
    value = graph.node("Conv", [value, graph.constant("kernel", kernel), bias])
    value = graph.node("GlobalAveragePool", [graph.node("Relu", [value])])
    graph.node("Flatten", [value], output="features", axis=1)
    return graph.backbone_file("small", stream="rgb", feature_dim=8, plan=PLAN)


def clips(count: int = 3) -> np.ndarray:
    shape = (count, PLAN.frames_per_clip, PLAN.crop_pixels, PLAN.crop_pixels, 3)
    return np.random.default_rng(count).integers(0, 256, shape, np.uint8)


def answers(model_file: bytes, **inputs: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model_file, session_options(1), providers=list(PROVIDERS)
    )
    return session.run(None, inputs)[0]


def zeros() -> dict[str, np.ndarray]:
    return {name: np.ones(shape, np.float32) for name, shape in lite0_shapes().items()}


FILES = {
    "i3d-rgb": lambda: i3d_rgb_onnx(seeded_weights()),
    "i3d-flow": lambda: i3d_flow_onnx(seeded_weights(2)),
    "efficientnet-lite0": lambda: lite0_onnx(zeros()),
    "kinetics400": lambda: kinetics400_cas_onnx([seeded_weights()]),
    "cas-paper": lambda: cas_onnx(BackTALNetwork(SMALL)),
    "cas-released": lambda: cas_onnx(
        BackTALNetwork(SMALL.model_copy(update={"layout": "released"}))
    ),
    "i3d-flow-tvl1": lambda: i3d_flow_tvl1_onnx(
        seeded_weights(2), PLAN, Tvl1Settings(num_scales=2, num_warps=1, num_inner=2)
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_tensorrt_reads_every_operator_of_our_files(name: str) -> None:
    ready = onnx.load_from_string(for_tensorrt(FILES[name]()))
    onnx.checker.check_model(ready, full_check=True)
    for value in ready.graph.input:
        takers = {node.op_type for node in ready.graph.node if value.name in node.input}
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            assert takers == {"Cast"}


def test_the_file_for_tensorrt_answers_the_same_bits() -> None:
    model_file = small_backbone()
    ready = for_tensorrt(model_file)
    assert ready != model_file
    np.testing.assert_array_equal(answers(ready, clips=clips()), answers(model_file, clips=clips()))


def test_what_tensorrt_does_not_read_is_named() -> None:
    graph = GraphWriter()
    graph.node("NonZero", [graph.node("Cast", ["clips"], to=TensorProto.FLOAT)], output="features")
    with pytest.raises(InvalidFile, match="does not read the operators NonZero"):
        for_tensorrt(graph.backbone_file("x", stream="rgb", feature_dim=1, plan=PLAN))
    model = onnx.load_from_string(small_backbone())
    model.opset_import[0].version = 8
    with pytest.raises(InvalidFile, match=r"opset ai\.onnx 8, TensorRT reads ai\.onnx 9 to"):
        for_tensorrt(model.SerializeToString())
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.opset_import[0].version = 18
    with pytest.raises(InvalidFile, match=r"opset com\.microsoft 1"):
        for_tensorrt(model.SerializeToString())


def test_float16_keeps_its_inputs_and_outputs_and_halves_the_weights() -> None:
    model_file = small_backbone()
    half = to_float16(model_file)
    assert half == to_float16(model_file)
    model = onnx.load_from_string(half)
    (output,) = model.graph.output
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    kernels = [tensor for tensor in model.graph.initializer if tensor.name == "kernel"]
    assert [tensor.data_type for tensor in kernels] == [TensorProto.FLOAT16]
    for_tensorrt(half)
    wanted, found = answers(model_file, clips=clips()), answers(half, clips=clips())
    assert not np.array_equal(found, wanted)
    assert engine.lowest_cosine({"features": found}, {"features": wanted}) > 0.99999


def test_int8_is_symmetric_and_read_by_tensorrt() -> None:
    model_file = small_backbone()
    batches = [{"clips": clips(2)}, {"clips": clips(1)}]
    quantized = to_int8(model_file, batches)
    model = onnx.load_from_string(for_tensorrt(quantized))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") >= 1
    assert kinds.count("DequantizeLinear") >= 2
    zero_points = [t for t in model.graph.initializer if t.name.endswith("zero_point")]
    assert zero_points
    for tensor in zero_points:
        assert not onnx.numpy_helper.to_array(tensor).any()
    wanted, found = answers(model_file, clips=clips()), answers(quantized, clips=clips())
    assert not np.array_equal(found, wanted)
    assert engine.lowest_cosine({"features": found}, {"features": wanted}) > 0.999
    with pytest.raises(InvalidArgument, match="0 batches"):
        to_int8(model_file, [])


def test_profiles_are_what_the_pipeline_sends() -> None:
    rgb = clips_profile(ClipPlan(), "rgb")
    assert rgb.smallest == (1, 16, 224, 224, 3)
    assert rgb.usual == rgb.largest == (CLIPS_PER_BATCH, 16, 224, 224, 3)
    assert clips_profile(ClipPlan(flow="dis"), "flow").largest[-1] == 2
    assert clips_profile(ClipPlan(flow="tvl1-network"), "flow").usual[1:] == (17, 224, 224, 3)
    assert clips_profile(ClipPlan(flow="tvl1-network"), "rgb").usual[1:] == (16, 224, 224, 3)
    features = features_profile(describe(window_positions=750))
    assert features.smallest == (1, 4, 1)
    assert features.largest == features.usual == (1, 4, 520)


@given(st.integers(2, 2000), st.integers(1, 64), st.integers(0, 16))
def test_profiles_of_any_plan_are_in_order(window: int, frames: int, halo: int) -> None:
    plan = ClipPlan(frames_per_clip=frames)
    description = describe(window_positions=window)
    cas = description.cas.model_copy(update={"halo_positions": halo})
    description = description.model_copy(update={"cas": cas, "clip_plan": plan})
    for profile in (clips_profile(plan, "rgb"), features_profile(description)):
        assert all(
            low <= middle <= high
            for low, middle, high in zip(
                profile.smallest, profile.usual, profile.largest, strict=True
            )
        )


@pytest.mark.parametrize("shapes", [((2,), (1,), (3,)), ((1,), (1, 1), (1,)), ((0,), (1,), (1,))])
def test_a_profile_out_of_order_is_refused(shapes) -> None:
    with pytest.raises(ValueError, match="clips: .* does not hold"):
        ShapeProfile("clips", *shapes)


def test_the_lowest_cosine_is_of_the_worst_item() -> None:
    wanted = {"a": np.array([[1.0, 0], [0, 1]]), "b": np.zeros((2, 3))}
    assert engine.lowest_cosine(wanted, wanted) == 1
    assert engine.lowest_cosine({**wanted, "a": np.eye(2)[::-1]}, wanted) == 0
    assert engine.lowest_cosine({**wanted, "b": np.ones((2, 3))}, wanted) == 0
    for value in (np.nan, np.inf):
        found = {**wanted, "a": np.array([[1.0, 0], [value, 1]])}
        assert engine.lowest_cosine(found, wanted) == -1
    with pytest.raises(Internal, match=r"output b is \[3, 3\], expected \[2, 3\]"):
        engine.lowest_cosine({**wanted, "b": np.zeros((3, 3))}, wanted)


def test_without_a_driver_the_machine_is_told(tmp_path, monkeypatch) -> None:
    missing = engine.gpu_problem(library="libno-such-cuda.so.1")
    assert missing == "this machine has no driver for one (libno-such-cuda.so.1 is not there)"
    monkeypatch.setattr(engine, "gpu_problem", lambda: missing)
    with pytest.raises(MissingDependency, match="built on an NVIDIA GPU: this machine has no driv"):
        engine.build_engine(small_backbone(), [])


def test_without_tensorrt_or_with_an_old_one_the_package_is_told(monkeypatch) -> None:
    monkeypatch.setattr(engine, "gpu_problem", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match="not installed.*tensorrt-cu12>=10,<12"):
        engine.check_machine()
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.1"))
    with pytest.raises(MissingDependency, match=r"TensorRT is 8\.6\.1, needed is 10\.0"):
        engine.check_machine()


def test_the_command_says_what_is_missing_before_it_reads_a_video(tmp_path, monkeypatch) -> None:
    from tests.integration.tiny_repository import BUNDLE, write_tiny_repository

    write_tiny_repository(tmp_path)
    monkeypatch.setattr(engine, "gpu_problem", lambda: "there is none")
    parser = argparse.ArgumentParser()
    command.configure(parser)
    words = [str(tmp_path / BUNDLE), "--videos", "no.mp4", "--to", str(tmp_path / "engines")]
    with pytest.raises(MissingDependency, match="NVIDIA GPU: there is none"):
        command.run(parser.parse_args(words))


def test_a_bundles_networks_come_with_their_shapes_and_clips_of_a_video(tmp_path) -> None:
    from tests.integration.tiny_repository import write_tiny_repository

    manifest = write_tiny_repository(tmp_path / "repository", flow="dis")
    video = tmp_path / "one.mp4"
    video.write_bytes(steady(50))
    rgb, flow, cas = networks_to_build(tmp_path / "repository", manifest, [video])
    assert rgb.model == manifest.backbones["rgb"].model
    (batch,) = (batch["clips"] for batch in rgb.batches)
    assert (batch.dtype, batch.shape) == (np.uint8, (3, 16, 224, 224, 3))
    (batch,) = (batch["clips"] for batch in flow.batches)
    assert (batch.dtype, batch.shape) == (np.float32, (3, 16, 224, 224, 2))
    assert flow.profile.largest == (CLIPS_PER_BATCH, 16, 224, 224, 2)
    for network in (rgb, flow, cas):
        (inputs,) = network.batches
        assert [network.profile.name] == list(inputs)
        wanted = answers(network.model_file, **inputs)
        for precision in ("float32", "float16", "int8"):
            found = answers(for_tensorrt(in_precision(network, precision)), **inputs)
            assert engine.lowest_cosine({"x": found}, {"x": wanted}) > 0.99
    with pytest.raises(InvalidArgument, match="at least one video"):
        networks_to_build(tmp_path / "repository", manifest, [])


def test_a_network_that_finds_flow_comes_with_frames(tmp_path) -> None:
    from tests.integration.tiny_repository import write_tiny_repository

    manifest = write_tiny_repository(tmp_path / "repository", flow="tvl1-network")
    video = tmp_path / "one.mp4"
    video.write_bytes(steady(20))
    _, flow, _ = networks_to_build(tmp_path / "repository", manifest, [video])
    (batch,) = (batch["clips"] for batch in flow.batches)
    assert (batch.dtype, batch.shape) == (np.uint8, (1, 17, 224, 224, 3))
    assert flow.profile.largest == (CLIPS_PER_BATCH, 17, 224, 224, 3)


@pytest.mark.parametrize("precision", [None, to_float16])
def test_an_engine_answers_as_onnx_runtime(precision, tmp_path) -> None:
    try:
        engine.check_machine()
    except MissingDependency as error:
        require("tensorrt", error.message)
    model_file = small_backbone()
    settings = engine.BuildSettings(timing_cache=tmp_path / "timings")
    source = model_file if precision is None else precision(model_file)
    built = engine.build_engine(source, [clips_profile(PLAN, "rgb")], settings)
    assert (tmp_path / "timings").stat().st_size > 0
    for count in (1, CLIPS_PER_BATCH):
        assert engine.engine_cosine(built, model_file, {"clips": clips(count)}) > 0.9999
