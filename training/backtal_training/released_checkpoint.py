"""The checkpoints that BackTAL's authors released: ``.pth`` files of one network's parameters."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backtal.errors import InvalidFile, NotFound
from backtal_training.bundle import describe_published
from backtal_training.checkpoint import CheckpointDescription, load_weights
from backtal_training.network import BackTALNetwork, NetworkSettings
from backtal_training.settings import Recipe

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_PARALLEL_PREFIX = "module."


def read_released(
    path: Path, recipe: Recipe, classes: Sequence[str]
) -> tuple[CheckpointDescription, BackTALNetwork]:
    """The checkpoint as one of ours, in the `released` layout.

    The widths are those of its parameters. Raises NotFound, or InvalidFile naming each parameter
    that is missing, unknown, of another shape or not finite, and a number of classes that is not
    that of `classes`.
    """
    weights = _read_weights(path)
    network = BackTALNetwork(_network_settings(weights, len(classes), recipe, path))
    load_weights(network, weights, source=str(path))
    released = recipe.model_copy(
        update={"network": recipe.network.model_copy(update={"layout": "released"})}
    )
    description = CheckpointDescription(
        bundle=describe_published(released, classes, network.settings.feature_dim),
        network=network.settings,
        training={"converted_from": path.name},
    )
    return description, network.eval()


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # Of a pickle protocol that its writer chose: what comes out is checked below.
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidFile(f"{path} is no file of plain weights: {reason}") from None
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise InvalidFile(f"{path} holds a {type(loaded).__name__}, expected named parameters")
    return {
        str(name).removeprefix(_PARALLEL_PREFIX): _tensor(value, name, path)
        for name, value in loaded.items()
    }


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    if not isinstance(value, Tensor):
        raise InvalidFile(f"{path}: {name} is a {type(value).__name__}, expected a tensor")
    return value


def _network_settings(
    weights: Mapping[str, Tensor], num_classes: int, recipe: Recipe, path: Path
) -> NetworkSettings:
    """The sizes that the parameters have; the paper's where one is missing, as is said later."""
    sizes = {
        "hidden_dim": _size(weights, "base_module.conv_1.weight", 0, 3, path),
        "feature_dim": _size(weights, "base_module.conv_1.weight", 1, 3, path),
        "embedding_dim": _size(weights, "embedding_module.conv_2.weight", 0, 3, path),
        "embedding_hidden_dim": _size(weights, "embedding_module.conv_1.weight", 0, 3, path),
        "filter_hidden_dim": _size(weights, "filter_module.conv_1.0.weight", 0, 3, path),
    }
    return NetworkSettings(
        layout="released", num_classes=num_classes, dropout=recipe.network.dropout, **sizes
    )


def _size(weights: Mapping[str, Tensor], name: str, axis: int, ndim: int, path: Path) -> int:
    if name not in weights:
        raise InvalidFile(f"{path}: {name} is missing")
    shape = weights[name].shape
    if len(shape) != ndim:
        raise InvalidFile(f"{path}: {name} has shape {list(shape)}, expected {ndim} dimensions")
    return int(shape[axis])
