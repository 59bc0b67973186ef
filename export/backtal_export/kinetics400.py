"""The bundle that needs no training: I3D's own Kinetics head as the CAS network.

The head is linear on the averaged features, so a 1x1 convolution over time gives each position's
logits. Their level drifts with the scene; the softmax over the 400 classes at each position does
not, and is this bundle's CAS: a probability, thresholded as it is. No background, no magnitude.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from backtal.localization.settings import LocalizationSettings
from backtal.manifest import Backbone, BundleDescription, CasKind, ClipPlan, Grid
from backtal_export.backbones.i3d_layers import FEATURE_DIM, HEAD, NUM_CLASSES, Weights
from backtal_export.onnx_file import to_bytes

NAME = "kinetics400"
I3D_RGB_NAME = "i3d-rgb"
_CLASSES = Path(__file__).parent / "data" / "kinetics400_classes.txt"


def kinetics400_classes() -> tuple[str, ...]:
    """The class names in the head's order."""
    lines = _CLASSES.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def kinetics400_description(backbone_sha256: str) -> BundleDescription:
    """The bundle on the backbone of that hash: a clip every 0.32 s, one position each."""
    clip_plan = ClipPlan(
        frames_per_second=25, stride_frames=8, short_side_pixels=256, crop_pixels=224
    )
    return BundleDescription(
        name=NAME,
        classes=kinetics400_classes(),
        clip_plan=clip_plan,
        backbones=(
            Backbone(
                name=I3D_RGB_NAME, stream="rgb", sha256=backbone_sha256, feature_dim=FEATURE_DIM
            ),
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


def kinetics400_cas_onnx(weights: Weights) -> bytes:
    """The model file: `features` float32 [B, 1024, L] in, `cas` float32 [B, 400, L] out."""
    kernel = weights[f"{HEAD}.conv3d.weight"].reshape(NUM_CLASSES, FEATURE_DIM, 1)
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(kernel), "head.weight"),
        numpy_helper.from_array(weights[f"{HEAD}.conv3d.bias"], "head.bias"),
    ]
    nodes = [
        helper.make_node("Conv", ["features", "head.weight", "head.bias"], ["logits"], name="head"),
        helper.make_node("Softmax", ["logits"], ["cas"], name="probability", axis=1),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", FEATURE_DIM, "L"])
    cas = helper.make_tensor_value_info("cas", TensorProto.FLOAT, ["B", NUM_CLASSES, "L"])
    return to_bytes(helper.make_graph(nodes, "kinetics400_cas", [features], [cas], constants))
