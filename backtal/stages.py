"""The seam between the pipeline and the networks, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backtal.features import FloatArray


@dataclass(frozen=True, eq=False)
class CasOutput:
    """What the CAS network gives: cas [B, C(+1), L] raw, magnitude [B, L] where it has one."""

    cas: FloatArray
    magnitude: FloatArray | None = None


class Stages(Protocol):
    """The networks of a bundle, wherever they run."""

    def features(self, stream: str, clips: NDArray[np.uint8]) -> FloatArray:
        """Clips [n, 16, 224, 224, 3] to features [n, D] by the stream's backbone."""
        ...

    def cas(self, features: FloatArray) -> CasOutput:
        """Features [B, D, L] to the class activation sequence."""
        ...
