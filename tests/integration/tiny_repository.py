"""A model repository that answers in milliseconds: two small random networks, one bundle.

The networks have the tensors of DESIGN's contracts, the models the configurations that every
bundle is exported with. The backbone is each clip's mean colour in
each quarter of its time, times a matrix; the CAS network is one convolution over nine positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    FlowMethod,
    Grid,
    Manifest,
    StreamName,
)
from backtal_export.flow.tvl1_onnx import tvl1_flow
from backtal_export.flow.tvl1_settings import Tvl1Settings
from backtal_export.graph_writer import GraphWriter
from backtal_export.model_folders import Exported, Variant, write_exported
from backtal_export.onnx_file import sha256_of, to_bytes
from backtal_export.runtimes import REFERENCE, Runtime

BUNDLE = "tiny"
CLASSES = ("jump", "run", "throw a ball")
FEATURE_DIM = 8
HALO_POSITIONS = 4


def write_tiny_repository(
    folder: Path,
    runtime: Runtime = REFERENCE,
    *,
    flow: FlowMethod | None = None,
    name: str = BUNDLE,
    cas_name: str = "tiny",
    cas_seed: int | None = None,
) -> Manifest:
    """Write the repository and give the bundle's manifest; with `flow` it has two streams.

    A CAS network of another name is another file that gives the same answers; of another seed,
    another network on the same backbone.
    """
    random = np.random.default_rng(7)
    backbones: dict[StreamName, bytes] = {"rgb": to_bytes(_backbone(random))}
    if flow is not None:
        backbones["flow"] = _flow_backbone(random, ClipPlan(flow=flow))
    if cas_seed is not None:
        random = np.random.default_rng(cas_seed)
    cas = to_bytes(_cas_network(random, len(backbones) * FEATURE_DIM, cas_name))
    exported = Exported(
        _description(name, backbones, flow),
        backbones=backbones,
        cas=cas,
        training={},
        backbone_variants={stream: Variant(file, runtime) for stream, file in backbones.items()},
        cas_variant=Variant(cas, runtime),
    )
    return write_exported(folder, exported)


def _description(
    name: str, backbones: dict[StreamName, bytes], flow: FlowMethod | None
) -> BundleDescription:
    plan = ClipPlan(flow=flow)
    return BundleDescription(
        name=name,
        classes=CLASSES,
        clip_plan=plan,
        backbones=tuple(
            Backbone(
                name=f"tiny-{stream}",
                stream=stream,
                sha256=sha256_of(data),
                feature_dim=FEATURE_DIM,
            )
            for stream, data in backbones.items()
        ),
        grid=Grid(position_seconds=plan.stride_seconds, window_positions=12),
        cas=CasKind(kind="logits", background=True, magnitude=True, halo_positions=HALO_POSITIONS),
        localization=LocalizationSettings(class_score_threshold=0.0, max_segments=50),
    )


def _backbone(random: np.random.Generator) -> onnx.GraphProto:
    weights = random.normal(size=(4 * 3, FEATURE_DIM)).astype(np.float32) / 128
    nodes = [
        helper.make_node("Reshape", ["clips", "quarters"], ["parts"]),
        helper.make_node("Cast", ["parts"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["features"]),
    ]
    constants = {
        "quarters": np.array([-1, 4, 4 * 224 * 224, 3], np.int64),
        "axes": np.array([2], np.int64),
        "flat": np.array([-1, 4 * 3], np.int64),
        "weights": weights,
    }
    clips = helper.make_tensor_value_info("clips", TensorProto.UINT8, ["n", 16, 224, 224, 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURE_DIM])
    return _graph(nodes, [clips], [features], constants)


def _flow_backbone(random: np.random.Generator, plan: ClipPlan) -> bytes:
    """The mean flow of each clip, and its mean size, times a matrix.

    Where the plan has the network find the flow, a TV-L1 of very few steps does.
    """
    graph = GraphWriter()
    flow = "clips"
    if plan.takes_frames("flow"):
        few = Tvl1Settings(num_scales=1, num_warps=1, num_inner=2)
        flow = tvl1_flow(graph, "clips", plan.frames_per_clip, plan.crop_pixels, few)
    axes = graph.constant("axes", np.array([1, 2, 3], np.int64))
    means = [
        graph.node("ReduceMean", [value, axes], keepdims=0)
        for value in (flow, graph.node("Abs", [flow]))
    ]
    weights = graph.constant("weights", random.normal(size=(4, FEATURE_DIM)).astype(np.float32))
    row = graph.node("Concat", means, axis=1)
    graph.node("MatMul", [row, weights], output="features")
    return graph.backbone_file("tiny_flow", stream="flow", feature_dim=FEATURE_DIM, plan=plan)


def _cas_network(random: np.random.Generator, feature_dim: int, name: str) -> onnx.GraphProto:
    channels = len(CLASSES) + 1
    width = 2 * HALO_POSITIONS + 1
    kernel = random.normal(size=(channels, feature_dim, width)).astype(np.float32)
    pads = [HALO_POSITIONS, HALO_POSITIONS]
    nodes = [
        helper.make_node("Conv", ["features", "kernel"], ["cas"], pads=pads),
        helper.make_node("ReduceL2", ["features", "channels"], ["magnitude"], keepdims=0),
    ]
    constants = {"kernel": kernel, "channels": np.array([1], np.int64)}
    kind = TensorProto.FLOAT
    features = helper.make_tensor_value_info("features", kind, ["b", feature_dim, "l"])
    cas = helper.make_tensor_value_info("cas", kind, ["b", channels, "l"])
    magnitude = helper.make_tensor_value_info("magnitude", kind, ["b", "l"])
    return _graph(nodes, [features], [cas, magnitude], constants, name)


def _graph(
    nodes: Any, inputs: Any, outputs: Any, constants: Any, name: str = "tiny"
) -> onnx.GraphProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(nodes, name, inputs, outputs, initializers)
