"""How detections fare with instances of one kind: short or long, alone or many in a video.

DETAD's normalised average precision makes buckets comparable: precision falls where a bucket
holds few instances, however good the detections are, so each class is counted as if it had N
instances in every bucket, ``precision = N * recall / (N * recall + false positives)``. N is the
mean number of instances a class. Detections matched outside a bucket are left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import Instance
from backtal.evaluation.matching import NOT_MATCHED, ClassCase
from backtal.evaluation.protocol import interpolated

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Bucket:
    """Instances of one kind.

    Attributes:
        name: which, as a range: ``<= 3``, ``3 - 6``, ``> 18``; for whole numbers ``2 - 4``.
        num_instances: how many they are.
        share_found: of them, by any detection at all.
        normalised_map: the mean over their classes; None where there is no instance.
    """

    name: str
    num_instances: int
    share_found: float | None
    normalised_map: float | None


def by_length(
    cases: Sequence[ClassCase], edges: Sequence[float], tiou: float
) -> tuple[Bucket, ...]:
    """Buckets by an instance's length in seconds; `edges` rise from above 0."""
    return _buckets(cases, edges, tiou, lambda one, _: one.end_seconds - one.start_seconds, 0)


def by_number(
    cases: Sequence[ClassCase], edges: Sequence[float], tiou: float
) -> tuple[Bucket, ...]:
    """Buckets by how many instances of its class an instance's video holds."""
    return _buckets(cases, edges, tiou, lambda _, together: float(len(together)), 1)


def _buckets(
    cases: Sequence[ClassCase],
    edges: Sequence[float],
    tiou: float,
    measure: Callable[[Instance, Sequence[Instance]], float],
    first: int,
) -> tuple[Bucket, ...]:
    usual = float(np.mean([case.num_instances for case in cases]))
    bounds = (0.0, *edges, np.inf)
    found = []
    for low, high in pairwise(bounds):
        total, num_found, precisions = 0, 0, []
        for case in cases:
            inside = {
                name: np.array([low < measure(one, together) <= high for one in together])
                for name, together in case.instances.items()
            }
            count = int(sum(mask.sum() for mask in inside.values()))
            if count:
                matched = _outcomes(case, inside, tiou)
                total += count
                num_found += int(matched.sum())
                precisions.append(_normalised_precision(matched, count, usual))
        found.append(
            Bucket(
                name=_name(low, high, first),
                num_instances=total,
                share_found=num_found / total if total else None,
                normalised_map=float(np.mean(precisions)) if precisions else None,
            )
        )
    return tuple(found)


def _outcomes(case: ClassCase, inside: dict[str, Mask], tiou: float) -> Mask:
    """Right or wrong, in their order, of the detections not matched outside the bucket."""
    places = case.match(np.array([tiou]))[0]
    kept = []
    for one, place in zip(case.ranked, places.tolist(), strict=True):
        if place == NOT_MATCHED:
            kept.append(False)
        elif inside[one.video][place]:
            kept.append(True)
    return np.array(kept, dtype=np.bool_)


def _normalised_precision(is_true: Mask, count: int, usual: float) -> float:
    recall = np.cumsum(is_true) / count
    wrong = np.cumsum(~is_true)
    weighed = recall * usual
    total = weighed + wrong
    precision = np.divide(weighed, total, out=np.zeros_like(total), where=total > 0)
    return interpolated(precision, recall)


def _name(low: float, high: float, first: int) -> str:
    """`first` is by how much the lowest value of a bucket lies above its edge."""
    if low == 0:
        return f"<= {high:g}"
    return f"> {low:g}" if high == np.inf else f"{low + first:g} - {high:g}"
