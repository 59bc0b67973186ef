"""What a caller sees of an answer, wherever it was computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.features import FeatureSequence
from backtal.manifest import Manifest
from backtal.pipeline import Answer
from backtal.segments import Segment
from backtal.video import VideoDescription

FloatArray = NDArray[np.float32]

BACKGROUND = "background"


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

    @classmethod
    def from_pipeline(cls, answer: Answer, manifest: Manifest) -> DetectionAnswer:
        """What a client of the server would have seen of the pipeline's `answer`."""
        told = provenance(answer, manifest)
        return cls(
            segments=answer.segments,
            duration_seconds=answer.duration_seconds,
            cas=answer.cas,
            position_seconds=answer.position_seconds_middle.astype(np.float32),
            classes=tuple(told["classes"]),
            features=answer.features,
            provenance=told,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller should know: a file that ends early, a partial answer."""
        return tuple(self.provenance.get("warnings", ()))


def provenance(answer: Answer, manifest: Manifest) -> dict[str, Any]:
    """Where an answer came from, as plain data.

    `classes` are the names of the channels of `cas`, `features` what made the features,
    `feature_source` where this run had them from, `video` what the file declares of itself.
    """
    description = manifest.description
    background = [BACKGROUND] if description.cas.background else []
    return {
        "bundle": answer.bundle_name,
        "bundle_sha256": answer.bundle_sha256,
        "classes": [*description.classes, *background],
        "duration_seconds": answer.duration_seconds,
        "num_frames_decoded": answer.num_frames_decoded,
        "num_frames_declared": None if answer.video is None else answer.video.num_frames,
        "video": None if answer.video is None else _declared(answer.video),
        "streams": list(answer.streams),
        "features": answer.feature_provenance.model_dump(mode="json"),
        "feature_source": answer.feature_source,
        "warnings": list(answer.warnings),
        "stage_seconds": dict(answer.stage_seconds),
    }


def _declared(video: VideoDescription) -> dict[str, Any]:
    return {
        "container": video.container,
        "codec": video.codec,
        "width": video.width,
        "height": video.height,
        "num_bytes": video.num_bytes,
        "frames_per_second": video.frames_per_second,
    }
