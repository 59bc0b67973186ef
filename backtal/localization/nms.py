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
