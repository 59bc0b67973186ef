"""What localization is handed, checked."""

from __future__ import annotations

import numpy as np

from backtal.errors import InvalidArgument
from backtal.localization.scores import Array


def checked_rows(
    cas: Array, magnitude: Array | None, *, channels: int, needs_magnitude: bool
) -> Array:
    """The CAS [C(+1), n] and below it, where it is needed, the magnitude [n]; float32.

    Raises InvalidArgument for another shape, a missing magnitude, values that are not finite.
    """
    if cas.ndim != 2 or cas.shape[0] != channels:
        raise InvalidArgument(f"the CAS is {list(cas.shape)}, expected [{channels}, positions]")
    rows = cas
    if needs_magnitude:
        if magnitude is None:
            raise InvalidArgument("magnitude_thresholds are set, but there is no magnitude")
        if magnitude.shape != cas.shape[1:]:
            raise InvalidArgument(
                f"the magnitude is {list(magnitude.shape)}, expected [{cas.shape[1]}]"
            )
        rows = np.concatenate([cas, magnitude[None]])
    rows = rows.astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        raise InvalidArgument("the CAS or its magnitude holds values that are not finite")
    return rows


def check_duration(duration_seconds: float) -> None:
    """Raise InvalidArgument for a duration that is not a positive number."""
    if not 0 < duration_seconds < float("inf"):
        raise InvalidArgument(f"duration is {duration_seconds} s; it must be above 0")
