"""EfficientNet-Lite0 as an ONNX graph: uint8 clips in, features out, from the table of layers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from backtal.manifest import RGB_CHANNELS, ClipPlan
from backtal_export.backbones.fetched import Weights
from backtal_export.backbones.i3d_layers import same_padding
from backtal_export.backbones.lite0_layers import (
    FEATURE_DIM,
    FRAME_FEATURE_DIM,
    FRAMES_SAMPLED,
    PIXEL_MEAN,
    PIXEL_SCALE,
    RELU6_BOUND,
    Block,
    Conv,
    folded,
    lite0_blocks,
)
from backtal_export.graph_writer import GraphWriter


def lite0_onnx(weights: Weights) -> bytes:
    """The model file: `clips` uint8 [N, 16, 224, 224, 3] in, `features` float32 [N, 2560] out.

    Sampling, normalisation and pooling are in the graph, batch norms are folded into the
    convolutions. The same weights give the same bytes.
    """
    plan = ClipPlan()
    graph = _Graph(weights, plan.crop_pixels)
    value = graph.frames()
    for block in lite0_blocks():
        value = graph.block(block, value)
    graph.pooled(graph.node("GlobalAveragePool", [value]))
    return graph.backbone_file(
        "efficientnet_lite0", stream="rgb", feature_dim=FEATURE_DIM, plan=plan
    )


class _Graph(GraphWriter):
    """`_size` is that of the square that the next convolution sees."""

    def __init__(self, weights: Weights, size: int) -> None:
        super().__init__()
        self._weights = weights
        self._size = size
        self._bounds = [
            self.constant("zero", np.float32(0)),
            self.constant("six", np.float32(RELU6_BOUND)),
        ]

    def frames(self) -> str:
        """The sampled frames, normalised: [4 N, 3, H, W]."""
        taken = self.constant("frames_sampled", np.array(FRAMES_SAMPLED, np.int64))
        shape = np.array([-1, self._size, self._size, RGB_CHANNELS], np.int64)
        frames = self.node("Gather", ["clips", taken], axis=1)
        frames = self.node("Reshape", [frames, self.constant("frame_shape", shape)])
        frames = self.node("Transpose", [frames], perm=[0, 3, 1, 2])
        frames = self.node("Cast", [frames], to=TensorProto.FLOAT)
        frames = self.node("Sub", [frames, self.constant("pixel_mean", np.float32(PIXEL_MEAN))])
        return self.node("Div", [frames, self.constant("pixel_scale", np.float32(PIXEL_SCALE))])

    def block(self, block: Block, value: str) -> str:
        end = value
        for conv in block.convolutions:
            end = self._conv(conv, end)
        return self.node("Add", [value, end]) if block.residual else end

    def pooled(self, value: str) -> None:
        """Mean and mean absolute change over a clip's frames, side by side: `features`."""
        by_clip = np.array([-1, len(FRAMES_SAMPLED), FRAME_FEATURE_DIM], np.int64)
        frames = self.node("Reshape", [value, self.constant("clip_shape", by_clip)])
        first, second = (self.constant(f"index_{i}", np.array([i], np.int64)) for i in (0, 1))
        last = self.constant("index_last", np.array([-1], np.int64))
        end = self.constant("index_end", np.array([len(FRAMES_SAMPLED)], np.int64))
        before = self.node("Slice", [frames, first, last, second])
        after = self.node("Slice", [frames, second, end, second])
        change = self.node("Abs", [self.node("Sub", [after, before])])
        means = [self.node("ReduceMean", [part, second], keepdims=0) for part in (frames, change)]
        self.node("Concat", means, output="features", axis=1)

    def _conv(self, conv: Conv, value: str) -> str:
        kernel, bias = folded(self._weights, conv)
        before, after = same_padding(
            (1, self._size, self._size),
            (1, conv.kernel, conv.kernel),
            (1, conv.stride, conv.stride),
        )
        self._size = -(-self._size // conv.stride)
        result = self.node(
            "Conv",
            [
                value,
                self.constant(f"{conv.name}.kernel", kernel),
                self.constant(f"{conv.name}.bias", bias),
            ],
            output=conv.name,
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[*before[1:], *after[1:]],
            group=conv.groups,
        )
        return self.node("Clip", [result, *self._bounds]) if conv.activated else result
