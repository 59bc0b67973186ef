from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtal_export.backbones.i3d_layers import (
    BATCH_NORM_EPSILON,
    Conv,
    MaxPool,
    convolutions,
    folded,
    i3d_layers,
    output_sizes,
    same_padding,
    weight_shapes,
)

sizes = st.tuples(*[st.integers(1, 60)] * 3)
windows = st.tuples(*[st.integers(1, 8)] * 3)
strides = st.tuples(*[st.integers(1, 4)] * 3)


@given(sizes, windows, strides)
def test_same_padding_leaves_a_position_for_every_stride(size, kernel, stride) -> None:
    before, after = same_padding(size, kernel, stride)
    for axis in range(3):
        padded = size[axis] + before[axis] + after[axis]
        # A stride wider than the kernel skips the last pixels, and nothing is padded.
        positions = (padded - kernel[axis]) // stride[axis] + 1
        assert positions == math.ceil(size[axis] / stride[axis])
        assert after[axis] - before[axis] in (0, 1)
        if before[axis] + after[axis]:
            assert (positions - 1) * stride[axis] + kernel[axis] == padded


def test_same_padding_of_the_first_layer_is_wider_behind() -> None:
    assert same_padding((16, 224, 224), (7, 7, 7), (2, 2, 2)) == ((2, 2, 2), (3, 3, 3))


def test_a_clip_leaves_two_by_seven_by_seven_positions_of_1024_channels() -> None:
    left = (16, 224, 224)
    for layer in i3d_layers(3):
        if isinstance(layer, Conv | MaxPool):
            left = output_sizes(left, layer.stride)
    assert left == (2, 7, 7)
    last = i3d_layers(3)[-1]
    ends = [branch[-1] for branch in last.branches]
    assert sum(end.out_channels for end in ends) == 1024


def test_every_convolution_takes_what_the_one_before_gives() -> None:
    channels = 3
    for layer in i3d_layers(3):
        if isinstance(layer, Conv):
            assert layer.in_channels == channels
            channels = layer.out_channels
        elif not isinstance(layer, MaxPool):
            for branch in layer.branches:
                end = channels
                for part in branch:
                    if isinstance(part, Conv):
                        assert part.in_channels == end
                        end = part.out_channels
            channels = sum(branch[-1].out_channels for branch in layer.branches)


def test_the_parameters_are_as_many_as_published() -> None:
    numbers = {name: math.prod(shape) for name, shape in weight_shapes(3).items()}
    learned = sum(number for name, number in numbers.items() if "running" not in name)
    # The torch ports in the wild count 12,697,264: theirs has a scale in each batch norm.
    num_scales = sum(conv.out_channels for conv in convolutions(i3d_layers(3)))
    assert learned + num_scales == 12_697_264
    assert weight_shapes(2)["Conv3d_1a_7x7.conv3d.weight"] == (64, 2, 7, 7, 7)


def test_folding_a_batch_norm_keeps_the_answer() -> None:
    conv = next(conv for conv in convolutions(i3d_layers(3)) if conv.name == "Mixed_3b.b0")
    generator = np.random.default_rng(0)
    weights = {
        f"{conv.name}.conv3d.weight": generator.standard_normal((64, 192, 1, 1, 1)),
        f"{conv.name}.bn.bias": generator.standard_normal(64),
        f"{conv.name}.bn.running_mean": generator.standard_normal(64),
        f"{conv.name}.bn.running_var": generator.uniform(0.01, 2, 64),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    kernel, bias = folded(weights, conv)
    pixel = generator.standard_normal(192)
    plain = weights[f"{conv.name}.conv3d.weight"][:, :, 0, 0, 0] @ pixel
    spread = np.sqrt(weights[f"{conv.name}.bn.running_var"] + BATCH_NORM_EPSILON)
    wanted = (plain - weights[f"{conv.name}.bn.running_mean"]) / spread
    wanted = wanted + weights[f"{conv.name}.bn.bias"]
    np.testing.assert_allclose(kernel[:, :, 0, 0, 0] @ pixel + bias, wanted, rtol=1e-4, atol=1e-4)
