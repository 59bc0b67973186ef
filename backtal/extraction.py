"""From a video to its features: decode windows, clips, and each stream's backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backtal.clips import ClipAssembler, clip_times
from backtal.decoded import Decoded
from backtal.errors import Internal, InvalidArgument
from backtal.feature_store import FeatureStore, KnownVideos
from backtal.feature_store.key import feature_key
from backtal.features import FeatureProvenance, FeatureSequence, FloatArray
from backtal.flow import joined, pieces
from backtal.manifest import ClipPlan, FeatureManifest, Manifest, StreamName
from backtal.precision import computed_in
from backtal.prefetch import Prefetch
from backtal.run_control import Progress, RunControl, StageTime
from backtal.stages import Clips, Stages
from backtal.video import (
    RESIZER,
    DecoderName,
    RangeReader,
    Source,
    Video,
    VideoDescription,
    VideoLimits,
    open_video,
)
from backtal.video.source import open_source

if TYPE_CHECKING:
    from backtal.video.sandbox import DecoderPool

CLIPS_PER_BATCH = 4
WINDOW_FRAMES = 64
FIELDS_PER_CALL = 4


@dataclass(frozen=True, eq=False)
class Extracted:
    """The features of a video, and what decoding found; None for features that were given.

    are_known: they were stored, and nothing was decoded this time.
    """

    features: FeatureSequence
    warnings: tuple[str, ...] = ()
    video: VideoDescription | None = None
    are_known: bool = False


class FeatureExtractor:
    """The first half of a bundle's pipeline. It keeps nothing between videos but in `store`.

    Videos are decoded in the children of `pool`, without one in this process. With a `store`,
    those that were decoded whole before are not decoded again.

    Raises InvalidArgument for a store with another decoder than pyav.
    """

    def __init__(
        self,
        manifest: Manifest | FeatureManifest,
        stages: Stages,
        limits: VideoLimits,
        decoder: DecoderName = "pyav",
        pool: DecoderPool | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        if store is not None and decoder != "pyav":
            raise InvalidArgument(f"decoder is {decoder!r}, a feature store takes 'pyav' alone")
        self._manifest = manifest
        self._description = manifest.description
        self._stages = stages
        self._limits = limits
        self._decoder: DecoderName = decoder
        self._pool = pool
        self._known = None if store is None else KnownVideos(store, self._key)

    @property
    def streams(self) -> tuple[str, ...]:
        """Of the features, one below the other."""
        return tuple(backbone.stream for backbone in self._description.backbones)

    @property
    def provenance(self) -> FeatureProvenance:
        """What the features of this extractor are made by."""
        description = self._description
        networks = [self._manifest.backbones[backbone.stream] for backbone in description.backbones]
        return FeatureProvenance(
            decoder=self._decoder,
            resizer=RESIZER,
            clip_plan=description.clip_plan,
            backbone_sha256=tuple(backbone.sha256 for backbone in description.backbones),
            backbones=description.backbones,
            precision=",".join(computed_in(network.precision) for network in networks),
        )

    def extract(
        self,
        source: Path | bytes | RangeReader,
        *,
        allow_partial: bool = False,
        control: RunControl | None = None,
    ) -> Extracted:
        """The features of a whole video. Raises what `pass_on` raises."""
        parts: list[FloatArray] = []
        decoded = self.pass_on(source, parts.append, allow_partial=allow_partial, control=control)
        start, end = clip_times(self._description.clip_plan, decoded.duration_seconds)
        features = FeatureSequence(
            values=np.concatenate(parts, axis=1),
            clip_start_seconds=start,
            clip_end_seconds=end,
            duration_seconds=decoded.duration_seconds,
            num_frames_decoded=decoded.num_frames,
            streams=self.streams,
            provenance=self.provenance,
        )
        return Extracted(features, decoded.warnings, decoded.video, decoded.is_known)

    def pass_on(
        self,
        source: Path | bytes | RangeReader,
        take: Callable[[FloatArray], None],
        *,
        allow_partial: bool = False,
        control: RunControl | None = None,
    ) -> Decoded:
        """Give each batch's features [D, n] to `take`, decoded one batch ahead; none is kept.

        Raises NotFound, InvalidVideo, LimitExceeded; Cancelled within one batch of clips;
        Unavailable where the pool is full or its child is killed; InvalidArgument where the
        bundle takes flow and does not say how it is computed; MissingDependency where that needs
        what is not installed.
        """
        self._check_streams()
        control = control or RunControl()
        if self._known is None:
            decoded = self._decode(source, take, allow_partial, control)
        else:
            opened = open_source(source, self._limits)
            decoded = self._known.pass_on(
                opened,
                take,
                lambda take, keep: self._decode(opened, take, allow_partial, control, keep),
                allow_partial=allow_partial,
                control=control,
            )
        control.on_progress(Progress(decoded.duration_seconds, decoded.duration_seconds))
        return decoded

    def _decode(
        self,
        source: Path | bytes | RangeReader | Source,
        take: Callable[[FloatArray], None],
        allow_partial: bool,
        control: RunControl,
        before_close: Callable[[Decoded], None] = lambda _: None,
    ) -> Decoded:
        with closing(
            open_video(source, self._limits, decoder=self._decoder, pool=self._pool)
        ) as video:
            self._pass_on(video, take, allow_partial, control)
            report = video.report
            decoded = Decoded(
                report.duration_seconds, report.num_frames, report.warnings, video.description
            )
            before_close(decoded)
        return decoded

    def _pass_on(
        self,
        video: Video,
        take: Callable[[FloatArray], None],
        allow_partial: bool,
        control: RunControl,
    ) -> None:
        plan = self._description.clip_plan
        declared_seconds = video.description.duration_seconds or 0.0
        num_clips = 0
        with Prefetch(clip_batches(video, plan, allow_partial), name="decode") as batches:
            try:
                for samples in batches:
                    control.check_cancelled()
                    take(self._features(samples, control))
                    num_clips += len(samples)
                    done_seconds = num_clips * plan.stride_seconds
                    total_seconds = declared_seconds or done_seconds
                    control.on_progress(Progress(min(done_seconds, total_seconds), total_seconds))
            finally:
                spent = StageTime(batches.started, batches.ended, batches.busy_seconds)
                control.add("decode", spent)
        control.check_cancelled()

    def _key(self, content: str) -> str:
        return feature_key(content, self._manifest, self.provenance, self._limits)

    def _features(self, samples: NDArray[np.uint8], control: RunControl) -> FloatArray:
        """Features [D, n] of samples [n, frames_taken, H, W, 3], one stream below the other."""
        parts = []
        for backbone in self._description.backbones:
            with control.measure(backbone.stream):
                clips = self._clips_of(backbone.stream, samples, control)
                part = self._stages.features(backbone.stream, clips)
            if part.shape != (len(clips), backbone.feature_dim):
                raise Internal(
                    f"backbone {backbone.name} gave features {list(part.shape)} for "
                    f"{len(clips)} clips, expected [{len(clips)}, {backbone.feature_dim}]"
                )
            parts.append(part)
        return np.ascontiguousarray(np.concatenate(parts, axis=1).T)

    def _clips_of(
        self, stream: StreamName, samples: NDArray[np.uint8], control: RunControl
    ) -> Clips:
        plan = self._description.clip_plan
        if plan.takes_frames(stream):
            return samples[:, : plan.clip_shape(stream)[0]]
        return self._flow(samples, control)

    def _flow(self, samples: NDArray[np.uint8], control: RunControl) -> FloatArray:
        """Flow [n, frames_per_clip, H, W, 2]; between two frames it is computed once a batch."""
        plan = self._description.clip_plan
        length, step = plan.frames_per_clip, plan.stride_frames
        row = joined(samples, plan)
        if row is None:
            return np.stack([self._fields(sample, control) for sample in samples])
        flow = self._fields(row, control)
        return np.stack([flow[i * step : i * step + length] for i in range(len(samples))])

    def _fields(self, frames: NDArray[np.uint8], control: RunControl) -> FloatArray:
        """The flow between frames in a row, a few at a time: TV-L1 takes its time."""
        fields = []
        for part in pieces(frames, FIELDS_PER_CALL):
            control.check_cancelled()
            fields.append(self._stages.flow_fields(part))
        return np.concatenate(fields)

    def _check_streams(self) -> None:
        description = self._description
        for backbone in description.backbones:
            if backbone.stream not in self._manifest.backbones:
                raise InvalidArgument(
                    f"bundle {description.name} has no backbone for the stream "
                    f"{backbone.stream!r}: send features"
                )
            if backbone.stream == "flow" and description.clip_plan.flow is None:
                raise InvalidArgument(
                    f"bundle {description.name} needs the stream 'flow', and its clip plan "
                    f"does not say how flow is computed from a video: send features"
                )


def clip_batches(video: Video, plan: ClipPlan, allow_partial: bool) -> Iterator[NDArray[np.uint8]]:
    """A video's clips, CLIPS_PER_BATCH at a time: uint8 [n, plan.frames_taken, H, W, 3]."""
    batch: list[NDArray[np.uint8]] = []
    for clip in _clips(video, plan, allow_partial):
        batch.append(clip)
        if len(batch) == CLIPS_PER_BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _clips(video: Video, plan: ClipPlan, allow_partial: bool) -> Iterator[NDArray[np.uint8]]:
    assembler = ClipAssembler(plan)
    windows = video.windows(plan, window_frames=WINDOW_FRAMES, allow_partial=allow_partial)
    for window in windows:
        yield from assembler.add(window)
    yield from assembler.finish()
