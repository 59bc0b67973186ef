"""I3D as an ONNX graph: uint8 clips in, features out, built from the table of layers.

Written node by node rather than traced. The bytes then depend on the weights and this file alone,
not on the version of torch, so their hash can name the backbone in a checkpoint that outlives an
upgrade; the padding sits in the convolutions instead of in nodes of its own; and neither making
nor checking a `kinetics400` bundle needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backtal_export.backbones.i3d_layers import (
    FEATURE_DIM,
    Array,
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
from backtal_export.onnx_file import to_bytes

FRAMES_PER_CLIP = 16
CROP_PIXELS = 224


def i3d_rgb_onnx(weights: Weights) -> bytes:
    """The model file: `clips` uint8 [N, 16, 224, 224, 3] in, `features` float32 [N, 1024] out.

    The pixels are scaled to x / 127.5 - 1 in the graph, the batch norms are folded into the
    convolutions, and a clip's feature is the mean over the 2 x 7 x 7 positions that remain.
    The same weights give the same bytes.
    """
    graph = _Graph(weights)
    sizes = (FRAMES_PER_CLIP, CROP_PIXELS, CROP_PIXELS)
    pixels = graph.node("Transpose", ["clips"], perm=[0, 4, 1, 2, 3])
    pixels = graph.node("Cast", [pixels], to=TensorProto.FLOAT)
    pixels = graph.node("Div", [pixels, graph.constant("half_range", np.float32(127.5))])
    value = graph.node("Sub", [pixels, graph.constant("one", np.float32(1))])
    for layer in i3d_layers(3):
        value, sizes = graph.layer(layer, value, sizes)
    value = graph.node("GlobalAveragePool", [value])
    graph.node("Flatten", [value], output="features", axis=1)
    clips = helper.make_tensor_value_info(
        "clips", TensorProto.UINT8, ["N", FRAMES_PER_CLIP, CROP_PIXELS, CROP_PIXELS, 3]
    )
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURE_DIM])
    return to_bytes(
        helper.make_graph(graph.nodes, "i3d_rgb", [clips], [features], graph.initializers)
    )


class _Graph:
    """The nodes so far; every method returns the name of the value it made."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._weights = weights

    def node(
        self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: Any
    ) -> str:
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array | np.float32) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

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
