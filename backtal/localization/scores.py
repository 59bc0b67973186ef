"""Scores of a whole sequence, its normalisation, and the runs above a level."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

# What a CAS holds: logits are min-max normalised, a probability is taken as it is.
CasForm = Literal["logits", "probability"]


def top_means(cas: Array, ratio: float) -> NDArray[np.float64]:
    """The mean of each class's top ``k = max(1, int(L * ratio))`` positions: paper, section 3.2.

    `cas` is [C(+1), L]; returns [C(+1)].
    """
    length = cas.shape[1]
    k = max(1, int(length * ratio))
    top = np.partition(cas, length - k, axis=1)[:, length - k :]
    means: NDArray[np.float64] = top.mean(axis=1, dtype=np.float64)
    return means


def video_scores(cas: Array, ratio: float, *, kind: CasForm = "logits") -> NDArray[np.float64]:
    """How sure it is that each class is in the sequence at all: paper, section 3.2.

    `shares` of `top_means`. `cas` is [C(+1), L]; returns [C(+1)].
    """
    return shares(top_means(cas, ratio), kind)


def shares(means: NDArray[np.float64], kind: CasForm) -> NDArray[np.float64]:
    """For `logits` the softmax over all classes, background included; a `probability` itself.

    `means` are `top_means` [C(+1)].
    """
    if kind == "probability":
        return means
    powers = np.exp(means - means.max())
    scores: NDArray[np.float64] = powers / powers.sum()
    return scores


def companions(means: NDArray[np.float64], num_classes: int, ratio: float) -> NDArray[np.bool_]:
    """Which classes are `ratio` of the way, or more, from the least sure class to the surest.

    A softmax makes classes share: of two in one sequence the weaker one may have next to nothing.
    How far it stands above the least sure, background among them, is not shared. `means` are
    `top_means` [C(+1)]; returns [C], without background.
    """
    above = means[:num_classes] - means.min()
    near: NDArray[np.bool_] = above >= ratio * above.max()
    return near


def clipped_range(cas: Array) -> tuple[Array, Array]:
    """The `low` and `delta` by which ``(cas - low) / delta`` is min-max normalised, by row.

    Both ends of the range are clipped at 0 from below, so a row without a positive value keeps
    its values; an empty range counts as 1. `cas` is [C, L]; returns two of [C].
    """
    low = np.maximum(cas.min(axis=1), 0)
    delta = np.maximum(cas.max(axis=1), 0) - low
    return low, np.where(delta <= 0, cas.dtype.type(1), delta)


def runs_above(rows: Array, levels: Array) -> tuple[Indices, Indices, Indices]:
    """All unbroken runs of ``rows > level``: the row, the first position and one past the last.

    `rows` is [R, L], `levels` [R]. Runs come by row, then by time.
    """
    above = np.zeros((rows.shape[0], rows.shape[1] + 2), dtype=np.int8)
    above[:, 1:-1] = rows > levels[:, None]
    change = np.diff(above, axis=1)
    row, first = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[1]
    return row, first, end


def integral(rows: Array) -> NDArray[np.float64]:
    """The running sum of each row, from 0: [R, L] -> [R, L + 1]."""
    sums = np.zeros((rows.shape[0], rows.shape[1] + 1), dtype=np.float64)
    np.cumsum(rows, axis=1, dtype=np.float64, out=sums[:, 1:])
    return sums
