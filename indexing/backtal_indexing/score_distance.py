"""How far two samples of scores are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

NUM_BINS = 10
# A bin that is empty in one sample would make the index infinite.
_PSEUDO_COUNT = 0.5


@dataclass(frozen=True)
class ScoreDistance:
    """Two measures, and what the first is worth.

    Attributes:
        mean_shift: of the score, from the reference to the other.
        wasserstein: how far a score moves on average to make one sample from the other, in units
            of the score.
        psi: the population stability index over tenths of the reference. By custom below 0.1
            nothing, above 0.25 a shift; but few scores alone give a large one, hence:
        psi_by_chance: what two samples of these sizes from one source would give on average.
    """

    mean_shift: float
    wasserstein: float
    psi: float
    psi_by_chance: float


def score_distance(reference: Scores, other: Scores) -> ScoreDistance:
    """The distance of two samples, [N] and [M], neither empty."""
    edges = np.unique(np.quantile(reference, np.arange(1, NUM_BINS) / NUM_BINS))
    expected, found = _shares(reference, edges), _shares(other, edges)
    return ScoreDistance(
        mean_shift=float(other.mean() - reference.mean()),
        wasserstein=wasserstein(reference, other),
        psi=float(((found - expected) * np.log(found / expected)).sum()),
        psi_by_chance=len(edges) * (1 / len(reference) + 1 / len(other)),
    )


def wasserstein(first: Scores, second: Scores) -> float:
    """The area between the two distribution functions."""
    values = np.sort(np.concatenate([first, second]))
    below = [
        np.searchsorted(np.sort(sample), values[:-1], side="right") / len(sample)
        for sample in (first, second)
    ]
    return float((np.abs(below[0] - below[1]) * np.diff(values)).sum())


def _shares(scores: Scores, edges: Scores) -> Scores:
    bins = np.searchsorted(edges, scores, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1) + _PSEUDO_COUNT
    shares: Scores = counts / counts.sum()
    return shares
