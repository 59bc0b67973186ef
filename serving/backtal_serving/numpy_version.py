"""The one dependency that breaks serving in silence."""

from __future__ import annotations

import numpy as np

from backtal.errors import MissingDependency


def check_numpy() -> None:
    """Refuse NumPy 2: with it the models load, and every output of Triton 2.51 has 0 bytes."""
    if int(np.__version__.partition(".")[0]) >= 2:
        raise MissingDependency(
            f"Triton's Python backend needs numpy<2, this environment has {np.__version__}: "
            "pip install 'backtal[serving]'"
        )
