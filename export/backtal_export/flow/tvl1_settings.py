"""What TV-L1 in torch and as an ONNX graph have in common: its settings and its constants."""

from __future__ import annotations

from dataclasses import dataclass

# Weights of R, G and B in OpenCV's grey.
GREY = (0.299, 0.587, 0.114)
MEDIAN_PIXELS = 5
# A pixel without a gradient has nothing to move by.
LEAST_GRADIENT = 1e-7


@dataclass(frozen=True)
class Tvl1Settings:
    """OpenCV's defaults but for the iterations: its are at most 10 x 30 a warp.

    num_scales, scale_step: of the pyramid. num_warps: of the second frame, at each scale.
    num_outer, num_inner: iterations a warp; before each outer one a median filter of 5 x 5.
    tau: step of the projection. attachment: the weight of brightness (lambda). tightness: how
    close v and u are kept (theta).
    """

    num_scales: int = 5
    scale_step: float = 0.8
    num_warps: int = 5
    num_outer: int = 1
    num_inner: int = 30
    tau: float = 0.25
    attachment: float = 0.15
    tightness: float = 0.3

    @property
    def bound(self) -> float:
        """How far brightness may move the flow in one step, in squared gradients."""
        return self.attachment * self.tightness

    @property
    def step(self) -> float:
        """The projection's step along the flow's own gradient."""
        return self.tau / self.tightness

    def sizes(self, pixels: int) -> list[int]:
        """The side of each scale's square, the finest first."""
        return [round(pixels * self.scale_step**scale) for scale in range(self.num_scales)]
