"""What kinds of errors detections hold, and where instances are missed: DETAD's categories.

After Alwassel et al., *Diagnosing Error in Temporal Action Detectors* (ECCV 2018). With `tiou`
the overlap from which a detection is right and `background_tiou` the least that counts as
looking at an instance at all, a detection is

- a *true positive*: the protocol matches it;
- a *double detection*: it overlaps an instance of its class by `tiou`, which a surer one has;
- a *wrong label*: it overlaps an instance of another class by `tiou`;
- a *localization* error: it overlaps an instance of its class by `background_tiou`, and none of
  another class by more;
- a *confusion*: it overlaps one of another class by that;
- *background*: neither.

Counted are the G surest of each class, G being its instances, and so on in multiples of G: the
whole tail would drown what matters to the mAP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from backtal.annotations import GroundTruth, Instance
from backtal.errors import InvalidArgument
from backtal.evaluation.matching import (
    NOT_MATCHED,
    ClassCase,
    Detections,
    Indices,
    class_cases,
    intervals,
)
from backtal.evaluation.protocol import average_precision
from backtal.evaluation.sensitivity import Bucket, by_length, by_number
from backtal.segments import overlap_ratio

ErrorKind = Literal[
    "true_positive",
    "double_detection",
    "wrong_label",
    "localization",
    "confusion",
    "background",
]
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class DiagnosisSettings:
    """By what an analysis is made.

    The bucket edges are those that DETAD has for THUMOS14; for ActivityNet it has lengths of 30,
    60, 120 and 180 s. A bucket holds what lies above one edge and up to the next.
    """

    tiou: float = 0.5
    background_tiou: float = 0.1
    most_multiples: int = 10
    length_edges_seconds: tuple[float, ...] = (3.0, 6.0, 12.0, 18.0)
    number_edges: tuple[int, ...] = (1, 4, 8)

    def __post_init__(self) -> None:
        """Raise InvalidArgument for values out of their range."""
        if not 0 < self.background_tiou < self.tiou <= 1:
            raise InvalidArgument(
                f"background_tiou {self.background_tiou} and tiou {self.tiou}; they must rise "
                "from above 0 to at most 1"
            )
        if self.most_multiples < 1:
            raise InvalidArgument(f"most_multiples is {self.most_multiples}, allowed: from 1")
        for name, edges in (
            ("length_edges_seconds", self.length_edges_seconds),
            ("number_edges", self.number_edges),
        ):
            if not edges or any(b <= a for a, b in zip((0, *edges), edges, strict=False)):
                raise InvalidArgument(f"{name} is {list(edges)}; it must rise from above 0")


@dataclass(frozen=True)
class Diagnosis:
    """An error analysis.

    Attributes:
        settings: what it was made by.
        counts: for each multiple of G how many detections are of each kind.
        gain: by how much the mAP at `tiou` would rise were the errors of a kind not there.
        by_length: instances in buckets of seconds.
        by_number: instances in buckets of how many of their class are in their video.
    """

    settings: DiagnosisSettings
    counts: dict[int, dict[ErrorKind, int]]
    gain: dict[ErrorKind, float]
    by_length: tuple[Bucket, ...]
    by_number: tuple[Bucket, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a JSON file."""
        return asdict(self)


def diagnose(
    truth: GroundTruth, detections: Detections, settings: DiagnosisSettings | None = None
) -> Diagnosis:
    """Analyse `detections` (by video name) against all of `truth`.

    Classes without an instance do not count, as for the mAP. Raises InvalidArgument for a label
    that the ground truth does not know, or where it has no instance.
    """
    settings = settings or DiagnosisSettings()
    counted = [case for case in class_cases(truth, detections).values() if case.num_instances]
    if not counted:
        raise InvalidArgument(f"{truth.source} has no instance to evaluate against")
    overlaps = _Overlaps(truth)
    kinds = [_kinds(case, overlaps, settings) for case in counted]
    return Diagnosis(
        settings=settings,
        counts={
            multiple: _count(counted, kinds, multiple)
            for multiple in range(1, settings.most_multiples + 1)
        },
        gain={
            kind: _gain(counted, kinds, number, settings.tiou)
            for number, kind in enumerate(KINDS)
            if kind != "true_positive"
        },
        by_length=by_length(counted, settings.length_edges_seconds, settings.tiou),
        by_number=by_number(counted, settings.number_edges, settings.tiou),
    )


class _Overlaps:
    """The largest overlap of a detection with an instance of its class, and of another."""

    def __init__(self, truth: GroundTruth) -> None:
        self._instances: Mapping[str, tuple[Instance, ...]] = {
            name: video.instances for name, video in truth.videos.items()
        }

    def of(self, case: ClassCase) -> tuple[list[float], list[float]]:
        """For each detection, in its order: own class, other class; 0 where there is none."""
        own, other = [], []
        for one in case.ranked:
            instances = self._instances.get(one.video, ())
            ratio = overlap_ratio(intervals([one.segment]), intervals(instances))[0]
            is_own = np.array([instance.label == case.label for instance in instances], dtype=bool)
            own.append(float(ratio[is_own].max(initial=0.0)))
            other.append(float(ratio[~is_own].max(initial=0.0)))
        return own, other


def _kinds(case: ClassCase, overlaps: _Overlaps, settings: DiagnosisSettings) -> Indices:
    """The place in KINDS of each detection of a class, [N]."""
    matched = case.match(np.array([settings.tiou]))[0] != NOT_MATCHED
    own, other = overlaps.of(case)
    return np.array(
        [
            KINDS.index("true_positive" if is_match else _error(mine, others, settings))
            for is_match, mine, others in zip(matched, own, other, strict=True)
        ],
        dtype=np.int64,
    )


def _error(own: float, other: float, settings: DiagnosisSettings) -> ErrorKind:
    if own >= settings.tiou:
        return "double_detection"
    if other >= settings.tiou:
        return "wrong_label"
    if max(own, other) < settings.background_tiou:
        return "background"
    return "localization" if own >= other else "confusion"


def _count(
    cases: Sequence[ClassCase], kinds: Sequence[Indices], multiple: int
) -> dict[ErrorKind, int]:
    total = np.zeros(len(KINDS), dtype=np.int64)
    for case, of_class in zip(cases, kinds, strict=True):
        surest = of_class[: multiple * case.num_instances]
        total += np.bincount(surest, minlength=len(KINDS))
    return dict(zip(KINDS, total.tolist(), strict=True))


def _gain(cases: Sequence[ClassCase], kinds: Sequence[Indices], number: int, tiou: float) -> float:
    tious = np.array([tiou])
    gains = []
    for case, of_class in zip(cases, kinds, strict=True):
        others = tuple(
            one for one, kind in zip(case.ranked, of_class, strict=True) if kind != number
        )
        without = ClassCase(case.label, case.instances, others)
        gains.append(average_precision(without, tious)[0] - average_precision(case, tious)[0])
    return float(np.mean(gains))
