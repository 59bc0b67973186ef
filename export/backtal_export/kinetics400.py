"""The bundle that needs no training: I3D's own Kinetics head as the CAS network.

The head is linear on the averaged features, so a 1x1 convolution over time gives each position's
logits; those of two streams are added, as DeepMind's own evaluation does. Their level drifts with
the scene; the softmax over the 400 classes at each position does not, and is this bundle's CAS: a
probability, thresholded as it is. No background, no magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from backtal.backbones import BackboneSource, Say, check_weights, with_flow_of
from backtal.errors import InvalidArgument
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    FLOW_CHANNELS,
    RGB_CHANNELS,
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    Grid,
    StreamName,
)
from backtal_export.backbones.i3d_layers import FEATURE_DIM, HEAD, NUM_CLASSES, Weights
from backtal_export.backbones.i3d_onnx import i3d_flow_onnx, i3d_flow_tvl1_onnx, i3d_rgb_onnx
from backtal_export.backbones.sources import I3D_FLOW, I3D_FLOW_TVL1, I3D_RGB
from backtal_export.backbones.weights import i3d_rgb_weights, i3d_weights_of
from backtal_export.model_folders import Exported
from backtal_export.onnx_file import sha256_of, to_bytes

NAME = "kinetics400"
_FLOW_FILES: Mapping[BackboneSource, Callable[[Weights], bytes]] = {
    I3D_FLOW: i3d_flow_onnx,
    I3D_FLOW_TVL1: i3d_flow_tvl1_onnx,
}
_CLASSES = Path(__file__).parent / "data" / "kinetics400_classes.txt"


def kinetics400(weights: Mapping[str, Path], say: Say) -> Exported:
    """The bundle, of both streams where weights of I3D's flow are given, else of RGB alone.

    Raises InvalidArgument for weights of another backbone, and where both of flow's are given.
    """
    check_weights(weights, [I3D_RGB.name, *(source.name for source in _FLOW_FILES)])
    rgb_path = weights.get(I3D_RGB.name)
    rgb = i3d_rgb_weights(say) if rgb_path is None else i3d_weights_of(rgb_path, RGB_CHANNELS)
    heads, files = [rgb], {I3D_RGB: i3d_rgb_onnx(rgb)}
    flows = [source for source in _FLOW_FILES if source.name in weights]
    if len(flows) > 1:
        raise InvalidArgument(
            f"weights are given for {' and '.join(source.name for source in flows)}: "
            f"{NAME} has one of them"
        )
    for source in flows:
        flow = i3d_weights_of(weights[source.name], FLOW_CHANNELS)
        heads.append(flow)
        files[source] = _FLOW_FILES[source](flow)
    by_stream: dict[StreamName, bytes] = {source.stream: data for source, data in files.items()}
    return Exported(
        description=kinetics400_description(
            {source: sha256_of(data) for source, data in files.items()}
        ),
        backbones=by_stream,
        cas=kinetics400_cas_onnx(heads),
        training={},
        source="kinetics400, I3D's own head",
    )


def kinetics400_classes() -> tuple[str, ...]:
    """The class names in the head's order."""
    lines = _CLASSES.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def kinetics400_description(backbone_sha256: Mapping[BackboneSource, str]) -> BundleDescription:
    """The bundle on the backbones of these hashes: a clip every 0.32 s, one position each."""
    clip_plan = ClipPlan(
        frames_per_second=25,
        stride_frames=8,
        short_side_pixels=256,
        crop_pixels=224,
    )
    for source in backbone_sha256:
        clip_plan = with_flow_of(source, clip_plan)
    return BundleDescription(
        name=NAME,
        classes=kinetics400_classes(),
        clip_plan=clip_plan,
        backbones=tuple(
            Backbone(
                name=source.name,
                stream=source.stream,
                sha256=sha256,
                feature_dim=source.feature_dim,
            )
            for source, sha256 in backbone_sha256.items()
        ),
        grid=Grid(position_seconds=clip_plan.stride_seconds, window_positions=128),
        # A 1x1 convolution sees one position: a chunk needs no neighbours.
        cas=CasKind(kind="probability", background=False, magnitude=False, halo_positions=0),
        # A quarter of the positions and this gamma: a short burst of one class, as sure as a long
        # action of another, is scored below it, at whatever stride the clips have.
        localization=LocalizationSettings(
            top_k_ratio=0.25,
            cas_thresholds=(0.3, 0.4, 0.5, 0.6, 0.7),
            outer_width=0.25,
            gamma=0.4,
            # Soft-NMS was measured on networks trained from clicks; nothing is known of it here.
            nms_sigma=None,
        ),
    )


def kinetics400_cas_onnx(streams: Sequence[Weights]) -> bytes:
    """The model file: `features` float32 [B, D, L] in, `cas` float32 [B, 400, L] out.

    streams: the weights of each stream's I3D; D is 1024 of each, in their order.
    """
    kernel = np.concatenate([weights[f"{HEAD}.conv3d.weight"] for weights in streams], axis=1)
    kernel = kernel.reshape(NUM_CLASSES, len(streams) * FEATURE_DIM, 1)
    bias = np.sum([weights[f"{HEAD}.conv3d.bias"] for weights in streams], axis=0)
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(kernel), "head.weight"),
        numpy_helper.from_array(bias, "head.bias"),
    ]
    nodes = [
        helper.make_node("Conv", ["features", "head.weight", "head.bias"], ["logits"], name="head"),
        helper.make_node("Softmax", ["logits"], ["cas"], name="probability", axis=1),
    ]
    dim = kernel.shape[1]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", dim, "L"])
    cas = helper.make_tensor_value_info("cas", TensorProto.FLOAT, ["B", NUM_CLASSES, "L"])
    return to_bytes(helper.make_graph(nodes, "kinetics400_cas", [features], [cas], constants))
