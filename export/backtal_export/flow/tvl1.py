"""TV-L1 optical flow in torch, its iterations fixed: what the ONNX graph is checked against.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007, in
the steps of OpenCV's implementation (Sanchez, Meinhardt-Llopis and Facciolo, IPOL 2013): from the
coarsest scale to the finest the second frame is warped by the flow so far, and the flow corrected
by a thresholding step for the brightness (v) and a projection for its total variation (p).
OpenCV stops a scale's iterations by their progress. A network cannot: it always does them all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal_export.flow.tvl1_settings import GREY, LEAST_GRADIENT, MEDIAN_PIXELS, Tvl1Settings


class Tvl1(nn.Module):
    """frames uint8 [M + 1, S, S, 3], RGB, in their order -> flow float32 [M, S, S, 2].

    Flow m is from frame m to frame m + 1, in pixels, x then y. M is at least 1.
    """

    def __init__(self, pixels: int, settings: Tvl1Settings | None = None) -> None:
        super().__init__()
        self._settings = settings or Tvl1Settings()
        self._sizes = self._settings.sizes(pixels)
        self.grey: Tensor
        self.register_buffer("grey", torch.tensor(GREY))

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        grey = torch.round((frames.to(torch.float32) * self.grey).sum(dim=3)).unsqueeze(1)
        pyramid = [grey]
        for size in self._sizes[1:]:
            pyramid.append(_resized(pyramid[-1], size))
        flow = torch.zeros_like(pyramid[-1][1:]).repeat(1, 2, 1, 1)
        for scale in reversed(range(len(pyramid))):
            level = pyramid[scale]
            flow = self._at_scale(level[:-1], level[1:], flow)
            if scale > 0:
                flow = _resized(flow, self._sizes[scale - 1]) / self._settings.scale_step
        return flow.permute(0, 2, 3, 1)

    def _at_scale(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        settings = self._settings
        moving = torch.cat([second, *_central_gradient(second)], dim=1)
        grid = _pixel_grid(second)
        # Two projections for each component of the flow: [M, 2, S, S] in x and in y.
        dual_x = torch.zeros_like(flow)
        dual_y = torch.zeros_like(flow)
        for _ in range(settings.num_warps):
            warped = _warped(moving, grid, flow)
            gradient = warped[:, 1:]
            squared = (gradient * gradient).sum(dim=1, keepdim=True)
            steepness = -squared.clamp_min(LEAST_GRADIENT)
            rest = warped[:, :1] - (gradient * flow).sum(dim=1, keepdim=True) - first
            for _ in range(settings.num_outer):
                flow = _median(flow)
                flow, dual_x, dual_y = iterations(
                    flow, dual_x, dual_y, gradient, steepness, rest, settings
                )
        return flow


def iterations(
    flow: Tensor,
    dual_x: Tensor,
    dual_y: Tensor,
    gradient: Tensor,
    steepness: Tensor,
    rest: Tensor,
    settings: Tvl1Settings,
) -> tuple[Tensor, Tensor, Tensor]:
    """The inner iterations of flow and projections, all [M, 2, S, S], at one scale and warp.

    gradient: of the warped frame, [M, 2, S, S]. steepness: minus its square, [M, 1, S, S]. rest:
    the residual of brightness where the flow is 0.
    """
    bound, step = settings.bound, settings.step
    for _ in range(settings.num_inner):
        residual = rest + (gradient * flow).sum(dim=1, keepdim=True)
        # The three cases of the thresholding step: within the bounds it is exact.
        auxiliary = flow + (residual / steepness).clamp(-bound, bound) * gradient
        divergence = (
            dual_x
            - functional.pad(dual_x[:, :, :, :-1], (1, 0, 0, 0))
            + dual_y
            - functional.pad(dual_y[:, :, :-1, :], (0, 0, 1, 0))
        )
        flow = auxiliary + settings.tightness * divergence
        along_x = functional.pad(flow[:, :, :, 1:] - flow[:, :, :, :-1], (0, 1, 0, 0))
        along_y = functional.pad(flow[:, :, 1:, :] - flow[:, :, :-1, :], (0, 0, 0, 1))
        shrink = 1.0 + step * torch.sqrt(along_x * along_x + along_y * along_y)
        dual_x = (dual_x + step * along_x) / shrink
        dual_y = (dual_y + step * along_y) / shrink
    return flow, dual_x, dual_y


def _resized(image: Tensor, size: int) -> Tensor:
    return functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)


def _central_gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Half the difference of the neighbours; at the border the pixel itself is one of them."""
    around = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    along_x = (around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]) / 2
    along_y = (around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]) / 2
    return along_x, along_y


def _pixel_grid(image: Tensor) -> Tensor:
    """Each pixel's own (x, y), [1, S, S, 2]."""
    size = image.shape[-1]
    line = torch.arange(size, dtype=torch.float32)
    rows = line.reshape(1, size, 1).expand(1, size, size)
    columns = line.reshape(1, 1, size).expand(1, size, size)
    return torch.stack([columns, rows], dim=3)


def _warped(image: Tensor, grid: Tensor, flow: Tensor) -> Tensor:
    """`image` looked at where the flow points to; beyond its border it is 0, as in OpenCV."""
    size = image.shape[-1]
    places = (2 * (grid + flow.permute(0, 2, 3, 1)) + 1) / size - 1
    return functional.grid_sample(
        image, places, mode="bicubic", padding_mode="zeros", align_corners=False
    )


def _median(flow: Tensor) -> Tensor:
    """The median of 5 x 5 pixels, those at the border repeated."""
    reach = MEDIAN_PIXELS // 2
    around = functional.pad(flow, (reach, reach, reach, reach), mode="replicate")
    height, width = flow.shape[2:]
    shifted = [
        around[:, :, row : row + height, column : column + width]
        for row in range(MEDIAN_PIXELS)
        for column in range(MEDIAN_PIXELS)
    ]
    half = MEDIAN_PIXELS**2 // 2 + 1
    lower, _ = torch.topk(torch.stack(shifted), half, dim=0, largest=False)
    return lower[-1]
