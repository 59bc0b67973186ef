"""Inception-I3D as a table: what the torch port and the ONNX graph are both built from.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, figure 3. Every convolution
pads as TensorFlow's SAME does, has no bias, and is followed by batch norm without scale
(epsilon 1e-3) and ReLU; every pooling pads alike. Parameter names are those of the torch ports
in the wild (``Mixed_3b.b1a.conv3d.weight``), so that a file of theirs can be read too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BATCH_NORM_EPSILON = 1e-3
FEATURE_DIM = 1024
NUM_CLASSES = 400
# The published flow features: values beyond are cut, then divided by it.
FLOW_BOUND_PIXELS = 20.0
HEAD = "logits"
# An average over time and space at once: 16 frames leave 2 x 7 x 7 positions.
FINAL_POOL = (2, 7, 7)

Triple: TypeAlias = tuple[int, int, int]
Array: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = dict[str, Array]


@dataclass(frozen=True)
class Conv:
    """Convolution, batch norm, ReLU; weights ``<name>.conv3d.weight`` and ``<name>.bn.*``."""

    name: str
    in_channels: int
    out_channels: int
    kernel: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)


@dataclass(frozen=True)
class MaxPool:
    """Max pooling."""

    kernel: Triple
    stride: Triple


@dataclass(frozen=True)
class Mixed:
    """An Inception block: branches of one input, concatenated over channels."""

    name: str
    branches: tuple[tuple[Conv | MaxPool, ...], ...]


Layer: TypeAlias = Conv | MaxPool | Mixed


def same_padding(sizes: Triple, kernel: Triple, stride: Triple) -> tuple[Triple, Triple]:
    """TensorFlow's SAME: positions to pad before and after each of (time, height, width)."""
    totals = [
        max((-(-size // step) - 1) * step + width - size, 0)
        for size, width, step in zip(sizes, kernel, stride, strict=True)
    ]
    before = tuple(total // 2 for total in totals)
    after = tuple(total - total // 2 for total in totals)
    return before, after  # type: ignore[return-value]


def output_sizes(sizes: Triple, stride: Triple) -> Triple:
    """The (time, height, width) that a SAME layer leaves."""
    return tuple(-(-size // step) for size, step in zip(sizes, stride, strict=True))  # type: ignore[return-value]


def i3d_layers(input_channels: int) -> tuple[Layer, ...]:
    """The layers in order, up to the last Inception block; 3 input channels for RGB, 2 for flow."""
    layers: list[Layer] = [
        Conv("Conv3d_1a_7x7", input_channels, 64, (7, 7, 7), (2, 2, 2)),
        MaxPool((1, 3, 3), (1, 2, 2)),
        Conv("Conv3d_2b_1x1", 64, 64),
        Conv("Conv3d_2c_3x3", 64, 192, (3, 3, 3)),
        MaxPool((1, 3, 3), (1, 2, 2)),
    ]
    channels = 192
    for step in _INCEPTION:
        if isinstance(step, MaxPool):
            layers.append(step)
            continue
        name, widths = step
        layers.append(_mixed(name, channels, widths))
        channels = widths[0] + widths[2] + widths[4] + widths[5]
    return tuple(layers)


def convolutions(layers: tuple[Layer, ...]) -> list[Conv]:
    """Every convolution of the table, in order."""
    found: list[Conv] = []
    for layer in layers:
        if isinstance(layer, Conv):
            found.append(layer)
        elif isinstance(layer, Mixed):
            found += [
                part for branch in layer.branches for part in branch if isinstance(part, Conv)
            ]
    return found


def weight_shapes(input_channels: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a file of weights must hold."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in convolutions(i3d_layers(input_channels)):
        shapes[f"{conv.name}.conv3d.weight"] = (conv.out_channels, conv.in_channels, *conv.kernel)
        for statistic in ("bias", "running_mean", "running_var"):
            shapes[f"{conv.name}.bn.{statistic}"] = (conv.out_channels,)
    shapes[f"{HEAD}.conv3d.weight"] = (NUM_CLASSES, FEATURE_DIM, 1, 1, 1)
    shapes[f"{HEAD}.conv3d.bias"] = (NUM_CLASSES,)
    return shapes


def folded(weights: Weights, conv: Conv) -> tuple[Array, Array]:
    """The kernel [out, in, t, h, w] and bias [out] of `conv` with its batch norm folded in."""
    kernel = weights[f"{conv.name}.conv3d.weight"].astype(np.float64)
    variance = weights[f"{conv.name}.bn.running_var"].astype(np.float64)
    mean = weights[f"{conv.name}.bn.running_mean"].astype(np.float64)
    scale = 1.0 / np.sqrt(variance + BATCH_NORM_EPSILON)
    bias = weights[f"{conv.name}.bn.bias"].astype(np.float64) - mean * scale
    return (kernel * scale[:, None, None, None, None]).astype(np.float32), bias.astype(np.float32)


def _mixed(name: str, channels: int, widths: tuple[int, ...]) -> Mixed:
    cube = (3, 3, 3)
    return Mixed(
        name,
        (
            (Conv(f"{name}.b0", channels, widths[0]),),
            (
                Conv(f"{name}.b1a", channels, widths[1]),
                Conv(f"{name}.b1b", widths[1], widths[2], cube),
            ),
            (
                Conv(f"{name}.b2a", channels, widths[3]),
                Conv(f"{name}.b2b", widths[3], widths[4], cube),
            ),
            (MaxPool(cube, (1, 1, 1)), Conv(f"{name}.b3b", channels, widths[5])),
        ),
    )


_INCEPTION: tuple[tuple[str, tuple[int, ...]] | MaxPool, ...] = (
    ("Mixed_3b", (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", (128, 128, 192, 32, 96, 64)),
    MaxPool((3, 3, 3), (2, 2, 2)),
    ("Mixed_4b", (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", (256, 160, 320, 32, 128, 128)),
    MaxPool((2, 2, 2), (2, 2, 2)),
    ("Mixed_5b", (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", (384, 192, 384, 48, 128, 128)),
)
