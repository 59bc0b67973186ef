"""What an answer, or a failure, adds to the pipeline's metrics: no Triton here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from backtal.clips import clip_times
from backtal.errors import BacktalError, DecoderUnavailable, InvalidVideo, LimitExceeded
from backtal.feature_store import FeatureStore
from backtal.localization import num_windows
from backtal.manifest import BundleDescription
from backtal.pipeline import Answer, Request
from backtal.segments import Segment
from backtal_serving.metrics import definitions as metrics
from backtal_serving.metrics.definitions import CODECS, FEATURES_CODEC, OTHER_CODEC, Metric

# FFmpeg names a stream after the decoder that it takes for it.
_CODEC_OF_DECODER = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}


@dataclass(frozen=True)
class Observation:
    """A value to count or to observe. labels: the values beside the bundle's name, in order."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


def of_answer(
    answer: Answer, request: Request, description: BundleDescription
) -> Iterator[Observation]:
    """What an answered request adds."""
    for stage in metrics.STAGES:
        if stage in answer.stage_seconds:
            yield Observation(metrics.STAGE_SECONDS, answer.stage_seconds[stage], (stage,))
    seconds = answer.duration_seconds
    yield Observation(metrics.VIDEO_SECONDS, seconds)
    yield Observation(metrics.INPUT_SECONDS, seconds)
    yield Observation(metrics.INPUT_BYTES, _num_bytes(answer, request))
    yield Observation(metrics.INPUTS, 1, (_codec(answer),))
    yield Observation(
        metrics.WINDOWS, num_windows(len(answer.position_seconds_middle), description)
    )
    if answer.feature_source == "video":
        yield Observation(metrics.FRAMES, answer.num_frames_decoded)
        yield Observation(metrics.CLIPS, len(clip_times(description.clip_plan, seconds)[0]))
    yield from _of_segments(answer.segments)


def of_failure(error: BacktalError, request: Request) -> Iterator[Observation]:
    """What a request adds that ended in an error: something, where its video is the reason."""
    if request.features is not None:
        return
    if isinstance(error, InvalidVideo):
        yield Observation(metrics.DECODE_FAILURES, 1, (error.problem,))
    elif isinstance(error, LimitExceeded):
        yield Observation(metrics.DECODE_FAILURES, 1, ("limit",))
    elif isinstance(error, DecoderUnavailable):
        yield Observation(metrics.DECODE_FAILURES, 1, ("decoder_unavailable",))


def of_store(store: FeatureStore | None) -> Iterator[Observation]:
    """What a feature store counted; it begins anew."""
    if store is None:
        return
    for outcome, count in store.counts.items():
        yield Observation(metrics.FEATURE_STORE, count, (outcome,))
    store.counts.clear()


def _of_segments(segments: tuple[Segment, ...]) -> Iterator[Observation]:
    scores: dict[str, list[float]] = defaultdict(list)
    for segment in segments:
        scores[segment.label].append(segment.score)
    for label, found in scores.items():
        yield Observation(metrics.SEGMENTS, len(found), (label,))
        yield Observation(metrics.SEGMENT_SCORES, sum(found), (label,))


def _num_bytes(answer: Answer, request: Request) -> int:
    if request.features is not None:
        return request.features.values.nbytes
    return 0 if answer.video is None else answer.video.num_bytes


def _codec(answer: Answer) -> str:
    if answer.video is None:
        return FEATURES_CODEC
    name = _CODEC_OF_DECODER.get(answer.video.codec, answer.video.codec)
    return name if name in CODECS else OTHER_CODEC
