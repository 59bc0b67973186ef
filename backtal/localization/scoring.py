"""How a proposal is scored: the class inside it against the class around it.

The score is the contrast (inner mean minus outer mean) of the class's normalised sequence plus
gamma times the video score. What the contrast is taken on is a setting:

- `clamped`: values below 0 count as 0. Normalised values lie in [0, 1] but for those that were
  negative before; without the clamp one very negative stretch beside a proposal outweighs all
  that is inside.
- `normalised`: as they are.
- `thresholded`: as released, values below the proposal's own threshold count as 0. The outside is
  then near 0 whatever is there, and of two proposals the shorter wins (METHOD, 3).

With `one_scale` this goes for proposals of the CAS and of the magnitude alike. Without it the
magnitude's are scored on the normalised sequence, as released: two scales that meet in one NMS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtal.localization.proposals import Doubles, contrast
from backtal.localization.scores import Array, Indices, integral
from backtal.localization.settings import LocalizationSettings


@dataclass(frozen=True)
class Scoring:
    """The thresholds [S] of a bundle's settings and how their proposals are scored.

    A slot is a class and a threshold: ``class * S + threshold``. Values below `floors` [S] count
    as 0 for a proposal of that threshold.
    """

    thresholds: Doubles
    of_magnitude: NDArray[np.bool_]
    floors: Doubles
    outer_width: float
    gamma: float

    @classmethod
    def of(cls, settings: LocalizationSettings) -> Scoring:
        """The scoring that these settings ask for."""
        thresholds = np.array([*settings.cas_thresholds, *settings.magnitude_thresholds])
        of_magnitude = np.arange(thresholds.size) >= len(settings.cas_thresholds)
        floors = {
            "clamped": np.zeros(thresholds.size),
            "normalised": np.full(thresholds.size, -np.inf),
            "thresholded": thresholds,
        }[settings.contrast]
        if not settings.one_scale:
            floors = np.where(of_magnitude, -np.inf, floors)
        return cls(thresholds, of_magnitude, floors, settings.outer_width, settings.gamma)

    def score(
        self,
        normalised: Array,
        row: Indices,
        slot: Indices,
        start: Doubles,
        end: Doubles,
        video_score: Doubles,
    ) -> Doubles:
        """The scores [P] of proposals [start, end), in positions, of rows of `normalised` [R, n].

        `row`, `slot`, `start`, `end` and the class's `video_score` are [P].
        """
        count = self.thresholds.size
        pairs, pair = np.unique(row * count + slot % count, return_inverse=True)
        values = normalised[pairs // count]
        sums = integral(np.where(values < self.floors[pairs % count, None], 0, values))
        return contrast(sums, pair, start, end, self.outer_width) + self.gamma * video_score
