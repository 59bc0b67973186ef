"""The seam between the pipeline and the networks, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backtal.features import FloatArray

Clips: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CasOutput:
    """What the CAS network gives: cas [B, C(+1), L] raw, magnitude [B, L] where it has one."""

    cas: FloatArray
    magnitude: FloatArray | None = None


class Stages(Protocol):
    """The networks of a bundle, wherever they run."""

    def flow_fields(self, frames: NDArray[np.uint8]) -> FloatArray:
        """Frames [m + 1, 224, 224, 3] in their order to the flow between them, [m, 224, 224, 2]."""
        ...

    def features(self, stream: str, clips: Clips) -> FloatArray:
        """Clips to features [n, D] by the stream's backbone.

        rgb: uint8 [n, 16, 224, 224, 3]. flow: float32 [n, 16, 224, 224, 2], or, where the network
        finds it, the frames, uint8 [n, 17, 224, 224, 3]: `ClipPlan.clip_shape`.
        """
        ...

    def cas(self, features: FloatArray) -> CasOutput:
        """Features [B, D, L] to the class activation sequence."""
        ...
