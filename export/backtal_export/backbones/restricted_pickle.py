"""Read a tree of NumPy arrays from a pickle that could hold anything.

A pickle names the functions it wants called. This reader knows the three that an array needs and
refuses every other by name, before anything is called.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from backtal.errors import InvalidFile

# NumPy 2 moved its array factory and warns at the old place; both names mean this function.
_RECONSTRUCT = np.empty(0).__reduce__()[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


# A dict can hold itself.
_MAX_DEPTH = 8


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            allowed = ", ".join(f"{module}.{name}" for module, name in _ALLOWED)
            raise InvalidFile(
                f"the pickle asks for {module_name}.{global_name}; allowed are {allowed}"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise InvalidFile(f"the pickle asks for the outside object {pid!r}; allowed is none")


def read_arrays(data: bytes) -> dict[tuple[str, ...], np.ndarray[Any, np.dtype[Any]]]:
    """The arrays of nested dicts, by their path of keys. Raises InvalidFile for anything else."""
    try:
        tree = _ArrayUnpickler(io.BytesIO(data)).load()
    except InvalidFile:
        raise
    except Exception as error:
        raise InvalidFile(f"the pickle cannot be read: {error}") from error
    arrays: dict[tuple[str, ...], np.ndarray[Any, np.dtype[Any]]] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, np.ndarray) and node.dtype == np.float32:
            arrays[path] = node
        elif len(path) < _MAX_DEPTH and _is_folder(node):
            pending += [((*path, key), child) for key, child in node.items()]
        else:
            what = getattr(node, "dtype", type(node).__name__)
            where = "/".join(path) or "its root"
            raise InvalidFile(
                f"the pickle holds {what} at {where}, allowed are dicts of float32 arrays, "
                f"at most {_MAX_DEPTH} deep"
            )
    return arrays


def _is_folder(node: Any) -> bool:
    return isinstance(node, dict) and all(isinstance(key, str) for key in node)
