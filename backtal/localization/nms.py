"""Non-maximum suppression over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backtal.segments import overlap_ratio


def suppress(
    intervals: NDArray[np.float64],
    scores: NDArray[np.float64],
    tiou: float,
    *,
    added_length: float = 0.0,
) -> NDArray[np.int64]:
    """The intervals that stay: each suppresses those with a lower score and a larger tIoU.

    `intervals` [N, 2] of one class, in seconds; `scores` [N]. `added_length` lengthens every
    interval at its end; the released code counts lengths as ``end - start + 1``. Returns
    indices by falling score; equal scores go by start, then by end, so that the order in which
    the intervals are handed in does not matter.
    """
    stretched = intervals + np.array([0.0, added_length])
    waiting = np.lexsort((intervals[:, 1], intervals[:, 0], -scores))
    kept: list[int] = []
    while waiting.size:
        best, rest = waiting[0], waiting[1:]
        kept.append(int(best))
        same = np.all(stretched[rest] == stretched[best], axis=1)
        ratio = overlap_ratio(stretched[best : best + 1], stretched[rest])[0]
        waiting = rest[(ratio <= tiou) & ~same]
    return np.array(kept, dtype=np.int64)


def suppress_softly(
    intervals: NDArray[np.float64],
    scores: NDArray[np.float64],
    tiou: float,
    sigma: float,
    *,
    added_length: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Gaussian soft-NMS: what stays, by falling score, and the scores that it has then.

    Each interval, surest first, lowers the scores of the others by ``exp(-tIoU ** 2 / sigma)``;
    those that overlap it by more than `tiou` go, as with `suppress`. A score below 0 stays what
    it is: the factor would raise it. The order in which the intervals come does not matter.
    """
    stretched = intervals + np.array([0.0, added_length])
    current = scores.astype(np.float64)
    waiting = np.lexsort((-scores, intervals[:, 1], intervals[:, 0]))
    kept: list[int] = []
    while waiting.size:
        place = int(current[waiting].argmax())
        best, rest = waiting[place], np.delete(waiting, place)
        kept.append(int(best))
        same = np.all(stretched[rest] == stretched[best], axis=1)
        ratio = overlap_ratio(stretched[best : best + 1], stretched[rest])[0]
        lowered = current[rest] * np.exp(-(ratio**2) / sigma)
        current[rest] = np.where(current[rest] > 0, lowered, current[rest])
        waiting = rest[(ratio <= tiou) & ~same]
    chosen = np.array(kept, dtype=np.int64)
    return chosen, current[chosen]
