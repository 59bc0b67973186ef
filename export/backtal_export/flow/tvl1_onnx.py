"""TV-L1 flow as an ONNX graph, traced; its iterations are loops of a fixed count."""

from __future__ import annotations

import warnings

import torch

from backtal_export.flow.tvl1 import Tvl1, Tvl1Settings, iterations
from backtal_export.traced import traced_onnx


def tvl1_onnx(pixels: int = 224, settings: Tvl1Settings | None = None) -> bytes:
    """The model file: `frames` uint8 [M + 1, S, S, 3] in, `flow` float32 [M, S, S, 2] out.

    M is free and at least 1. The same bytes under one version of torch.
    """
    with warnings.catch_warnings():
        # Torch would have its compiler used, which writes out every turn of a loop.
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = torch.jit.script(iterations)
    return traced_onnx(
        Tvl1(pixels, settings, iterate=loop).eval(),
        torch.zeros(3, pixels, pixels, 3, dtype=torch.uint8),
        inputs={"frames": {0: "frames"}},
        outputs={"flow": {0: "fields"}},
    )
