"""What a caller sees of an answer, wherever it was computed, and ActivityNet's results format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.features import FeatureSequence
from backtal.segments import Segment

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DetectionAnswer:
    """The actions found in one video.

    segments: by falling score, none where there is no action.
    cas, position_seconds: the raw class activation sequence [C, L] and the middle of each
        position [L], where they were asked for.
    classes: the names of the CAS's channels, () where the server did not tell.
    provenance: bundle, its hash, frames decoded and declared, warnings, seconds by stage.
    """

    segments: tuple[Segment, ...]
    duration_seconds: float
    cas: FloatArray | None = None
    position_seconds: FloatArray | None = None
    classes: tuple[str, ...] = ()
    features: FeatureSequence | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller should know: a file that ends early, a partial answer."""
        return tuple(self.provenance.get("warnings", ()))


def activitynet_results(videos: Iterable[tuple[str, DetectionAnswer]]) -> dict[str, Any]:
    """The answers of named videos as ActivityNet's results: what its evaluation code reads."""
    results = {}
    external: dict[str, Any] = {"used": False, "details": ""}
    for name, answer in videos:
        results[name] = [
            {
                "label": segment.label,
                "score": round(segment.score, 6),
                "segment": [round(segment.start_seconds, 3), round(segment.end_seconds, 3)],
            }
            for segment in answer.segments
        ]
    return {"version": "VERSION 1.3", "results": results, "external_data": external}
