"""EfficientNet-Lite0 as a table, and how its frames become a clip's feature.

Tan and Le, "EfficientNet", ICML 2019, table 1, in its Lite form: no squeeze-and-excitation, ReLU6
for swish. Convolutions pad as TensorFlow's SAME does, have no bias, and are followed by batch norm
(epsilon 1e-3). Parameter names are those of the package that the weights come from.

A clip is four frames, each the middle of a quarter of it. Their 1280 features, averaged over the
frame, become two halves: their mean over the four, and the mean size of their change from one to
the next. The first says what is there, the second that something happens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtal_export.backbones.fetched import Shapes, Weights
from backtal_export.backbones.i3d_layers import Array

BATCH_NORM_EPSILON = 1e-3
FRAME_FEATURE_DIM = 1280
FEATURE_DIM = 2 * FRAME_FEATURE_DIM
FRAMES_SAMPLED = (2, 6, 10, 14)
# Pixels are (x - 127) / 128.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
RELU6_BOUND = 6.0

# Kernel, stride, expansion, channels out, repeats.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_CHANNELS = 32


@dataclass(frozen=True)
class Conv:
    """Convolution and batch norm, then ReLU6 where `activated`; depthwise where `groups` > 1."""

    name: str
    batch_norm: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activated: bool = True


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; with `residual` the block's input is added to what they give."""

    convolutions: tuple[Conv, ...]
    residual: bool


def lite0_blocks() -> tuple[Block, ...]:
    """Stem, sixteen inverted bottlenecks, head, in order."""
    stem = Conv("_conv_stem", "_bn0", 3, _STEM_CHANNELS, kernel=3, stride=2)
    blocks = [Block((stem,), residual=False)]
    channels = _STEM_CHANNELS
    for kernel, stride, expansion, out_channels, repeats in _STAGES:
        for repeat in range(repeats):
            blocks.append(
                _bottleneck(
                    f"_blocks.{len(blocks) - 1}",
                    channels,
                    out_channels,
                    kernel=kernel,
                    stride=stride if repeat == 0 else 1,
                    expansion=expansion,
                )
            )
            channels = out_channels
    head = Conv("_conv_head", "_bn1", channels, FRAME_FEATURE_DIM)
    return (*blocks, Block((head,), residual=False))


def lite0_shapes() -> Shapes:
    """The names and shapes of the weights; ImageNet's classifier is left out."""
    shapes: Shapes = {}
    for block in lite0_blocks():
        for conv in block.convolutions:
            square = (conv.kernel, conv.kernel)
            in_channels = conv.in_channels // conv.groups
            shapes[f"{conv.name}.weight"] = (conv.out_channels, in_channels, *square)
            for statistic in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{conv.batch_norm}.{statistic}"] = (conv.out_channels,)
    return shapes


def folded(weights: Weights, conv: Conv) -> tuple[Array, Array]:
    """The kernel [out, in, h, w] and bias [out] of `conv` with its batch norm folded in."""

    def of(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return weights[name].astype(np.float64)

    norm = conv.batch_norm
    scale = of(f"{norm}.weight") / np.sqrt(of(f"{norm}.running_var") + BATCH_NORM_EPSILON)
    kernel = of(f"{conv.name}.weight") * scale[:, None, None, None]
    bias = of(f"{norm}.bias") - of(f"{norm}.running_mean") * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


def _bottleneck(
    name: str, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int
) -> Block:
    wide = in_channels * expansion
    depthwise = Conv(
        f"{name}._depthwise_conv", f"{name}._bn1", wide, wide, kernel, stride, groups=wide
    )
    project = Conv(f"{name}._project_conv", f"{name}._bn2", wide, out_channels, activated=False)
    convolutions: tuple[Conv, ...] = (depthwise, project)
    if expansion > 1:
        expand = Conv(f"{name}._expand_conv", f"{name}._bn0", in_channels, wide)
        convolutions = (expand, *convolutions)
    return Block(convolutions, residual=stride == 1 and in_channels == out_channels)
