"""A model repository that answers in milliseconds: two small random networks, one bundle.

The networks have the tensors of DESIGN's contracts. The backbone is each clip's mean colour in
each quarter of its time, times a matrix; the CAS network is one convolution over nine positions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    MANIFEST_NAME,
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    Grid,
    Manifest,
    Network,
)

BUNDLE = "tiny"
CLASSES = ("jump", "run", "throw a ball")
FEATURE_DIM = 8
HALO_POSITIONS = 4

# KIND_CPU, one instance: so that the arithmetic is the same as in process.
_NETWORK = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input [{input}]
output [{outputs}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
"""
_TENSOR = '{{ name: "{name}" data_type: {kind} dims: [{dims}] {extra}}}'

_INPUTS = (
    ("video", "TYPE_STRING", "1"),
    ("uri", "TYPE_STRING", "1"),
    ("features", "TYPE_FP32", "-1, -1"),
    ("duration", "TYPE_FP32", "1"),
    ("clip_start_seconds", "TYPE_FP32", "-1"),
    ("clip_end_seconds", "TYPE_FP32", "-1"),
)
_OUTPUTS = (
    ("segments", "TYPE_FP32", "-1, 2"),
    ("scores", "TYPE_FP32", "-1"),
    ("labels", "TYPE_STRING", "-1"),
    ("duration", "TYPE_FP32", "1"),
    ("cas", "TYPE_FP32", "-1, -1"),
    ("position_seconds", "TYPE_FP32", "-1"),
    ("features", "TYPE_FP32", "-1, -1"),
    ("clip_start_seconds", "TYPE_FP32", "-1"),
    ("clip_end_seconds", "TYPE_FP32", "-1"),
    ("provenance", "TYPE_STRING", "1"),
)
_MODEL = """from backtal_serving.pipeline_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
"""


def write_tiny_repository(folder: Path) -> Manifest:
    """Write the repository and give the bundle's manifest."""
    random = np.random.default_rng(7)
    backbone = _write_network(
        folder,
        "tiny-rgb",
        _backbone(random),
        ("clips", "TYPE_UINT8", "-1, 16, 224, 224, 3"),
        (("features", "TYPE_FP32", f"-1, {FEATURE_DIM}"),),
    )
    cas = _write_network(
        folder,
        "cas",
        _cas_network(random),
        ("features", "TYPE_FP32", f"-1, {FEATURE_DIM}, -1"),
        (
            ("cas", "TYPE_FP32", f"-1, {len(CLASSES) + 1}, -1"),
            ("magnitude", "TYPE_FP32", "-1, -1"),
        ),
    )
    manifest = Manifest(description=_description(backbone), backbones={"rgb": backbone}, cas=cas)
    _write_bundle(folder, BUNDLE, manifest, decoupled=False)
    _write_bundle(folder, f"{BUNDLE}_stream", manifest, decoupled=True)
    return manifest


def _description(backbone: Network) -> BundleDescription:
    plan = ClipPlan()
    return BundleDescription(
        name=BUNDLE,
        classes=CLASSES,
        clip_plan=plan,
        backbones=(
            Backbone(
                name="tiny-rgb", stream="rgb", sha256=backbone.sha256, feature_dim=FEATURE_DIM
            ),
        ),
        grid=Grid(position_seconds=plan.stride_seconds, window_positions=12),
        cas=CasKind(kind="logits", background=True, magnitude=True, halo_positions=HALO_POSITIONS),
        localization=LocalizationSettings(class_score_threshold=0.0, max_segments=50),
    )


def _backbone(random: np.random.Generator) -> onnx.ModelProto:
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
    return _model(nodes, [clips], [features], constants)


def _cas_network(random: np.random.Generator) -> onnx.ModelProto:
    channels = len(CLASSES) + 1
    width = 2 * HALO_POSITIONS + 1
    kernel = random.normal(size=(channels, FEATURE_DIM, width)).astype(np.float32)
    pads = [HALO_POSITIONS, HALO_POSITIONS]
    nodes = [
        helper.make_node("Conv", ["features", "kernel"], ["cas"], pads=pads),
        helper.make_node("ReduceL2", ["features", "channels"], ["magnitude"], keepdims=0),
    ]
    constants = {"kernel": kernel, "channels": np.array([1], np.int64)}
    kind = TensorProto.FLOAT
    features = helper.make_tensor_value_info("features", kind, ["b", FEATURE_DIM, "l"])
    cas = helper.make_tensor_value_info("cas", kind, ["b", channels, "l"])
    magnitude = helper.make_tensor_value_info("magnitude", kind, ["b", "l"])
    return _model(nodes, [features], [cas, magnitude], constants)


def _model(nodes: Any, inputs: Any, outputs: Any, constants: Any) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _write_network(
    folder: Path, name: str, model: onnx.ModelProto, given: Any, gives: Any
) -> Network:
    data = model.SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{name}-{sha256[:8]}"
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(data)
    text = _NETWORK.format(name=name, input=_tensors([given]), outputs=_tensors(gives))
    (folder / name / "config.pbtxt").write_text(text)
    return Network(model=name, sha256=sha256)


def _write_bundle(folder: Path, name: str, manifest: Manifest, *, decoupled: bool) -> None:
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(_MODEL)
    manifest.save(version / MANIFEST_NAME)
    outputs = [*_OUTPUTS, ("progress", "TYPE_FP32", "2")] if decoupled else _OUTPUTS
    policy = "model_transaction_policy { decoupled: True }\n" if decoupled else ""
    (folder / name / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n'
        f"input [{_tensors(_INPUTS, 'optional: true ')}]\noutput [{_tensors(outputs)}]\n"
        f"{policy}instance_group [{{ count: 2 kind: KIND_CPU }}]\n"
    )


def _tensors(described: Any, extra: str = "") -> str:
    return ", ".join(
        _TENSOR.format(name=name, kind=kind, dims=dims, extra=extra)
        for name, kind, dims in described
    )
