"""Read a torch state dict from a file that anyone may have made.

torch unpickles it with `weights_only`: tensors and plain containers, no other object.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from backtal.errors import InvalidFile, NotFound
from backtal_export.backbones.fetched import Weights

# A counter of batch norms in training.
_NOT_WEIGHTS = "num_batches_tracked"


def read_state_dict(source: Path | bytes) -> Weights:
    """Its tensors by name, float32. Raises NotFound, or InvalidFile for anything but tensors."""
    name = "the state dict" if isinstance(source, bytes) else str(source)
    tree = _unpickled(source, name)
    if not isinstance(tree, dict):
        raise InvalidFile(f"{name} holds {type(tree).__name__}, expected a dict of tensors")
    weights: Weights = {}
    for key, value in tree.items():
        if isinstance(key, str) and key.endswith(_NOT_WEIGHTS):
            continue
        weights[str(key)] = _array(name, str(key), value)
    return weights


def _unpickled(source: Path | bytes, name: str) -> Any:
    import torch

    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotFound(f"no such file: {name}") from None
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        raise InvalidFile(f"{name} is no state dict of tensors alone: {first_line}") from None


def _array(name: str, key: str, value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    import torch

    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        what = getattr(value, "dtype", type(value).__name__)
        raise InvalidFile(f"{name}: {key} is {what}, expected a tensor of floating-point numbers")
    array = np.ascontiguousarray(value.detach().to(torch.float32).numpy())
    if not np.isfinite(array).all():
        raise InvalidFile(f"{name}: {key} holds values that are not finite")
    return array
