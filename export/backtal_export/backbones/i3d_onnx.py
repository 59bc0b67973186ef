"""I3D as an ONNX graph: uint8 clips in, features out, built from the table of layers.

Written node by node rather than traced. The bytes then depend on the weights and this file alone,
not on the version of torch, so their hash can name the backbone in a checkpoint that outlives an
upgrade; the padding sits in the convolutions instead of in nodes of its own; and neither making
nor checking a `kinetics400` bundle needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from backtal.manifest import FLOW_CHANNELS, FLOW_IN_NETWORK, RGB_CHANNELS, ClipPlan, StreamName
from backtal_export.backbones.i3d_layers import (
    FEATURE_DIM,
    FLOW_BOUND_PIXELS,
    Conv,
    Layer,
    MaxPool,
    Mixed,
    Triple,
    Weights,
    folded,
    i3d_layers,
    output_sizes,
    same_padding,
)
from backtal_export.flow.tvl1_onnx import tvl1_flow
from backtal_export.flow.tvl1_settings import Tvl1Settings
from backtal_export.graph_writer import GraphWriter


def i3d_rgb_onnx(weights: Weights) -> bytes:
    """The model file: `clips` uint8 [N, 16, 224, 224, 3] in, `features` float32 [N, 1024] out.

    The pixels are scaled to x / 127.5 - 1 in the graph, the batch norms are folded into the
    convolutions, and a clip's feature is the mean over the 2 x 7 x 7 positions that remain.
    The same weights give the same bytes.
    """
    graph = _Graph(weights, ClipPlan())
    pixels = graph.node("Transpose", ["clips"], perm=[0, 4, 1, 2, 3])
    pixels = graph.node("Cast", [pixels], to=TensorProto.FLOAT)
    pixels = graph.node("Div", [pixels, graph.constant("half_range", np.float32(127.5))])
    value = graph.node("Sub", [pixels, graph.constant("one", np.float32(1))])
    return graph.network("i3d_rgb", value, "rgb")


def i3d_flow_onnx(weights: Weights) -> bytes:
    """The model file: `clips` float32 [N, 16, 224, 224, 2] in, `features` float32 [N, 1024] out.

    The flow comes in pixels a tick. As the published features have it, it is cut to
    +-`FLOW_BOUND_PIXELS` and divided by that, in the graph; the rest is `i3d_rgb_onnx`'s.
    """
    graph = _Graph(weights, ClipPlan())
    return graph.network("i3d_flow", graph.bounded("clips"), "flow")


def i3d_flow_tvl1_onnx(
    weights: Weights, plan: ClipPlan | None = None, settings: Tvl1Settings | None = None
) -> bytes:
    """The model file: `clips` uint8 [N, 17, 224, 224, 3] in, `features` float32 [N, 1024] out.

    RGB, as decoded: TV-L1 (`flow.tvl1_onnx`) finds the flow, the rest is `i3d_flow_onnx`'s.
    plan: with other frames and pixels; settings: with fewer iterations.
    """
    plan = (plan or ClipPlan()).model_copy(update={"flow": FLOW_IN_NETWORK})
    graph = _Graph(weights, plan)
    flow = tvl1_flow(graph, "clips", plan.frames_per_clip, plan.crop_pixels, settings)
    return graph.network("i3d_flow_tvl1", graph.bounded(flow), "flow")


class _Graph(GraphWriter):
    def __init__(self, weights: Weights, plan: ClipPlan) -> None:
        super().__init__()
        self._weights = weights
        self._plan = plan

    def bounded(self, flow: str) -> str:
        bound = np.float32(FLOW_BOUND_PIXELS)
        least, most = self.constant("least", -bound), self.constant("most", bound)
        flow = self.node("Transpose", [flow], perm=[0, 4, 1, 2, 3])
        return self.node("Div", [self.node("Clip", [flow, least, most]), most])

    def network(self, name: str, value: str, stream: StreamName) -> bytes:
        plan = self._plan
        sizes = (plan.frames_per_clip, plan.crop_pixels, plan.crop_pixels)
        for layer in i3d_layers(RGB_CHANNELS if stream == "rgb" else FLOW_CHANNELS):
            value, sizes = self.layer(layer, value, sizes)
        value = self.node("GlobalAveragePool", [value])
        self.node("Flatten", [value], output="features", axis=1)
        return self.backbone_file(name, stream=stream, feature_dim=FEATURE_DIM, plan=plan)

    def layer(self, layer: Layer, value: str, sizes: Triple) -> tuple[str, Triple]:
        if isinstance(layer, Conv):
            return self._conv(layer, value, sizes), output_sizes(sizes, layer.stride)
        if isinstance(layer, MaxPool):
            return self._max_pool(layer, value, sizes), output_sizes(sizes, layer.stride)
        return self._mixed(layer, value, sizes), sizes

    def _conv(self, conv: Conv, value: str, sizes: Triple) -> str:
        kernel, bias = folded(self._weights, conv)
        inputs = [
            value,
            self.constant(f"{conv.name}.weight", kernel),
            self.constant(f"{conv.name}.bias", bias),
        ]
        window = _window(conv.kernel, conv.stride, sizes)
        return self.node("Relu", [self.node("Conv", inputs, output=conv.name, **window)])

    def _max_pool(self, pool: MaxPool, value: str, sizes: Triple) -> str:
        return self.node("MaxPool", [value], **_window(pool.kernel, pool.stride, sizes))

    def _mixed(self, mixed: Mixed, value: str, sizes: Triple) -> str:
        ends: list[str] = []
        for branch in mixed.branches:
            end = value
            for part in branch:
                end, _ = self.layer(part, end, sizes)
            ends.append(end)
        return self.node("Concat", ends, output=mixed.name, axis=1)


def _window(kernel: Triple, stride: Triple, sizes: Triple) -> dict[str, Any]:
    before, after = same_padding(sizes, kernel, stride)
    return {"kernel_shape": kernel, "strides": stride, "pads": (*before, *after)}
