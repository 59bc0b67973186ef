"""EfficientNet-Lite0 in torch: what the ONNX graph is checked against, batch norms and all."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal_export.backbones.fetched import Weights, check_shapes
from backtal_export.backbones.i3d_layers import same_padding
from backtal_export.backbones.lite0_layers import (
    BATCH_NORM_EPSILON,
    FRAME_FEATURE_DIM,
    FRAMES_SAMPLED,
    PIXEL_MEAN,
    PIXEL_SCALE,
    Block,
    Conv,
    lite0_blocks,
    lite0_shapes,
)


class EfficientNetLite0(nn.Module):
    """Features [N, 2560] of uint8 clips [N, 16, H, W, 3], for inference; see `lite0_layers`."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        check_shapes(weights, lite0_shapes(), source="EfficientNet-Lite0 weights")
        self._weights = {name: torch.from_numpy(array) for name, array in weights.items()}
        self._blocks = lite0_blocks()

    def forward(self, clips: Tensor) -> Tensor:
        """See the class."""
        sampled = clips[:, list(FRAMES_SAMPLED)]
        features = self.frame_features(sampled.flatten(0, 1))
        frames = features.reshape(len(clips), len(FRAMES_SAMPLED), FRAME_FEATURE_DIM)
        change = (frames[:, 1:] - frames[:, :-1]).abs()
        return torch.cat([frames.mean(dim=1), change.mean(dim=1)], dim=1)

    def frame_features(self, frames: Tensor) -> Tensor:
        """Features [M, 1280] of uint8 frames [M, H, W, 3]: what ImageNet's classifier takes."""
        value = (frames.permute(0, 3, 1, 2).to(torch.float32) - PIXEL_MEAN) / PIXEL_SCALE
        for block in self._blocks:
            value = self._block(block, value)
        return value.mean(dim=(2, 3))

    def _block(self, block: Block, value: Tensor) -> Tensor:
        end = value
        for conv in block.convolutions:
            end = self._conv(conv, end)
        return value + end if block.residual else end

    def _conv(self, conv: Conv, value: Tensor) -> Tensor:
        height, width = value.shape[2:]
        before, after = same_padding(
            (1, height, width), (1, conv.kernel, conv.kernel), (1, conv.stride, conv.stride)
        )
        padded = functional.pad(value, (before[2], after[2], before[1], after[1]))
        kernel = self._weights[f"{conv.name}.weight"]
        result = functional.conv2d(padded, kernel, stride=conv.stride, groups=conv.groups)
        mean, variance, scale, shift = (
            self._weights[f"{conv.batch_norm}.{name}"]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        result = functional.batch_norm(
            result, mean, variance, weight=scale, bias=shift, eps=BATCH_NORM_EPSILON
        )
        return functional.relu6(result) if conv.activated else result
