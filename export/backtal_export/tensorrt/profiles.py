"""The shapes that an engine is built for: from those that the pipeline sends."""

from __future__ import annotations

from dataclasses import dataclass

from backtal.cas_chunks import CAS_CHUNK_POSITIONS
from backtal.extraction import CLIPS_PER_BATCH
from backtal.manifest import BundleDescription, ClipPlan, StreamName

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeProfile:
    """An input's smallest and largest shape, and the one that the engine is tuned for.

    Raises ValueError unless they have one rank and smallest <= usual <= largest everywhere.
    """

    name: str
    smallest: Shape
    usual: Shape
    largest: Shape

    def __post_init__(self) -> None:
        ranks = {len(self.smallest), len(self.usual), len(self.largest)}
        ordered = all(
            1 <= low <= middle <= high
            for low, middle, high in zip(self.smallest, self.usual, self.largest, strict=False)
        )
        if len(ranks) > 1 or not ordered:
            raise ValueError(
                f"{self.name}: {self.smallest} <= {self.usual} <= {self.largest} does not hold"
            )


def clips_profile(plan: ClipPlan, stream: StreamName) -> ShapeProfile:
    """A backbone's `clips`: from one, the rest of a video, to a whole batch."""
    clip = plan.clip_shape(stream)
    whole = (CLIPS_PER_BATCH, *clip)
    return ShapeProfile("clips", (1, *clip), whole, whole)


def features_profile(description: BundleDescription) -> ShapeProfile:
    """The CAS network's `features`: from one position to a chunk with its halo at both ends."""
    longest = CAS_CHUNK_POSITIONS + 2 * description.cas.halo_positions
    usual = min(description.grid.window_positions, longest)
    dim = description.feature_dim
    return ShapeProfile("features", (1, dim, 1), (1, dim, usual), (1, dim, longest))
