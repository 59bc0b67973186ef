"""I3D in torch: the port that the reference logits lock and the ONNX graph is checked against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal.errors import InvalidFile
from backtal.manifest import FLOW_CHANNELS
from backtal_export.backbones.i3d_layers import (
    BATCH_NORM_EPSILON,
    FEATURE_DIM,
    FINAL_POOL,
    FLOW_BOUND_PIXELS,
    HEAD,
    NUM_CLASSES,
    Conv,
    MaxPool,
    Mixed,
    Triple,
    Weights,
    i3d_layers,
    same_padding,
    weight_shapes,
)


class I3D(nn.Module):
    """Inception-I3D up to its features, with the 400-way head of Kinetics beside them."""

    def __init__(self, input_channels: int = 3) -> None:
        super().__init__()
        self._input_channels = input_channels
        self._layers = i3d_layers(input_channels)
        for layer in self._layers:
            if isinstance(layer, Conv):
                self.add_module(layer.name, _Unit(layer))
            elif isinstance(layer, Mixed):
                self.add_module(layer.name, _Inception(layer))
        head = nn.Module()
        head.add_module("conv3d", nn.Conv3d(FEATURE_DIM, NUM_CLASSES, 1))
        self.add_module(HEAD, head)

    @classmethod
    def from_weights(cls, weights: Weights, input_channels: int = 3) -> I3D:
        """The network with these weights, for inference. Raises InvalidFile by name and shape."""
        for name, shape in weight_shapes(input_channels).items():
            found = weights[name].shape if name in weights else None
            if found != shape:
                raise InvalidFile(f"I3D weights: {name} has shape {found}, wanted is {shape}")
        network = cls(input_channels)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        return network.eval()

    def forward(self, clips: Tensor) -> Tensor:
        """Features [N, 1024] of clips [N, F, H, W, C]: the mean over time and space.

        RGB clips are uint8, flow clips float32 in pixels a tick.
        """
        return self.maps(clips).mean(dim=(2, 3, 4))

    def kinetics_logits(self, clips: Tensor) -> Tensor:
        """Kinetics logits [N, 400]: the mean of the head on averages of 2 x 7 x 7 positions."""
        head = self.get_submodule(HEAD).get_submodule("conv3d")
        pooled = functional.avg_pool3d(self.maps(clips), FINAL_POOL, stride=1)
        averaged: Tensor = head(pooled).mean(dim=(2, 3, 4))
        return averaged

    def maps(self, clips: Tensor) -> Tensor:
        """What the last Inception block gives, [N, 1024, ceil(F / 8), H / 32, W / 32]."""
        value = clips.permute(0, 4, 1, 2, 3).to(torch.float32)
        if self._input_channels == FLOW_CHANNELS:
            value = value.clamp(-FLOW_BOUND_PIXELS, FLOW_BOUND_PIXELS) / FLOW_BOUND_PIXELS
        else:
            value = value / 127.5 - 1
        for layer in self._layers:
            if isinstance(layer, MaxPool):
                value = _max_pool(value, layer)
            else:
                value = self.get_submodule(layer.name)(value)
        return value


class _Unit(nn.Module):
    """Convolution without bias, batch norm without scale, ReLU."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self._plan = conv
        self.conv3d = nn.Conv3d(
            conv.in_channels, conv.out_channels, conv.kernel, conv.stride, bias=False
        )
        self.bn = _Shift(conv.out_channels)

    def forward(self, value: Tensor) -> Tensor:
        padded = _pad(value, self._plan.kernel, self._plan.stride)
        return functional.relu(self.bn(self.conv3d(padded)))


class _Shift(nn.Module):
    """Batch norm with its stored statistics and no scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, value: Tensor) -> Tensor:
        return functional.batch_norm(
            value, self.running_mean, self.running_var, bias=self.bias, eps=BATCH_NORM_EPSILON
        )


class _Inception(nn.Module):
    def __init__(self, mixed: Mixed) -> None:
        super().__init__()
        self._mixed = mixed
        for branch in mixed.branches:
            for part in branch:
                if isinstance(part, Conv):
                    self.add_module(_short(part), _Unit(part))

    def forward(self, value: Tensor) -> Tensor:
        ends: list[Tensor] = []
        for branch in self._mixed.branches:
            end = value
            for part in branch:
                if isinstance(part, MaxPool):
                    end = _max_pool(end, part)
                else:
                    end = self.get_submodule(_short(part))(end)
            ends.append(end)
        return torch.cat(ends, dim=1)


def _short(conv: Conv) -> str:
    return conv.name.rsplit(".", 1)[-1]


def _max_pool(value: Tensor, pool: MaxPool) -> Tensor:
    # Everything pooled here went through a ReLU, so a border of zeros never wins.
    return functional.max_pool3d(_pad(value, pool.kernel, pool.stride), pool.kernel, pool.stride)


def _pad(value: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    time, height, width = value.shape[2:]
    before, after = same_padding((time, height, width), kernel, stride)
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return functional.pad(value, sides) if any(sides) else value
