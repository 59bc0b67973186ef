"""From a video, or from features, to timed segments: plain Python over the `Stages` seam.

    decode window -> clips -> features, each stream      (decoding runs one batch ahead)
    features [D, N] -> grid of positions -> CAS, in chunks -> windows -> segments

Where a bundle has windows and nobody asks for the features, all of it goes on as the video is
decoded, and what is done with is dropped (`backtal.streaming`). The answers are the same.

Inside Triton the stages are calls to inner models, elsewhere ONNX Runtime in process. Clips go
to a network in batches of CLIPS_PER_BATCH counted from the video's start, so that both send the
same batches and answer the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from backtal.cas_chunks import chunked_cas
from backtal.errors import Internal, InvalidArgument
from backtal.extraction import CLIPS_PER_BATCH, Extracted, FeatureExtractor
from backtal.feature_store import FeatureStore
from backtal.features import (
    FeatureProvenance,
    FeatureSequence,
    FloatArray,
    position_middles,
)
from backtal.localization import Choice, localize
from backtal.manifest import Manifest
from backtal.run_control import Progress, RunControl, StageTime
from backtal.segments import Segment
from backtal.stages import CasOutput, Stages
from backtal.streaming import SegmentStream
from backtal.video import DecoderName, RangeReader, VideoDescription, VideoLimits

if TYPE_CHECKING:
    from backtal.video.sandbox import DecoderPool

__all__ = [
    "CLIPS_PER_BATCH",
    "Answer",
    "CasOutput",
    "Pipeline",
    "Progress",
    "Request",
    "Stages",
    "chunked_cas",
]

Kept = Literal["cas", "features"]
FeatureSource = Literal["video", "request", "store"]


@dataclass(frozen=True, eq=False)
class Request:
    """One of video, path, remote and features; and what the caller may choose.

    video: an encoded file. path: one on disk. remote: one elsewhere; the run closes it.

    None leaves a choice to the bundle. score_threshold: the lowest score of a segment. nms: the
    tIoU above which segments of a class are one. allow_partial: answer for what can be decoded
    of a damaged video, with a warning.
    """

    video: bytes | None = None
    path: Path | None = None
    remote: RangeReader | None = None
    features: FeatureSequence | None = None
    score_threshold: float | None = None
    max_segments: int | None = None
    classes: tuple[str, ...] | None = None
    nms: float | None = None
    allow_partial: bool = False

    def __post_init__(self) -> None:
        sources = {
            "video": self.video,
            "path": self.path,
            "remote": self.remote,
            "features": self.features,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise InvalidArgument(f"give one of {', '.join(sources)}; the request has {found}")


@dataclass(frozen=True, eq=False)
class Answer:
    """The segments by falling score, and all that they came from.

    cas: raw [C(+1), L], features: both None where they were not to be kept.
    position_seconds_middle: float64 [L], the middle of each position.
    streams, feature_provenance: which features, and what made them.
    video: what the file declares; None for features. stage_seconds: time spent by stage; decoding
    runs beside the features, so that the sum may exceed the total.
    feature_source: where this run had its features from.
    """

    segments: tuple[Segment, ...]
    duration_seconds: float
    cas: FloatArray | None
    position_seconds_middle: NDArray[np.float64]
    features: FeatureSequence | None
    streams: tuple[str, ...]
    feature_provenance: FeatureProvenance
    warnings: tuple[str, ...]
    num_frames_decoded: int
    video: VideoDescription | None
    stage_seconds: dict[str, float]
    bundle_name: str
    bundle_sha256: str
    feature_source: FeatureSource = "video"


class Pipeline:
    """A bundle's pipeline. It keeps nothing between runs but in `store`; runs may go side by side.

    Videos are decoded in the children of `pool`; without one in this process, which is for files
    that are trusted. With a `store`, a video that was decoded before is answered from its features.
    """

    def __init__(
        self,
        manifest: Manifest,
        stages: Stages,
        limits: VideoLimits | None = None,
        decoder: DecoderName = "pyav",
        pool: DecoderPool | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self._manifest = manifest
        self._description = manifest.description
        self._bundle_sha256 = manifest.sha256
        self._stages = stages
        self._limits = limits or VideoLimits()
        self._extractor = FeatureExtractor(manifest, stages, self._limits, decoder, pool, store)

    def run(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_progress: Callable[[Progress], None] = lambda _: None,
        max_seconds: float | None = None,
        stages: dict[str, StageTime] | None = None,
        keep: Collection[Kept] = ("cas", "features"),
    ) -> Answer:
        """Answer `request`; `keep` says what of the large parts of an answer is wanted.

        `stages` is filled with the time of each stage as the run goes on, to its end or its error.
        `on_progress` gets segments as they become final, each once, where the bundle has windows
        and the features are not wanted. What it gets is in the answer, unless the video has more
        than `max_segments`: those are then the surest of them.

        Raises Cancelled within one batch of clips of `is_cancelled` turning true, and
        DeadlineExceeded as soon after `max_seconds`; Unavailable for a decoder; NotFound,
        InvalidVideo and LimitExceeded for the video; InvalidArgument for features of another
        backbone or dimension, and for a choice out of its range.
        """
        with closing(request.remote) if request.remote is not None else nullcontext():
            control = RunControl(
                is_cancelled, on_progress, max_seconds, {} if stages is None else stages
            )
            # Before any work is done; localization would find it at the end.
            choice = Choice(
                request.score_threshold, request.max_segments, request.classes, request.nms
            )
            choice.check(self._description.classes)
            has_windows = self._description.localization.preset != "released"
            if has_windows and request.features is None and "features" not in keep:
                return self._streamed(request, choice, control, keep)
            return self._whole(request, control, keep)

    def _streamed(
        self, request: Request, choice: Choice, control: RunControl, keep: Collection[Kept]
    ) -> Answer:
        with control.measure("total"):
            stream = SegmentStream(
                self._manifest, self._stages, choice, control, keep_cas="cas" in keep
            )

            def tell(progress: Progress) -> None:
                control.on_progress(replace(progress, segments=stream.take_final()))

            decoded = self._extractor.pass_on(
                _source(request),
                stream.take,
                allow_partial=request.allow_partial,
                control=replace(control, on_progress=tell),
            )
            segments = stream.finish(decoded.duration_seconds)
        seconds = self._description.grid.position_seconds
        return Answer(
            segments=segments,
            duration_seconds=decoded.duration_seconds,
            cas=stream.cas,
            position_seconds_middle=position_middles(decoded.duration_seconds, seconds),
            features=None,
            streams=self._extractor.streams,
            feature_provenance=self._extractor.provenance,
            warnings=decoded.warnings,
            num_frames_decoded=decoded.num_frames,
            video=decoded.video,
            stage_seconds=control.stage_seconds,
            bundle_name=self._description.name,
            bundle_sha256=self._bundle_sha256,
            feature_source="store" if decoded.is_known else "video",
        )

    def _whole(self, request: Request, control: RunControl, keep: Collection[Kept]) -> Answer:
        with control.measure("total"):
            extracted = self._extract(request, control)
            features = extracted.features
            position_seconds = self._position_seconds(features.duration_seconds)
            with control.measure("cas"):
                output = self._cas(features.on_grid(position_seconds), control)
            with control.measure("localize"):
                segments = self._localize(output, features, request)
        return Answer(
            segments=segments,
            duration_seconds=features.duration_seconds,
            cas=output.cas[0] if "cas" in keep else None,
            position_seconds_middle=position_middles(features.duration_seconds, position_seconds),
            features=features if "features" in keep else None,
            streams=features.streams,
            feature_provenance=features.provenance,
            warnings=extracted.warnings,
            num_frames_decoded=features.num_frames_decoded,
            video=extracted.video,
            stage_seconds=control.stage_seconds,
            bundle_name=self._description.name,
            bundle_sha256=self._bundle_sha256,
            feature_source=_feature_source(request, extracted),
        )

    def _extract(self, request: Request, control: RunControl) -> Extracted:
        if request.features is not None:
            self._check_features(request.features)
            return Extracted(request.features)
        return self._extractor.extract(
            _source(request), allow_partial=request.allow_partial, control=control
        )

    def _position_seconds(self, duration_seconds: float) -> float:
        grid = self._description.grid
        if self._description.localization.preset == "released":
            return duration_seconds / grid.window_positions
        return grid.position_seconds

    def _cas(self, features: FloatArray, control: RunControl) -> CasOutput:
        output = chunked_cas(
            self._stages,
            features,
            halo_positions=self._description.cas.halo_positions,
            before_chunk=control.check_cancelled,
        )
        expected = (1, self._description.cas_channels, features.shape[1])
        if output.cas.shape != expected:
            raise Internal(
                f"network {self._manifest.cas.model} gave a CAS {list(output.cas.shape)}, "
                f"expected {list(expected)}"
            )
        return output

    def _localize(
        self, output: CasOutput, features: FeatureSequence, request: Request
    ) -> tuple[Segment, ...]:
        return localize(
            output.cas[0],
            None if output.magnitude is None else output.magnitude[0],
            description=self._description,
            duration_seconds=features.duration_seconds,
            num_frames=features.num_frames_decoded or None,
            score_threshold=request.score_threshold,
            max_segments=request.max_segments,
            classes=request.classes,
            nms=request.nms,
        )

    def _check_features(self, features: FeatureSequence) -> None:
        description = self._description
        self._limits.check_duration("features", features.duration_seconds)
        if features.feature_dim != description.feature_dim:
            raise InvalidArgument(
                f"features has {features.feature_dim} dimensions, bundle {description.name} "
                f"takes {description.feature_dim}"
            )
        made_by = features.provenance.backbone_sha256
        expected = tuple(backbone.sha256 for backbone in description.backbones)
        if made_by and made_by != expected:
            raise InvalidArgument(
                f"features are of the backbone {','.join(made_by)}, bundle {description.name} "
                f"takes those of {','.join(expected)}"
            )


def _feature_source(request: Request, extracted: Extracted) -> FeatureSource:
    if request.features is not None:
        return "request"
    return "store" if extracted.are_known else "video"


def _source(request: Request) -> bytes | Path | RangeReader:
    found = next((s for s in (request.video, request.path, request.remote) if s is not None), None)
    if found is None:
        raise Internal("a request without a source")
    return found
